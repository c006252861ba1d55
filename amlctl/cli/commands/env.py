"""`amlctl env …`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from amlctl.cli.command_group import TyperApp, examples, option
from amlctl.cli.invocation import Invocation, invocation
from amlctl.cli.render.tables import Line, fields, good, highlight, warning
from amlctl.core.message import Command
from amlctl.errors import UsageError
from amlctl.operations import environment as operations

app = TyperApp(
    help="Show or prepare the environment of a submit",
    examples=examples("amlctl env show # is it ready?", "amlctl env prepare # build it ahead of a submit"),
)

From = Annotated[str | None, option("Use the interpreter that amlctl runs in", "--env-from", metavar="current")]


def is_current(env_from: str | None) -> bool:
    """True for `--env-from current`. Raises UsageError for any other value."""
    if env_from not in (None, "current"):
        raise UsageError(f"Invalid --env-from {env_from!r}", hint="use --env-from current")
    return env_from is not None


@app.command(epilog=examples("amlctl env show --json # its packages, for a script"))
def show(ctx: typer.Context, env_from: From = None) -> None:
    """Show the environment of pptdaml.yaml and whether it is ready"""
    call = invocation(ctx)
    _print(
        call,
        operations.show(call.app, is_current=is_current(env_from)),
    )


@app.command(epilog=examples("amlctl env prepare # no-op if it is ready"))
def prepare(ctx: typer.Context, env_from: From = None) -> None:
    """Build the environment ahead of the first submit"""
    call = invocation(ctx)
    _print(
        call,
        operations.prepare(call.app, is_current=is_current(env_from)),
    )


def _print(call: Invocation, view: operations.EnvironmentView) -> None:
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
