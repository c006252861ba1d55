"""`amlctl skill`."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files

import typer

from amlctl.cli.command_group import COMMANDS, TyperApp, examples, load
from amlctl.cli.invocation import invocation

app = TyperApp()


@app.command(epilog=examples("amlctl skill > SKILL.md # for an agent that works in this project"))
def skill(ctx: typer.Context) -> None:
    """Print a page that explains amlctl to an agent or a script"""
    head = (files("amlctl.cli.commands") / "skill.md").read_text(encoding="utf-8")
    lines = [*head.splitlines(), "", *_commands()]
    invocation(ctx).result({"skill": "\n".join(lines)}, lines)


def _commands() -> Iterator[str]:
    for name, (line, _) in COMMANDS.items():
        inner = getattr(load(name), "commands", {})
        if not inner:
            yield f"- `amlctl {name}`: {line}"
        for inner_name, command in inner.items():
            yield f"- `amlctl {name} {inner_name}`: {command.help.partition(chr(10))[0]}"
