"""The command line of the first amlctl, which had options only: what each of them is today."""

from __future__ import annotations

from collections.abc import Sequence

from amlctl.core.message import Command, Message
from amlctl.errors import UsageError

NEW_SPELLINGS = {
    "--script-path": Command("submit", "SCRIPT"),
    "--experiment-name": "--experiment",
    "--config-path": "--config, with which the script gets --config PATH; with the old name it gets the path alone",
    "--required-datasets-path": "--dataset",
    "--should-upload-datasets": "--sync or --no-sync",
    "--compute-target": "--compute",
    "--datastore": 'store = "https://…" in .amlctl.toml, and is not used: data goes to the store of the workspace',
    "--should-open-url": Message("a command of its own: ", Command("runs", "open", "RUN")),
}


def with_submit(words: Sequence[str]) -> list[str]:
    """`words` with the command that the first amlctl did not need."""
    is_old = bool(words) and words[0].partition("=")[0] in NEW_SPELLINGS
    return ["submit", *words] if is_old else list(words)


def new_spellings(words: Sequence[str]) -> list[Message]:
    """A sentence for each old option in `words`."""
    used = dict.fromkeys(word.partition("=")[0] for word in words)
    return [Message(f"{name} is now ", NEW_SPELLINGS[name]) for name in used if name in NEW_SPELLINGS]


def said_yes(option_name: str, word: str | None, *, default: bool) -> bool:
    """The value of an option that was `True` or `False`. Raises UsageError if it is neither."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if word is not None and word.lower() not in words:
        raise UsageError(f"Invalid {option_name} {word!r}: expected True or False", hint="use True or False")
    return default if word is None else words[word.lower()]
