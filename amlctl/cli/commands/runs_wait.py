"""`amlctl runs wait`."""

from __future__ import annotations

from typing import Annotated

import typer

from amlctl.cli.command_group import examples
from amlctl.cli.commands.runs_plot import runs_at
from amlctl.cli.completion import complete_run
from amlctl.cli.invocation import invocation
from amlctl.cli.render.tables import highlight, state_cell

EXAMPLES = examples(
    "amlctl runs wait @last # exit code 0 if it Completed, else 1",
    "amlctl runs wait @2 @last && amlctl submit report.py",
)


def wait(
    ctx: typer.Context,
    run: Annotated[list[str], typer.Argument(metavar="RUN...", autocompletion=complete_run, help="One or more runs")],
) -> int:
    """Wait until runs have finished; the exit code says whether all of them Completed"""
    from amlctl.operations.waiting import wait_for

    call = invocation(ctx)
    waited = wait_for(runs_at(call, run))
    call.result(
        waited.to_json(), [["run ", highlight(one.run), "  ", state_cell(one.status)] for one in waited.records]
    )
    return 0 if waited.failure is None else waited.failure.exit_code
