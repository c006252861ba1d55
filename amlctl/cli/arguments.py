"""The words of a command line before Typer sees them: global options come to the front, empty values are refused.

An argument that is spelled like a global option always is that option, also where another option expects a value:
`--name --json` sets no name; write `--name=--json` for that. What follows `--` belongs to the script.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from amlctl.core.message import Command
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
