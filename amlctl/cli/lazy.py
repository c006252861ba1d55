"""Commands that are imported only when they are run or asked for their own help."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer.main
from typer.core import TyperCommand, TyperGroup


class LazyCommand(TyperCommand):
    """A line of the root help; the module with the real command (its `app`) is loaded on first use."""

    def __init__(self, name: str, module: str, short_help: str, panel: str) -> None:
        super().__init__(name, help=short_help, rich_help_panel=panel)
        self.module = module

    def load(self) -> Any:
        """The real command, under the name of this line."""
        command = typer.main.get_command(import_module(self.module).app)
        command.name = self.name
        return command

    def make_context(self, info_name: Any, args: Any, parent: Any = None, **extra: Any) -> Any:
        # A context carries its command, and whoever runs or completes goes on with that one.
        return self.load().make_context(info_name, args, parent, **extra)


class CommandGroup(TyperGroup):
    """A group that shows its help when nothing is asked of it."""

    default_command: str | None = None
    """What runs where no subcommand is named; its options may follow the group's name directly."""

    def parse_args(self, ctx: Any, args: Any) -> Any:
        is_named = bool(args) and (not args[0].startswith("-") or args[0] in ctx.help_option_names)
        if self.default_command is not None and not is_named and not ctx.resilient_parsing:
            args = [self.default_command, *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        is_json = getattr(ctx.obj, "is_json", False) or ctx.params.get("is_json", False)
        if not ctx._protected_args and not is_json:
            typer.echo(ctx.get_help(), err=True, nl=False)
            raise typer.Exit(2)
        if not ctx._protected_args:
            ctx.fail("Missing command")
        return super().invoke(ctx)
