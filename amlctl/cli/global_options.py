"""The options that stand before or after the command, as one table, and how they come to the front.

An argument that is spelled like a global option always is that option, also where another option wants a
value: `--name --json` sets no name; write `--name=--json` for that. What follows `--` is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from amlctl.core.message import Command
from amlctl.errors import UsageError

FLAGS = frozenset({"--json", "--quiet", "-q", "--verbose", "-v", "--no-color", "--version"})
VALUED = frozenset({"--workspace", "--project"})


class GlobalOptions(NamedTuple):
    """What holds for any command; `workspace` and `project` are None where nothing was said."""

    workspace: str | None = None
    project: Path | None = None
    is_json: bool = False
    is_quiet: bool = False
    is_verbose: bool = False
    is_colourless: bool = False


def hoist(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part `arguments` into the global options with their values, and all the rest in its order.

    Raises UsageError where a global option lacks its value.
    """
    hoisted: list[str] = []
    rest: list[str] = []
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        position += 1
        if argument == "--":
            return hoisted, [*rest, *arguments[position - 1 :]]
        name, equals, _ = argument.partition("=")
        if argument in FLAGS or (equals and name in VALUED):
            hoisted.append(argument)
        elif argument in VALUED:
            if position == len(arguments) or arguments[position].startswith("-"):
                raise UsageError(f"{argument} needs a value", hint=Command("--help"))
            hoisted += [argument, arguments[position]]
            position += 1
        else:
            rest.append(argument)
    return hoisted, rest
