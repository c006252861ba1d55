"""`amlctl help`."""

from __future__ import annotations

from typing import Annotated

import typer

from amlctl.cli.command_group import TyperApp, examples

app = TyperApp()


@app.command(epilog=examples("amlctl help # all commands", "amlctl help runs show # one of them"))
def help(
    ctx: typer.Context,
    topic: Annotated[list[str] | None, typer.Argument(metavar="COMMAND...", help="Command to explain")] = None,
) -> None:
    """Show the help page of a command"""
    root = ctx.find_root()
    page = ["--help"] if topic is None else [*topic, "--help"]
    with root.command.make_context("amlctl", page) as fresh:  # printing its page raises Exit
        root.command.invoke(fresh)
