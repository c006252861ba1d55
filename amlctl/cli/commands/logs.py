"""`amlctl logs`."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Annotated

import typer

from amlctl.cli.command_group import TyperApp, examples, option
from amlctl.cli.invocation import Invocation, invocation
from amlctl.cli.parameters import LAST, LastRun
from amlctl.cli.render.tables import highlight, state_cell
from amlctl.core.message import Command, Message
from amlctl.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from amlctl.core.log_text import CodePaths
    from amlctl.core.run import RunRecord

app = TyperApp()

_EXAMPLES = examples(
    "amlctl logs @last # the newest run's log",
    "amlctl logs @last -f # follow; Ctrl-C detaches",
    "amlctl logs model_train --tail 20 # its last 20 lines",
    "amlctl logs @last --file std_log_process_1.txt # another log of the run",
    note="Of control sequences only colors and carriage returns are shown, also in a pipe.\n"
    "With -f, the exit code is 1 if the run failed or was canceled, as after submit.",
)

_WHAT = "What to show"


@app.command(epilog=_EXAMPLES)
def logs(
    ctx: typer.Context,
    run: LastRun = LAST,
    is_following: Annotated[bool, option("Follow until the run finishes", "--follow", "-f")] = False,
    tail: Annotated[int | None, option("Show the last N lines only", panel=_WHAT, min=0, metavar="N")] = None,
    name: Annotated[str | None, option("Show another log of the run", "--file", panel=_WHAT, metavar="NAME")] = None,
    is_raw: Annotated[
        bool, option("Pass every control sequence of the log to the terminal", "--raw", panel=_WHAT)
    ] = False,
) -> int:
    """Show a run's log, live or afterwards"""
    from amlctl.cli.render.json import document_parts
    from amlctl.operations.logs import (
        FollowOptions,
        code_paths,
        follow,
        log_pieces,
        require_log,
        run_failure,
        tail_cursor,
    )

    call = invocation(ctx)
    run_id, app_ = call.find_run(run)
    workspace = app_.workspace
    if is_raw:
        call.reporter.show_raw_log()
    if not is_following:
        require_log(workspace, run_id)
        pieces = log_pieces(workspace, run_id, tail=tail, name=name)
        if call.is_json:
            call.result_parts(document_parts({"run": run_id}, "log", pieces))
        elif _show(call, run_id, pieces, None if is_raw else code_paths(app_.project, run_id)) and tail != 0:
            _note_empty(call, workspace.read(run_id))
        return 0
    cursor = 0 if tail is None else tail_cursor(workspace, run_id, tail, name=name)
    is_watched = call.output.shows_runs and not is_raw
    record = follow(app_, run_id, FollowOptions(is_watched=is_watched), name=name, cursor=cursor)
    call.close()
    if record.spec.sweep:
        from amlctl.cli.render.run_text import sweep_lines
        from amlctl.operations.runs import show

        view = show(app_, run_id)
        call.result(view.to_json(), sweep_lines(view.results))
    elif call.is_json:
        call.result(record.to_json(), [])
    failure = run_failure(app_, record, shown_log=name, hint=Command("runs", "show", run_id))
    if failure is None:
        if not call.options.is_quiet:
            call.output.write_line(["run ", highlight(record.run), "  ", state_cell(record.status)])
        return 0 if record.is_final else Interrupted.exit_code
    if not call.is_json:
        call.output.error(failure)
    return failure.exit_code


def _show(call: Invocation, run: str, pieces: Iterable[str], paths: CodePaths | None) -> bool:
    """Whether the log is empty."""
    from amlctl.core.events import LogText

    if paths is not None:
        pieces = chain(map(paths.feed, pieces), [paths.feed("", is_final=True)])
    is_empty = True
    for piece in filter(None, pieces):
        is_empty = False
        call.reporter(LogText(run, piece))
    call.close()
    return is_empty


def _note_empty(call: Invocation, record: RunRecord) -> None:
    from amlctl.core.events import Note

    reason = f" ({record.waits_for})" if record.waits_for else ""
    later = () if record.is_final else (" yet: ", Command("logs", record.run, "-f"))
    call.reporter(Note(Message(f"run {record.run} is {record.status}{reason}, without a log", *later)))
