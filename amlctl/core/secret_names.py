"""What is a secret, of a variable, an argument, a setting, a tag or a text. The one rule that all writers go by.

1. The user's word: what `--secret NAME` names is one, and so is what `--env NAME` takes from the shell.
2. The value alone: a password or a token in a URL, a signature or key in one of Azure's forms, a private key, a JWT,
   and what begins as the tokens of well-known services do (`ghp_…`, `hf_…`, `sk-…`, `AKIA…`).
3. The name, where it can mean nothing else: its last word is `password`, `secret`, `credentials` and the like, or it
   ends in `api_key`, `access_token`, `connection_string` …, or it is `token` alone or with the name of a service. The
   value has to be one that could be a secret: not a switch, a small number, a placeholder such as `<pad>`, a path.
4. The name, where it may mean a secret (`…_key`, `…_token`, `auth`): then the value has to look random.

Names alone prove nothing: `--pad-token x`, `--label-key y`, `--sort-key`, `--num-tokens 5` are recorded as they are.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Callable

MASK = "***"


def _words_in(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PASSWORD_WORDS = _words_in(
    "password passwd passphrase pwd secret secrets credential credentials sas connstr apikey authtoken"
)
_KEY_KINDS = _words_in(
    "api access secret private account shared signing encryption storage master subscription auth service"
)
_TOKEN_KINDS = _words_in(
    "access api app auth aws azure azureml bearer bot client csrf deploy devops discord docker gh git github "
    "gitlab hf hub huggingface jwt kaggle login my npm oauth openai pat personal private pypi read refresh "
    "registry sas secret security service session slack ssh telegram upload user vault wandb write"
)
_MODEL_WORDS = _words_in(
    "add added audio begin bod bos byte char class cls count cut decoder encoder end eos eot eval extra first "
    "forced image initializer input instance last mask max min n new next null num output pad per placeholder "
    "prev prompt sep skip sot source special split start stop sub suppress target total train trigger type unk "
    "video word"
)
_MAYBE_WORDS = _words_in("auth authorization bearer cookie cred creds jwt key keys pat sig signature token tokens")
_ENDINGS = _words_in("b64 base64 str string text val value")

# Compiled by `re` at first use: every command imports this module, and most need no pattern.
_URL_LOGIN = r"(?P<scheme>\b[a-zA-Z][a-zA-Z0-9+.-]{0,30}://)(?P<login>[^\s/?#@'\"]{1,4096}(?:@[^\s/?#@'\"]{1,4096})*)@(?=[^\s/?#@])"
_SIGNED = (
    r"(?i)(?P<name>(?:\b|%26|%3f)(?:sig|accountkey|sharedaccesskey|sharedaccesssignature|client_secret|access_token|"
    r"refresh_token|x-amz-signature|x-amz-security-token)(?:=|%3d))(?P<value>[^&;\s'\"<>]+)"
)
_BEARER = r"(?i)(?P<name>\b(?:bearer|basic)\s+)(?P<value>[A-Za-z0-9._~+/-]{16,}=*)"
_SHAPES = (
    r"\b(?:"
    r"(?:AKIA|ASIA)[0-9A-Z]{16}"
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}"
    r"|hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|xox[abeoprs]-[A-Za-z0-9-]{10,}|AIza[0-9A-Za-z_-]{35}"
    r"|pypi-[A-Za-z0-9_-]{16,}|npm_[A-Za-z0-9]{30,}|ya29\.[A-Za-z0-9_-]{20,}|dapi[0-9a-f]{32}|dop_v1_[0-9a-f]{32,}"
    r"|[rs]k_(?:live|test)_[A-Za-z0-9]{16,}|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|tskey-[A-Za-z0-9-]{16,}"
    r"|[A-Za-z0-9_~.-]{3}[78]Q~[A-Za-z0-9_~.-]{31,34}"
    r"|eyJ[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]{8,8192}\.[A-Za-z0-9_-]*"
    r")|(?<=/t/)[A-Za-z0-9-]{20,}(?=/)"
    r"|(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{86}==(?![A-Za-z0-9+/=])"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
)
"""Client secrets of Entra ID have `8Q~` in their fourth place; keys of storage accounts are 64 bytes in base64; what
follows `/t/` in the address of a conda channel is a token."""
_PLAIN = r"(?i)[-+]?\d{1,3}|[-+]?(?:\d+\.\d*|\.\d+)(?:e[-+]?\d+)?|\d+e[-+]?\d+|true|false|null|none|on|off|yes|no|auto"
_PLACEHOLDER = r"(?s)<.*>|\[.*\]|\{.*\}|\$.*|\*+|\.\.\.|…|(?:~|\.{1,2})?/.*"

LOGIN_VARIABLES = _words_in(
    "AMLCTL_STORE_TOKEN AZURE_CLIENT_CERTIFICATE_PASSWORD AZURE_PASSWORD AZURE_STORAGE_AUTH_KEY "
    "AZURE_STORAGE_CONNECTION_STRING AZURE_STORAGE_KEY AZURE_STORAGE_SAS_TOKEN IDENTITY_HEADER MSI_SECRET"
)
"""By which amlctl itself logs in, beside AZURE_…_SECRET. On this machine they are the shell's, not a script's."""


def is_secret(name: str, value: str) -> bool:
    """Whether the value of that variable, option, setting or tag is one."""
    if not value:
        return False
    if carries_secret(value):
        return True
    if has_secret_name(name):
        return re.fullmatch(_PLAIN, value) is None and re.fullmatch(_PLACEHOLDER, value) is None
    return not _MAYBE_WORDS.isdisjoint(_words(name)) and _looks_random(value)


def has_secret_name(name: str) -> bool:
    """Whether the name can mean nothing but a secret."""
    words = _words(name)
    while len(words) > 1 and (words[-1] in _ENDINGS or words[-1].isdigit()) and words[-2:] != ["connection", "string"]:
        words.pop()
    if not words:
        return False
    last, before = words[-1].rstrip("0123456789"), words[-2] if len(words) > 1 else ""
    if last in _PASSWORD_WORDS or [before, last] == ["connection", "string"]:
        return True
    if last == "key":
        return before in _KEY_KINDS
    if last != "token":
        return last.endswith(("password", "passwd", "apikey")) or last in _RUN_TOGETHER
    # HF_TOKEN is how a shell names a credential, --x-token how a model names a part of a text.
    return not before or before in _TOKEN_KINDS or (_is_variable(name) and before not in _MODEL_WORDS)


_RUN_TOGETHER = frozenset(f"{kind}token" for kind in _TOKEN_KINDS) | {f"{kind}key" for kind in _KEY_KINDS}


def carries_secret(value: str) -> bool:
    """Whether the value shows by itself that it is, or has in it, a secret."""
    return masked(value) != value


def masked(text: str) -> str:
    """The text with `***` for what shows by itself that it is a secret: for logs, errors and records."""
    return replaced(text, lambda secret: MASK)


def replaced(text: str, by: Callable[[str], str]) -> str:
    """The text with every such secret, which is a part of a URL as a rule, replaced by what `by` makes of it."""

    def login(found: re.Match[str]) -> str:
        user, colon, password = found["login"].partition(":")
        if re.search(_SHAPES, user) or _looks_random(user):
            user = by(user)
        if colon and not _is_hidden(password):
            password = by(password)
        return f"{found['scheme']}{user}{colon}{password}@"

    def named(found: re.Match[str]) -> str:
        return found["name"] + (found["value"] if _is_hidden(found["value"]) else by(found["value"]))

    def bearer(found: re.Match[str]) -> str:
        return found["name"] + (by(found["value"]) if _looks_random(found["value"]) else found["value"])

    if "://" in text:
        text = re.sub(_URL_LOGIN, login, text)
    text = re.sub(_BEARER, bearer, re.sub(_SIGNED, named, text))
    return re.sub(_SHAPES, lambda found: by(found[0]), text)


def masked_values(values: Mapping[str, str]) -> dict[str, str]:
    """Named values, such as tags, without those that are secrets."""
    return {
        name: MASK if is_secret(name, value) and not carries_secret(value) else masked(value)
        for name, value in values.items()
    }


def is_login_variable(name: str, value: str) -> bool:
    """Whether amlctl logs in with it."""
    is_azure_secret = name.startswith("AZURE_") and name.endswith(("_SECRET", "_PASSWORD"))
    return name in LOGIN_VARIABLES or is_azure_secret or (name == "AMLCTL_STORE" and carries_secret(value))


_NAMES_ONLY = "--secret"
"""Of submit: it has the name of a secret."""


def mask_command_line(words: Sequence[str], secrets: Collection[str]) -> list[str]:
    """The command line with `***` for every one of `secrets`, and for what `is_secret` says is one."""
    found = sorted((secret for secret in secrets if secret), key=len, reverse=True)
    shown: list[str] = []
    before = ""
    ours = words.index("--") if "--" in words else len(words)
    for at, word in enumerate(words):
        if at < ours and (before == _NAMES_ONLY or word.startswith(f"{_NAMES_ONLY}=")):
            shown.append(word)
        elif before.startswith("-") and "=" not in before and not word.startswith("-") and is_secret(before, word):
            shown.append(MASK if masked(word) == word else masked(word))
        else:
            shown.append(_masked_word(_without(word, found)))
        before = word
    return shown


def _without(word: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        # A short value (a digit, "on") stands in many words by accident: only a whole value is masked then.
        if len(secret) >= 6:
            word = word.replace(secret, MASK)
        elif word == secret or word.endswith("=" + secret):
            word = word[: len(word) - len(secret)] + MASK
    return word


def _masked_word(word: str) -> str:
    """`NAME=VALUE`, also behind an option: `--tag=token=VALUE`."""
    name, equals, value = word.partition("=")
    if not equals:
        return masked(word)
    if is_secret(name, value) and masked(value) == value:
        return f"{name}={MASK}"
    return masked(word) if masked(word) != word else f"{name}={_masked_word(value)}"


def _is_hidden(value: str) -> bool:
    """A placeholder of a secret, or a mask."""
    return not value.strip("*") or re.fullmatch(r"<secret:\w+>|\$\{?\w+\}?", value) is not None


def _words(name: str) -> list[str]:
    """`apiKey`, `--api-key` and `API_KEY` as `api`, `key`."""
    return [word for word in re.split(r"[^a-z0-9]+", re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()) if word]


def _is_variable(name: str) -> bool:
    return name.isupper() and not name.startswith("-")


def _looks_random(value: str) -> bool:
    """Letters and digits as a generator makes them: no words, no path, no number."""
    if any(character.isspace() for character in value) or re.fullmatch(_PLACEHOLDER, value):
        return False
    chunks = [chunk for chunk in re.split(r"[^A-Za-z0-9]+", value) if chunk]
    if re.fullmatch(r"[0-9a-fA-F]{32,}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", value):
        return not value.isdigit()
    return any(_is_random_chunk(chunk) for chunk in chunks)


def _is_random_chunk(chunk: str) -> bool:
    if len(chunk) < 16:
        return False
    counts = Counter(chunk)
    entropy = -sum(count / len(chunk) * math.log2(count / len(chunk)) for count in counts.values())
    kinds = ["d" if c.isdigit() else "u" if c.isupper() else "l" for c in chunk]
    changes = sum(one != other for one, other in zip(kinds, kinds[1:]))
    return entropy >= 3.0 and changes >= len(chunk) // 4
