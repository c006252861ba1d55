"""`amlctl runs …`."""

from __future__ import annotations

from typing import Annotated

import typer

from amlctl.cli.commands import cancel
from amlctl.cli.completion import Run, complete_run
from amlctl.cli.invocation import invocation
from amlctl.cli.lazy import CommandGroup
from amlctl.cli.questions import confirm
from amlctl.cli.render.text import runs as text
from amlctl.core.message import Command
from amlctl.core.run_state import RunState
from amlctl.errors import UsageError
from amlctl.operations import runs as operations
from amlctl.workspaces.contract import Workspace


class RunsGroup(CommandGroup):
    """`amlctl runs` alone lists."""

    default_command = "list"


app = typer.Typer(
    add_completion=False,
    cls=RunsGroup,
    help="List, show, compare, cancel, open and delete runs. Without a command: list.",
    epilog="Examples:\n\n  amlctl runs\n  amlctl runs show @last\n  amlctl runs compare @2 @last",
)
app.callback()(lambda: None)


@app.command("list", epilog="Examples:\n\n  amlctl runs\n  amlctl runs list --limit 5 --status Failed")
def list_(
    ctx: typer.Context,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, metavar="N", help="Only the newest N.")] = None,
    experiment: Annotated[str | None, typer.Option(metavar="NAME", help="Only runs of this experiment.")] = None,
    status: Annotated[
        str | None, typer.Option(metavar="STATE", help="Only runs in this state, for example Failed.")
    ] = None,
) -> None:
    """List runs, newest first."""
    states = {state.value.lower(): state.value for state in RunState}
    if status is not None and status.lower() not in states:
        raise UsageError(f"{status!r} is no state of a run", hint=f"one of {', '.join(states.values())}")
    call = invocation(ctx)
    app_ = call.app if experiment is None else call.app.in_experiment(experiment)

    app_.restore_records()

    records = [
        record
        for record in operations.list_runs(app_)
        if experiment in (None, record.experiment) and (status is None or status.lower() == record.status.lower())
    ][:limit]
    call.result(
        {"runs": [record.to_json() for record in records]} if call.is_json else None,
        lambda style, width: text.list_lines(records, style, width, is_filtered=bool(experiment or status)),
    )


@app.command(epilog="Examples:\n\n  amlctl runs show @last\n  amlctl runs show @last --json")
def show(ctx: typer.Context, run: Run) -> None:
    """Show everything that is recorded of a run, with its config and its metrics."""
    call = invocation(ctx)
    app_, reference = call.app_of(run)
    run_id = operations.resolve_run(app_.workspace, reference)
    view = operations.show(app_, run_id)
    call.result(view.to_json(), lambda style, width: text.show_lines(view, style))


@app.command(epilog="Examples:\n\n  amlctl runs compare @2 @last")
def compare(
    ctx: typer.Context,
    run: Annotated[
        list[str], typer.Argument(metavar="RUN RUN...", autocompletion=complete_run, help="Two runs or more.")
    ],
) -> None:
    """Show what differs between runs: config, code, data, environment, results, metrics."""
    call = invocation(ctx)
    found = []
    for one in run:
        app_, reference = call.app_of(one)
        run_id = operations.resolve_run(app_.workspace, reference)
        found.append(operations.RunAt(run_id, app_))
    comparison = operations.compare(found)
    call.result(comparison.to_json(), lambda style, width: text.compare_lines(comparison, width))


app.command("cancel", epilog=cancel.EXAMPLES)(cancel.cancel)


@app.command("open", epilog="Examples:\n\n  amlctl runs open @last")
def open_(ctx: typer.Context, run: Run) -> None:
    """Open a run's page in Studio, or the folder of its fetched outputs; prints where that is."""
    call = invocation(ctx)
    app_, reference = call.app_of(run)
    run_id = operations.resolve_run(app_.workspace, reference)
    place = operations.open_run(app_, run_id)
    if call.output.out_is_terminal and not call.is_json:
        typer.launch(place)
    call.result({"run": run_id, "place": place}, lambda style, width: [place])


@app.command(epilog="Examples:\n\n  amlctl runs delete @last --yes")
def delete(
    ctx: typer.Context,
    run: Annotated[
        list[str], typer.Argument(metavar="RUN...", autocompletion=complete_run, help="Runs that have ended.")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Forget ended runs: record, logs and stored outputs. What was fetched stays."""
    call = invocation(ctx)
    workspaces: dict[str, Workspace] = {}
    for one in run:
        app_, reference = call.app_of(one)
        workspaces.setdefault(operations.resolve_run(app_.workspace, reference), app_.workspace)
    found = list(workspaces)
    if not yes:
        if not call.output.can_ask:
            raise UsageError(
                "cannot ask for confirmation without a terminal", hint=Command("runs", "delete", *found, "--yes")
            )
        if not confirm(f"Delete {', '.join(found)}: record, logs and stored outputs?", call.output):
            return 1
    kept = {run_id: stays for run_id, stays in operations.delete(workspaces).items() if stays}
    call.result(
        {"deleted": found, **({"kept": kept} if kept else {})},
        lambda style, width: [
            line
            for run_id in found
            for line in (f"deleted {run_id}", *(f"  kept: {what}" for what in kept.get(run_id, ())))
        ],
    )
    return 0
