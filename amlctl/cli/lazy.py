"""Commands that are imported only when they are run or asked for their own help."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any

import typer.main
from typer.core import TyperCommand, TyperGroup

HELP_OPTIONS = ["-h", "--help"]


class LazyCommand(TyperCommand):
    """A line of the root help; the module with the real command (its `app`) is loaded on first use."""

    def __init__(self, name: str, module: str, short_help: str, panel: str) -> None:
        super().__init__(name, help=short_help, rich_help_panel=panel)
        self.module = module

    def load(self) -> Any:
        """The real command, under the name of this line."""
        command: Any = typer.main.get_command(import_module(self.module).app)
        command.name = self.name
        for each in (command, *getattr(command, "commands", {}).values()):
            spare_pydantic(each)
            plain_help(each)
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
        if ctx._protected_args:
            return super().invoke(ctx)
        if getattr(ctx.obj, "is_json", False) or ctx.params.get("is_json", False):
            ctx.fail("Missing command")
        typer.echo(ctx.get_help(), err=True, nl=False)
        raise typer.Exit(2)


class _LateCoercion:
    """Hands on what needs no conversion, and leaves the rest to Typer."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        if isinstance(value, bool) or param.type_descriptor.annotation in (str, list[str]):
            return value
        param._runtime_param = None
        return param.get_runtime_param().coerce(value, param=param, ctx=ctx)


def spare_pydantic(command: Any) -> None:
    """Keep Typer from importing pydantic for options that were not given, or that are text anyway.

    That import takes as long as all the rest of a command's start. Versions of Typer without this inner door
    have no pydantic either; a test tells when it has moved.
    """
    command.context_settings.setdefault("help_option_names", HELP_OPTIONS)
    context = command.context_class(command, **command.context_settings)
    for param in command.get_params(context):  # with --help, which the command then keeps
        if hasattr(param, "_runtime_param"):
            param._runtime_param = _LateCoercion()


def plain_help(command: Any) -> None:
    """Help pages as of other tools: `RUN` and `[DIR]`, not `{RUN} <str>`; a flag has no type."""
    context = command.context_class(command, **command.context_settings)
    for param in command.get_params(context):
        if param.param_type_name == "argument":
            usage = param.metavar if param.required else f"[{param.metavar}]"
            param.get_usage_pieces = partial(_usage_pieces, usage)
            param.display_type_rich = _no_type
        elif param.is_flag and param.metavar is None:
            param.metavar = ""


def _usage_pieces(usage: str, ctx: Any) -> list[str]:
    return [usage]


def _no_type(ctx: Any) -> None:
    return None
