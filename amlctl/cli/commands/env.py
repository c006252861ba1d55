"""`amlctl env …`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from amlctl.cli.command_group import TyperApp, examples, option
from amlctl.cli.invocation import Invocation, invocation
from amlctl.cli.render.tables import Column, Line, Table, fields, good, highlight, moment, number, warning, whole
from amlctl.core.message import ID_CELLS, Command, Message, count, size, some
from amlctl.errors import UsageError

if TYPE_CHECKING:
    from amlctl.operations import environment as operations
    from amlctl.workspaces.contract import KeptEnvironment

app = TyperApp(
    help="Show or prepare the environment of a submit; list and remove those on this machine",
    examples=examples(
        "amlctl env show # is it ready?",
        "amlctl env prepare # build it ahead of a submit",
        "amlctl env list # all of this machine, with their sizes",
        "amlctl env remove --unused 30d",
    ),
)

FROM = "Use your shell's active environment, one by its path, or the one of amlctl"
From = Annotated[str | None, option(FROM, "--env-from", metavar="active|current|PATH")]


@app.command(epilog=examples("amlctl env show --json # its packages, for a script"))
def show(ctx: typer.Context, env_from: From = None) -> None:
    """Show the environment of pptdaml.yaml and whether it is ready"""
    from amlctl.operations import environment as operations

    _print(invocation(ctx), operations.show, env_from)


@app.command(epilog=examples("amlctl env prepare # no-op if it is ready"))
def prepare(ctx: typer.Context, env_from: From = None) -> None:
    """Build the environment ahead of the first submit"""
    from amlctl.operations import environment as operations

    _print(invocation(ctx), operations.prepare, env_from)


@app.command("list", epilog=examples("amlctl env list --json # for a script"))
def list_(ctx: typer.Context) -> None:
    """List the environments on this machine, of all projects"""
    from amlctl.operations import environment as operations

    call = invocation(ctx)
    found = operations.list_environments(call.app)
    call.result(found.to_json(), _list(found))


@app.command(epilog=examples("amlctl env remove 3f2a # by the beginning of its id", "amlctl env remove --unused 30d"))
def remove(
    ctx: typer.Context,
    environment: Annotated[
        list[str] | None, typer.Argument(metavar="ENV...", help="Ids of `env list`, or their first digits")
    ] = None,
    unused: Annotated[
        str | None, option("Remove all that no run has used for 12h or 30d", "--unused", metavar="TIME")
    ] = None,
    is_all: Annotated[bool, option("Remove all that no run is using", "--all")] = False,
) -> None:
    """Remove environments from this machine; the next submit that needs one makes it again"""
    from amlctl.core.run import parse_duration_s
    from amlctl.operations import environment as operations

    call = invocation(ctx)
    if not environment and unused is None and not is_all:
        raise UsageError(
            "Missing what to remove", hint=Message("name one of ", Command("env", "list"), ", or --unused 30d")
        )
    unused_s = 0.0 if is_all else None if unused is None else parse_duration_s(unused)
    result = operations.remove_environments(call.app, environment or (), unused_s=unused_s, now_s=time.time())
    lines = [f"removed {one.id[:ID_CELLS]}  {size(one.size_bytes)}" for one in result.removed]
    call.result(result.to_json(), lines or ["nothing to remove"])


_LISTED = 4
"""Packages of an environment that are named."""


def _list(found: operations.EnvironmentList) -> Iterator[Line | Table]:
    from amlctl.operations.context import iso_time

    if not found.environments:
        yield "no environments on this machine"
        return

    def packages(one: KeptEnvironment) -> str:
        return some(one.lists, _LISTED)

    yield Table.of(
        found.environments,
        {
            whole("ENVIRONMENT"): lambda one: one.id[:ID_CELLS],
            Column("TOOL", rank=2): lambda one: one.tool,
            Column("PYTHON", rank=1): lambda one: one.python,
            number("SIZE"): lambda one: size(one.size_bytes),
            whole("LAST USED"): lambda one: moment(iso_time(one.used_at)),
            whole("STATE"): lambda one: (
                highlight("in use") if one.is_in_use else "" if one.is_whole else warning("unfinished")
            ),
            Column("PACKAGES"): packages,
        },
    )
    yield f"{count(len(found.environments), 'environment')}, {size(sum(one.size_bytes for one in found.environments))}"


def _print(call: Invocation, operation: Callable[..., operations.EnvironmentView], env_from: str | None) -> None:
    from amlctl.operations.environment import chosen_environment

    view = operation(call.app, chosen=chosen_environment(env_from, call.cwd))
    call.result(view.to_json(), _lines(view))


def _lines(view: operations.EnvironmentView) -> Iterator[Line]:
    spec, info = view.spec, view.info
    if info.is_ready:
        yield [highlight(info.id), "  ", good("ready")]
    else:
        yield [highlight(info.id), "  ", warning("not prepared yet"), ": ", Command("env", "prepare")]
    yield from fields(
        [
            ("from", spec.source),
            ("tool", info.tool),
            ("location", info.location),
            ("python", spec.python),
            ("channels", ", ".join(spec.channels)),
            ("conda", "\n".join(spec.conda)),
            ("pip", "\n".join(spec.pip)),
        ],
        indent="  ",
    )
