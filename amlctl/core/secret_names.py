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
_PARTS = frozenset({"KEY", "KEYS", "SAS", "SIG", "PWD", "AUTH", "CONNSTR"})
_SIGNED_VALUE = re.compile(r"(?i)[?&;]?\b(sig|AccountKey|SharedAccessKey|SharedAccessSignature)=[^&;\s]")
_URL_PASSWORD = re.compile(r"://[^/\s:@]*:[^/\s@]+@")


def looks_secret(name: str, value: str = "") -> bool:
    """True if the name has a part such as KEY or TOKEN, or the value carries a signature or a password."""
    split = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    upper = re.sub(r"[^A-Z0-9]+", "_", split.upper())
    return (
        any(word in upper or word in name.upper() for word in _ANYWHERE)
        or not _PARTS.isdisjoint(upper.split("_"))
        or _SIGNED_VALUE.search(value) is not None
        or _URL_PASSWORD.search(value) is not None
    )


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
