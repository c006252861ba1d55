"""`amlctl fetch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amlctl.cli.completion import Run
from amlctl.cli.invocation import invocation
from amlctl.cli.render.text import runs
from amlctl.operations.fetch import fetch as operation
from amlctl.operations.runs import resolve_run

app = typer.Typer(add_completion=False)

_EXAMPLES = """\
Examples:

  amlctl fetch @last                      into outputs/RUN
  amlctl fetch @last --include '*.png'    only pictures
  amlctl fetch @2 --to /data/models --logs

A file that was changed here since it was fetched is kept.
"""


@app.command(epilog=_EXAMPLES)
def fetch(
    ctx: typer.Context,
    run: Run,
    to: Annotated[Path | None, typer.Option(metavar="DIR", help="Another folder than outputs/RUN.")] = None,
    include: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Only files that match; may be repeated.")
    ] = None,
    with_logs: Annotated[bool, typer.Option("--logs", help="The run's logs too, into logs/.")] = False,
    is_unlisted: Annotated[
        bool, typer.Option("--unlisted", help="Without the run's list of outputs: what the store has, unchecked.")
    ] = False,
) -> None:
    """Bring a run's outputs here; only what is missing travels. Also while the run is going."""
    call = invocation(ctx)
    app_, reference = call.app_of(run)
    result = operation(
        app_,
        resolve_run(app_.workspace, reference),
        to=call.cwd / to if to is not None else None,
        include=include or (),
        with_logs=with_logs,
        is_unlisted=is_unlisted,
    )
    call.result(result.to_json(), lambda style, width: runs.fetch_lines(result, style))
