"""`amlctl compute …`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amlctl.cli.command_group import TyperApp, examples, option
from amlctl.cli.invocation import invocation
from amlctl.cli.parameters import Yes
from amlctl.cli.questions import asking
from amlctl.cli.render.tables import Column, Table, fields, whole
from amlctl.core.message import count, if_intended
from amlctl.errors import NeedsConfirmation

if TYPE_CHECKING:
    from amlctl.core.compute import BrokenTarget, ComputeTarget
    from amlctl.operations import compute as operations
    from amlctl.operations.context import Context

app = TyperApp(
    help="List, show, create, start, stop and delete compute targets, the files of compute/",
    examples=examples(
        "amlctl compute list # with their state", "amlctl compute create compute/gpu.yaml # no-op if identical"
    ),
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Target of compute/")]


@app.command("list", epilog=examples("amlctl compute list # files of compute/ and targets of the workspace"))
def list_(ctx: typer.Context) -> None:
    """List the targets that a run can use"""
    from amlctl.operations import compute as operations

    call = invocation(ctx)
    views = operations.list_targets(call.app)
    call.result({"compute": [view.to_json() for view in views]}, [_targets(views)])


@app.command(epilog=examples("amlctl compute show local # settings and state"))
def show(ctx: typer.Context, name: Name) -> None:
    """Show a target's settings and state"""
    from amlctl.operations import compute as operations

    call = invocation(ctx)
    view = operations.show(call.app, name)
    call.result(view.to_json(), fields((name, _fact(value)) for name, value in view.to_json().items()))


@app.command(epilog=examples("amlctl compute create compute/gpu.yaml # or: amlctl compute create gpu"))
def create(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(metavar="NAME|FILE", help="Target of compute/, or its file")],
    is_update: Annotated[bool, option("Update a target that differs from its file", "--update")] = False,
) -> None:
    """Create a target (no-op if identical)"""
    from amlctl.operations import compute as operations

    call = invocation(ctx)
    result = operations.create(call.app, source, cwd=call.cwd, is_update=is_update)
    call.result(result.to_json(), _created(result))


@app.command(epilog=examples("amlctl compute start gpu # ahead of a submit"))
def start(ctx: typer.Context, name: Name) -> None:
    """Start a compute instance, or keep a node of a cluster ready"""
    from amlctl.operations import compute as operations

    _act(ctx, name, operations.start)


@app.command(epilog=examples("amlctl compute stop gpu # no nodes, no costs"))
def stop(ctx: typer.Context, name: Name) -> None:
    """Stop a target to stop billing"""
    from amlctl.operations import compute as operations

    _act(ctx, name, operations.stop)


@app.command(epilog=examples("amlctl compute delete gpu # asks", "amlctl compute delete gpu --yes # does not"))
def delete(
    ctx: typer.Context,
    name: Name,
    yes: Yes = False,
) -> None:
    """Delete a target from the workspace; its file stays"""
    from amlctl.operations import compute as operations

    call = invocation(ctx)

    def act(is_sure: bool) -> None:
        if not is_sure:
            found = operations.deletable(call.app, name)
            state = f"{found.state}: {found.note}" if found.note else found.state
            raise NeedsConfirmation(
                f"compute target {name} ({state}) would be deleted from workspace {call.app.workspace.name}",
                hint=if_intended("compute", "delete", name),
            )
        _act(ctx, name, operations.delete)

    asking(act, is_sure=yes, output=call.output)


def _act(ctx: typer.Context, name: str, operation: Callable[[Context, str], str]) -> None:
    call = invocation(ctx)
    state = operation(call.app, name)
    call.result({"name": name, "state": state}, [f"{name}  {state}"])


def _targets(views: Sequence[operations.ComputeView]) -> Table:
    return Table.of(
        views,
        {
            whole("NAME"): lambda view: view.target.name,
            whole("TYPE"): lambda view: view.target.type,
            whole("SIZE"): lambda view: _size(view.target),
            whole("STATE"): lambda view: view.state,
            Column("NOTE", is_wrapped=True): lambda view: view.note,
        },
    )


def _size(target: ComputeTarget | BrokenTarget) -> str:
    from amlctl.core.compute import BrokenTarget, LocalTarget

    if isinstance(target, BrokenTarget):
        return ""
    return count(target.slots, "slot") if isinstance(target, LocalTarget) else target.size


def _fact(value: Any) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, dict):
        return "\n".join(f"{name}: {_fact(one)}" for name, one in value.items() if one is not None)
    if isinstance(value, (list, tuple)):
        return ", ".join(_fact(one) for one in value)
    return str(value)


def _created(result: operations.CreateResult) -> Iterator[str]:
    if result.is_reused:
        yield f"{result.name}  already exists with the same settings"
        return
    yield f"{result.name}  {'updated' if result.changes else 'created'}"
    for change in result.changes:
        yield f"  {change.field}: {_fact(change.present)} is now {_fact(change.wanted)}"
