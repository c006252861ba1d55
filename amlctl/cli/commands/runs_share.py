"""`amlctl runs share`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from amlctl.cli.command_group import examples, option
from amlctl.cli.invocation import invocation
from amlctl.cli.parameters import LAST, LastRun
from amlctl.cli.render.tables import Line, dim, good, highlight, linked, moment
from amlctl.core.message import Command, Message, SecretLink, count, size
from amlctl.errors import UsageError

if TYPE_CHECKING:
    from amlctl.operations import share as operations

EXAMPLES = examples(
    "amlctl runs share # a report, and links to the outputs",
    "amlctl runs share @last 'plots/*.png' --expires 1d",
    "amlctl runs share @last --revoke # end all links to it",
    note="A link is shown once, and works for everybody who has it.",
)
_DEFAULT = "7d"


def share(
    ctx: typer.Context,
    run: LastRun = LAST,
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE...]", help="Outputs to share, with * and **; default: a report and all outputs"),
    ] = None,
    expires: Annotated[
        str | None, option(f"Let the links end after this time (default: {_DEFAULT})", "--expires", metavar="TIME")
    ] = None,
    revoked: Annotated[bool, option("End all links to this run's files", "--revoke")] = False,
) -> None:
    """Share a run's outputs with people without an account: links, or a zip file for a folder store"""
    from amlctl.core.run import parse_duration_s
    from amlctl.operations import share as operations

    call = invocation(ctx)
    run_id, app_ = call.find_run(run)
    patterns = files or []
    is_folder = app_.store.folder is not None
    if (revoked or expires) and is_folder:
        raise UsageError(
            "a folder store has no links that expire or can be revoked: runs share writes a zip file",
            hint=Command("runs", "share", run_id, *patterns),
        )
    if revoked:
        if patterns or expires:
            raise UsageError("--revoke ends all links to a run", hint=Command("runs", "share", run_id, "--revoke"))
        ended = operations.revoke(app_.store, run_id)
        call.result({"run": run_id, "revoked": ended}, [f"{count(ended, 'link')} ended" if ended else "no links"])
        return

    def page() -> bytes:
        from amlctl.cli.render.report.page import page as drawn  # here, since not every share needs them
        from amlctl.operations.report import report as collected
        from amlctl.operations.runs import RunAt, each_of_sweep

        return drawn(collected(each_of_sweep([RunAt(run_id, app_)])), datetime.now(UTC)).encode("utf-8", "replace")

    if is_folder:
        target = app_.project.outputs_dir / f"{run_id}-share.zip"
        made = operations.share_zip(app_, run_id, patterns, target, page)
        shown = target.relative_to(call.cwd) if target.is_relative_to(call.cwd) else target
        call.result(
            made.to_json(), [[linked(str(shown), target), f"  ({count(made.files, 'file')}, {size(made.bytes)})"]]
        )
        return
    until = datetime.now(UTC) + timedelta(seconds=parse_duration_s(expires or _DEFAULT))
    shared = operations.share_links(app_, run_id, patterns, app_.links(until), page)
    call.result(shared.to_json(), _lines(shared))


def _lines(shared: operations.ShareResult) -> Iterator[Line]:
    for one in shared.links:
        yield [highlight(one.file)]
        yield ["  ", linked(SecretLink(one.url), one.url)]
    if shared.left_out:
        yield [dim(f"… and {count(shared.left_out, 'output')} more: name them to share them")]
    if shared.studio_url:
        yield [dim("for members of the workspace: "), linked(shared.studio_url, shared.studio_url)]
    yield [good("until "), moment(shared.expires_at), dim("; everybody who has a link can read the file")]
    yield Message("  to end them earlier: ", Command("runs", "share", shared.run, "--revoke"))
