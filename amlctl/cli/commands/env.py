"""`amlctl env …`."""

from __future__ import annotations

from typing import Annotated

import typer

from amlctl.cli.invocation import Invocation, invocation
from amlctl.cli.lazy import CommandGroup
from amlctl.cli.render.text import places
from amlctl.errors import UsageError
from amlctl.operations import environment as operations

app = typer.Typer(
    add_completion=False,
    cls=CommandGroup,
    invoke_without_command=True,
    help="Show or make the environment that a submit would use.",
    epilog="Examples:\n\n  amlctl env show\n  amlctl env prepare",
)
app.callback()(lambda: None)

From = Annotated[str | None, typer.Option("--env-from", metavar="current", help="The interpreter that amlctl runs in.")]


def is_current(env_from: str | None) -> bool:
    """Whether `--env-from current` was said. Raises UsageError for any other word."""
    if env_from not in (None, "current"):
        raise UsageError(f"--env-from {env_from!r} is unknown", hint="--env-from current")
    return env_from is not None


@app.command(epilog="Examples:\n\n  amlctl env show --json")
def show(ctx: typer.Context, env_from: From = None) -> None:
    """Show the environment of pptdaml.yaml and whether it is made already."""
    call = invocation(ctx)
    view = operations.show(call.app, is_current=is_current(env_from))
    _tell(call, view)


@app.command(epilog="Examples:\n\n  amlctl env prepare")
def prepare(ctx: typer.Context, env_from: From = None) -> None:
    """Make the environment ahead of the first submit, or find it."""
    call = invocation(ctx)
    view = operations.prepare(call.app, is_current=is_current(env_from))
    _tell(call, view)


def _tell(call: Invocation, view: operations.EnvironmentView) -> None:
    call.result(view.to_json(), lambda style, width: places.environment_lines(view, style))
