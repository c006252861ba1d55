"""`amlctl runs wait`."""

from __future__ import annotations

from typing import Annotated

import typer

from amlctl.cli.command_group import examples
from amlctl.cli.completion import complete_run
from amlctl.cli.invocation import invocation
from amlctl.cli.render.phases import state_cell
from amlctl.cli.render.tables import highlight
from amlctl.operations.runs import RunAt, resolve_run
from amlctl.operations.waiting import wait_for

EXAMPLES = examples(
    "amlctl runs wait @last # exit code 0 if it Completed, else 1",
    "amlctl runs wait @2 @last && amlctl submit report.py",
)


def wait(
    ctx: typer.Context,
    run: Annotated[list[str], typer.Argument(metavar="RUN...", autocompletion=complete_run, help="One or more runs")],
) -> int:
    """Wait until runs have finished; the exit code says whether all of them Completed"""
    call = invocation(ctx)
    found = []
    for one in run:
        app, reference = call.app_of(one)
        found.append(RunAt(resolve_run(app.workspace, reference), app))
    waited = wait_for(found)
    call.result(
        waited.to_json(), [["run ", highlight(one.run), "  ", state_cell(one.status)] for one in waited.records]
    )
    return 0 if waited.failure is None else waited.failure.exit_code
