"""`amlctl cancel`, which is `amlctl runs cancel`."""

from __future__ import annotations

from typing import Annotated

import typer

from amlctl.cli.command_group import TyperApp, examples
from amlctl.cli.invocation import invocation

app = TyperApp()

EXAMPLES = examples(
    "amlctl cancel @last # the newest run",
    "amlctl runs cancel model_train-2026 # by a unique prefix",
)


@app.command(epilog=EXAMPLES)
def cancel(
    ctx: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run id, unique prefix, @last or @2 (second to last)")],
) -> None:
    """Cancel a run and keep its outputs so far"""
    from amlctl.operations.runs import cancel as operation

    call = invocation(ctx)
    run_id, app_ = call.find_run(run)
    result = operation(app_.workspace, run_id)
    call.result(
        result.to_json(),
        [
            f"run {result.run} has already finished: {result.status}"
            if result.was_ended
            else f"run {result.run}: {result.status}; its outputs so far are kept"
        ],
    )
