"""`amlctl logs`."""

from __future__ import annotations

from typing import Annotated

import typer

from amlctl.cli.completion import Run
from amlctl.cli.invocation import invocation
from amlctl.cli.render.json import document_parts
from amlctl.core.events import LogText, Note
from amlctl.core.message import Command, Message
from amlctl.errors import Interrupted
from amlctl.operations.logs import follow, log_pieces, run_failure, tail_cursor
from amlctl.operations.runs import resolve_run

app = typer.Typer(add_completion=False)

_EXAMPLES = """\
Examples:

  amlctl logs @last              the newest run's log
  amlctl logs @last -f           and go on until it ends; Ctrl-C only stops watching
  amlctl logs model_train --tail 20
  amlctl logs @last --file std_log_process_1.txt

Of control sequences only colors and carriage returns are shown, also in a pipe.
RUN is a run id, the beginning of one, @last, or @2 for the one before.
With -f, exit code 1 if the run failed or was cancelled, as after submit.
"""


@app.command(epilog=_EXAMPLES)
def logs(
    ctx: typer.Context,
    run: Run,
    is_following: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, metavar="N", help="Only the last N lines.")] = None,
    is_raw: Annotated[
        bool, typer.Option("--raw", help="Pass every control sequence of the log to the terminal.")
    ] = False,
    name: Annotated[
        str | None, typer.Option("--file", metavar="NAME", help="Another log of the run than its main one.")
    ] = None,
) -> int:
    """Show a run's log, live or afterwards."""
    call = invocation(ctx)
    app_, reference = call.app_of(run)
    workspace = app_.workspace
    run_id = resolve_run(workspace, reference)
    if is_raw:
        call.reporter.show_raw_log()
    if not is_following:
        pieces = log_pieces(workspace, run_id, tail=tail, name=name)
        if call.is_json:
            call.result_parts(document_parts({"run": run_id}, "log", pieces))
            return 0
        is_empty = True
        for piece in pieces:
            if piece:
                is_empty = False
                call.reporter(LogText(run_id, piece))
        call.close()
        record = workspace.read(run_id)
        if is_empty and tail != 0:
            reason = f" ({record.waits_for})" if record.waits_for else ""
            told = f"run {run_id} is {record.status}{reason}, without a log"
            later = () if record.is_final else (" yet: ", Command("logs", run_id, "-f"))
            call.reporter(Note(Message(told, *later)))
        return 0
    cursor = 0 if tail is None else tail_cursor(workspace, run_id, tail, name=name)
    record = follow(app_, run_id, name=name, cursor=cursor)
    call.close()
    if call.is_json:
        call.result(record.to_json(), lambda style, width: [])
    failure = run_failure(record, hint=Command("runs", "show", run_id))
    if failure is None:
        return 0 if record.is_final else Interrupted.exit_code
    if not call.is_json:
        call.output.error(failure)
    return failure.exit_code
