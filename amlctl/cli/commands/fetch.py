"""`amlctl fetch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amlctl.cli.command_group import TyperApp, examples, option
from amlctl.cli.invocation import invocation
from amlctl.cli.parameters import LAST, LastRun
from amlctl.cli.render.tables import highlight

app = TyperApp()

_EXAMPLES = examples(
    "amlctl fetch @last # into outputs/RUN",
    "amlctl fetch @last --include '*.png' # only pictures",
    "amlctl fetch @2 --to /data/models --logs # elsewhere, with logs",
    note="A file that was changed here since it was fetched is kept.",
)

_WHAT = "What to download"


@app.command(epilog=_EXAMPLES)
def fetch(
    ctx: typer.Context,
    run: LastRun = LAST,
    to: Annotated[Path | None, option("Download into DIR instead of outputs/RUN", metavar="DIR")] = None,
    include: Annotated[
        list[str] | None, option("Download matching files only; may be repeated", panel=_WHAT, metavar="GLOB")
    ] = None,
    with_logs: Annotated[bool, option("Download the run's logs into logs/ as well", "--logs", panel=_WHAT)] = False,
    is_unlisted: Annotated[
        bool, option("Ignore the run's list of outputs: what the store has, unverified", "--unlisted", panel=_WHAT)
    ] = False,
) -> None:
    """Download a run's outputs, only what is missing; works while the run is active"""
    from amlctl.cli.render.run_text import fetched_text
    from amlctl.operations.fetch import fetch as operation

    call = invocation(ctx)
    call.is_resumable = True
    run_id, app_ = call.find_run(run)
    result = operation(
        app_,
        run_id,
        to=call.cwd / to if to is not None else None,
        include=include or (),
        with_logs=with_logs,
        is_unlisted=is_unlisted,
    )
    call.result(result.to_json(), [["run ", highlight(result.run), "  ", *fetched_text(result, app_.project.root)]])
