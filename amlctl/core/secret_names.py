"""Which variables of a run hold secrets. Their values never reach a record, a log of ours or a command line shown."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

MASK = "***"

_ANYWHERE = (
    "SECRET",
    "TOKEN",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "CREDENTIAL",
    "CONNECTION_STRING",
    "APIKEY",
)
_TOKENIZER = re.compile(r"TOKENI[SZ][A-Z]*")
"""Of language models; no secret."""
_PARTS = frozenset({"KEY", "KEYS", "SAS", "SIG", "PWD", "AUTH", "CONNSTR"})
_SIGNED_VALUE = re.compile(r"(?i)[?&;]?\b(sig|AccountKey|SharedAccessKey|SharedAccessSignature)=[^&;\s]")
_PLAIN_VALUE = re.compile(r"(?i)[-+]?[0-9.]+(e[-+]?[0-9]+)?|true|false|null|none|on|off|yes|no")
_URL_PASSWORD = re.compile(r"://[^/\s:@]*:[^/\s@]+@")


def looks_secret(name: str, value: str = "") -> bool:
    """True if the name has a part such as KEY or TOKEN, or the value carries a signature or a password."""
    upper = _upper(name)
    return (
        any(word in upper or word in name.upper() for word in _ANYWHERE if word != "TOKEN")
        or "TOKEN" in _TOKENIZER.sub("", name.upper())
        or not _PARTS.isdisjoint(upper.split("_"))
        or _SIGNED_VALUE.search(value) is not None
        or _URL_PASSWORD.search(value) is not None
    )


def is_secret(name: str, value: str) -> bool:
    """As `looks_secret`, for arguments and settings of a script: the names of models (`max_tokens`, `num_key_heads`)
    count for a number, a switch or nothing only where they end as those of one secret do."""
    if not looks_secret(name, value) or not value:
        return False
    last = _upper(name).strip("_").rpartition("_")[2]
    is_plain = _PLAIN_VALUE.fullmatch(value) is not None
    return not is_plain or last in _PARTS - {"KEYS"} or last.endswith(_ANYWHERE)


def _upper(name: str) -> str:
    """`apiKey` and `api-key` as `API_KEY`."""
    return re.sub(r"[^A-Z0-9]+", "_", re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).upper())


def mask_command_line(words: Sequence[str], secrets: Collection[str]) -> list[str]:
    """The command line with `***` for every secret value, and for what `--token` and its like are followed by."""
    found = sorted((secret for secret in secrets if secret), key=len, reverse=True)

    def masked(word: str) -> str:
        for secret in found:
            # A short value (a digit, "on") stands in many words by accident: only a whole value is masked then.
            if len(secret) >= 6:
                word = word.replace(secret, MASK)
            elif word == secret or word.endswith("=" + secret):
                word = word[: len(word) - len(secret)] + MASK
        return word

    shown: list[str] = []
    before = ""
    for word in words:
        name, separator, value = word.partition("=")
        if separator and value and looks_secret(name, value):
            shown.append(f"{name}={MASK}")
        elif before.startswith("--") and "=" not in before and not word.startswith("-") and looks_secret(before):
            shown.append(MASK)
        else:
            shown.append(masked(word))
        before = word
    return shown
