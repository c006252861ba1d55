"""`amlctl cancel`, which is `amlctl runs cancel`."""

from __future__ import annotations

import typer

from amlctl.cli.completion import Run
from amlctl.cli.invocation import invocation
from amlctl.cli.render.text import runs
from amlctl.operations.runs import cancel as operation
from amlctl.operations.runs import resolve_run

app = typer.Typer(add_completion=False)

EXAMPLES = """\
Examples:

  amlctl cancel @last
  amlctl runs cancel model_train-2026
"""


@app.command(epilog=EXAMPLES)
def cancel(
    ctx: typer.Context,
    run: Run,
) -> None:
    """End a run. Its outputs so far are kept."""
    call = invocation(ctx)
    app_, reference = call.app_of(run)
    result = operation(app_.workspace, resolve_run(app_.workspace, reference))
    call.result(result.to_json(), lambda style, width: runs.cancel_lines(result))
