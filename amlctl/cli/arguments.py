"""The words of a command line before Typer sees them: global options come to the front, empty values are refused, and
options of the first amlctl, which had no commands, are taken for those of `submit`.

An argument that is spelled like a global option always is that option, also where another option expects a value:
`--name --json` sets no name; write `--name=--json` for that. What follows `--` belongs to the script.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from amlctl.core.message import Command, Message
from amlctl.errors import UsageError

FLAGS = frozenset({"--json", "--quiet", "-q", "--verbose", "-v", "--no-color", "--version", "-V"})
VALUED = frozenset({"--workspace", "--project"})

_EMPTY_HINT = "set a value or leave it out; a shell variable may be empty"


class GlobalOptions(NamedTuple):
    """Options of every command; `workspace` and `project` are None if not given."""

    workspace: str | None = None
    project: Path | None = None
    is_json: bool = False
    is_quiet: bool = False
    is_verbose: bool = False
    no_color: bool = False


def before_script(arguments: Sequence[str]) -> Sequence[str]:
    """The arguments without those of the script."""
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def hoist(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split `arguments` into the global options with their values, and the rest in its order.

    Raises UsageError for a global option without its value.
    """
    hoisted: list[str] = []
    rest: list[str] = []
    ours = before_script(arguments)
    position = 0
    while position < len(ours):
        argument = ours[position]
        position += 1
        name, equals, _ = argument.partition("=")
        if argument in FLAGS or (equals and name in VALUED):
            hoisted.append(argument)
        elif argument in VALUED:
            if position == len(ours) or ours[position].startswith("-"):
                raise UsageError(f"{argument} requires a value", hint=Command("--help"))
            hoisted += [argument, ours[position]]
            position += 1
        else:
            rest.append(argument)
    return hoisted, [*rest, *arguments[len(ours) :]]


def check_not_empty(arguments: Sequence[str]) -> None:
    """Refuse empty options and arguments: most often a shell variable had no value. Raises UsageError."""
    before = ""
    for argument in before_script(arguments):
        name, equals, value = argument.partition("=")
        if not argument:
            what = f"{before} is empty" if before.startswith("-") and "=" not in before else "an argument is empty"
            raise UsageError(what, hint=_EMPTY_HINT)
        if name.startswith("--") and equals and not value:
            raise UsageError(f"{name} is empty", hint=_EMPTY_HINT)
        before = argument


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
"""What each option of the first amlctl is today."""


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
