"""`amlctl compute …`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from amlctl.cli.invocation import invocation
from amlctl.cli.lazy import CommandGroup
from amlctl.cli.questions import confirm
from amlctl.cli.render.text import places
from amlctl.core.message import Command
from amlctl.errors import NeedsConfirmation
from amlctl.operations import compute as operations
from amlctl.operations.context import Context

app = typer.Typer(
    add_completion=False,
    cls=CommandGroup,
    invoke_without_command=True,
    help="List, show, create, start, stop and delete compute targets: the files of compute/.",
    epilog="Examples:\n\n  amlctl compute list\n  amlctl compute create compute/gpu.yaml",
)
app.callback()(lambda: None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A target of compute/.")]


@app.command("list", epilog="Examples:\n\n  amlctl compute list")
def list_(ctx: typer.Context) -> None:
    """List the targets that a run may use."""
    call = invocation(ctx)
    views = operations.list_targets(call.app)
    call.result(
        {"compute": [view.to_json() for view in views]},
        lambda style, width: places.target_table_lines(views, width),
    )


@app.command(epilog="Examples:\n\n  amlctl compute show local")
def show(ctx: typer.Context, name: Name) -> None:
    """Show a target's settings and state."""
    call = invocation(ctx)
    view = operations.show(call.app, name)
    call.result(view.to_json(), lambda style, width: places.target_lines(view))


@app.command(epilog="Examples:\n\n  amlctl compute create compute/gpu.yaml")
def create(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A target of compute/, or its file.")],
    is_update: Annotated[bool, typer.Option("--update", help="Change a target that differs from its file.")] = False,
) -> None:
    """Make a target; an equal one is used as it is."""
    call = invocation(ctx)
    result = operations.create(call.app, source, cwd=call.cwd, is_update=is_update)
    call.result(result.to_json(), lambda style, width: places.created_lines(result))


@app.command(epilog="Examples:\n\n  amlctl compute start gpu")
def start(ctx: typer.Context, name: Name) -> None:
    """Start a compute instance; a cluster keeps a node ready."""
    _act(ctx, name, operations.start)


@app.command(epilog="Examples:\n\n  amlctl compute stop gpu")
def stop(ctx: typer.Context, name: Name) -> None:
    """Stop a target, so that it costs nothing."""
    _act(ctx, name, operations.stop)


@app.command(epilog="Examples:\n\n  amlctl compute delete gpu\n  amlctl compute delete gpu --yes")
def delete(
    ctx: typer.Context,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Delete a target; its file stays."""
    call = invocation(ctx)
    app_ = call.app
    if not yes:
        found = operations.deletable(call.app, name)
        state = f"{found.state}: {found.note}" if found.note else found.state
        what = f"Delete compute target {name} ({state}) from workspace {app_.workspace.name}"
        if not call.output.can_ask:
            raise NeedsConfirmation(
                f"{what}: cannot ask for confirmation without a terminal",
                hint=Command("compute", "delete", name, "--yes"),
            )
        if not confirm(f"{what}?", call.output):
            return 1
    _act(ctx, name, operations.delete)
    return 0


def _act(ctx: typer.Context, name: str, operation: Callable[[Context, str], str]) -> None:
    call = invocation(ctx)
    state = operation(call.app, name)
    call.result({"name": name, "state": state}, lambda style, width: [f"{name}  {state}"])
