"""The commands as Typer classes: plain help pages, and modules that are imported only by the command that runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

CommandFunction = TypeVar("CommandFunction", bound=Callable[..., Any])

HELP_OPTIONS = ["-h", "--help"]

_PROJECT = "Project"
_DATA = "Data"
_RUNS = "Runs"
_RESOURCES = "Environments, compute, store"

COMMANDS = {
    "init": ("Set up a project in this folder", _PROJECT),
    "help": ("Show the help page of a command", _PROJECT),
    "clean": ("List what takes up space on this machine, and free what the store has too", _PROJECT),
    "config": ("Show the settings and where each comes from", _PROJECT),
    "skill": ("Print a page that explains amlctl to an agent or a script", _PROJECT),
    "doctor": ("Check tools, permissions, store and folders, with a suggested fix", _PROJECT),
    "submit": ("Run a script: sync data, start, stream the log, fetch outputs", _RUNS),
    "runs": ("List, show, compare, plot, report, cancel, open and delete runs", _RUNS),
    "logs": ("Show a run's log, live or afterwards", _RUNS),
    "fetch": ("Download a run's outputs into outputs/RUN", _RUNS),
    "cancel": ("Cancel a run and keep its outputs so far", _RUNS),
    "sync": ("Upload a dataset's changes to the store, or download them with --pull", _DATA),
    "status": ("Show what a sync would change", _DATA),
    "why": ("Explain a path: whether and why it is ignored, and where it is stored", _DATA),
    "dataset": ("List, show, remove and restore datasets of the store", _DATA),
    "env": ("Show or prepare the environment of a submit", _RESOURCES),
    "compute": ("List, show, create, start, stop and delete compute targets", _RESOURCES),
    "store": ("Show what the store contains, clean it up, verify it", _RESOURCES),
}
"""Name of each command and of its module, with its line of the root help and the panel that shows it."""


class _PlainHelp:
    """Mixin of a Typer command: help pages as of other tools, `-h`, and conversions of values that stay cheap."""

    def __init__(self, *, params: Any = None, context_settings: Any = None, **settings: Any) -> None:
        context = {"help_option_names": HELP_OPTIONS, **(context_settings or {})}
        shown = [plain(param) for param in params or ()]
        super().__init__(params=shown, context_settings=context, **settings)  # type: ignore[call-arg]

    def get_help_option(self, ctx: Any) -> Any:
        option = plain(super().get_help_option(ctx))  # type: ignore[misc]
        option.help = "Show this help and exit"
        return option


class AppCommand(_PlainHelp, TyperCommand):
    """One command."""


class AppGroup(_PlainHelp, TyperGroup):
    """A command with subcommands."""


class RootGroup(AppGroup):
    """Knows of each command its line of help until it is run, completed or asked for its own help."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, (line, panel) in COMMANDS.items():
            self.add_command(AppCommand(name=name, help=line, rich_help_panel=panel))

    def resolve_command(self, ctx: Any, args: Any) -> Any:
        name = args[0]
        if name not in self.commands and not name.startswith("-") and not ctx.resilient_parsing:
            from amlctl.cli.other_names import unknown_command  # a command line that is right does not need it

            raise unknown_command(name, list(self.commands))
        name, line, rest = super().resolve_command(ctx, args)
        command = line and load(str(name))
        if command is not None and ctx.resilient_parsing:
            from amlctl.cli.completion import offer_values

            offer_values(command, ctx.command)
        return name, command, rest


def load(name: str) -> Any:
    """Import a command."""
    command: Any = get_command(import_module(f"amlctl.cli.commands.{name}").app)
    command.name = name
    return command


class TyperApp(typer.Typer):
    """A module's command; one with subcommands if `help` is given."""

    def __init__(self, *, help: str = "", examples: str = "", cls: type[AppGroup] = AppGroup) -> None:
        super().__init__(add_completion=False, cls=cls, help=help, epilog=examples, invoke_without_command=True)
        if help:
            self.callback()(require_command)

    def command(
        self, name: Any = None, *, cls: Any = AppCommand, **settings: Any
    ) -> Callable[[CommandFunction], CommandFunction]:
        return super().command(name, cls=cls, **settings)


def examples(*lines: str, note: str = "") -> str:
    """The end of a help page: commands, what follows their ` # ` aligned, and a note."""
    parts = [line.partition(" # ") for line in lines]
    width = max((len(command) for command, mark, _ in parts if mark), default=0)
    shown = [f"  {command:<{width}}  # {remark}" if mark else f"  {command}" for command, mark, remark in parts]
    return "\n".join(["", "Examples:", "", *shown, "", note])  # the first line keeps Typer from removing the indent


def option(help: str, *names: str, panel: str | None = None, **settings: Any) -> Any:
    """An option of a command; its help page shows it in the panel."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **settings)


def require_command(ctx: typer.Context) -> None:
    """Show the help page of a group that was called without a command, and exit as for wrong usage."""
    if ctx.invoked_subcommand is None:
        if ctx.obj.is_json:
            ctx.fail("Missing command")
        typer.echo(ctx.get_help(), err=True, nl=False)
        raise typer.Exit(2)


def plain(param: Any) -> Any:
    """Show `RUN` and `[DIR]` instead of `{RUN} <str>`, and a flag without a type."""
    if param.param_type_name == "argument":
        usage = param.metavar if param.required else f"[{param.metavar}]"
        param.get_usage_pieces = lambda ctx: [usage]
        param.display_type_rich = lambda ctx: None
    elif param.is_flag and param.metavar is None:
        param.metavar = ""
    if hasattr(param, "get_runtime_param"):
        param.get_runtime_param = partial(_Conversion, param.get_runtime_param)
    return param


class _Conversion:
    """Leaves to Typer only values that need its conversion, which imports pydantic (0.1 s)."""

    def __init__(self, typers_own: Any) -> None:
        self._typers_own = typers_own

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        if isinstance(value, bool) or param.type_descriptor.annotation in (str, list[str]):
            return value
        if param.type_descriptor.annotation is Path:
            return Path(value)
        return self._typers_own().coerce(value, param=param, ctx=ctx)
