"""`amlctl runs …`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amlctl.cli.command_group import AppGroup, TyperApp, examples, option
from amlctl.cli.commands import cancel, runs_list, runs_share
from amlctl.cli.invocation import Invocation, invocation
from amlctl.cli.output import FALLBACK_WIDTH, UNLIMITED_WIDTH, open_in_desktop
from amlctl.cli.parameters import LAST, LastRun, Yes
from amlctl.cli.questions import asking
from amlctl.cli.render.tables import (
    Cell,
    Line,
    Styled,
    Table,
    bold,
    highlight,
    linked,
    state_cell,
)
from amlctl.core.message import Command, count, if_intended, size
from amlctl.errors import NeedsConfirmation, NotFound, UsageError

if TYPE_CHECKING:
    from amlctl.core.metrics import Point
    from amlctl.operations.metrics import Plotted
    from amlctl.operations.runs import RunAt


class RunsGroup(AppGroup):
    """`amlctl runs` alone lists; options of `list` may follow it directly."""

    def parse_args(self, ctx: Any, args: Any) -> Any:
        is_command = bool(args) and (not args[0].startswith("-") or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if is_command or ctx.resilient_parsing else ["list", *args])


app = TyperApp(
    cls=RunsGroup,
    help="List, show, compare, plot, report, share, wait for, cancel, open and delete runs; without a command: list",
    examples=examples(
        "amlctl runs # newest first",
        "amlctl runs show @last # everything recorded",
        "amlctl runs compare @2 @last # what differs",
        "amlctl runs report # one HTML page to give to others",
    ),
)

app.command("list", epilog=runs_list.EXAMPLES)(runs_list.list_)


@app.command(
    epilog=examples(
        "amlctl runs show @last # config, data, code, metrics", "amlctl runs show @last --json # for a script"
    )
)
def show(ctx: typer.Context, run: LastRun = LAST) -> None:
    """Show everything recorded about a run, with its config and metrics"""
    from amlctl.cli.render.run_text import run_lines, sweep_lines
    from amlctl.operations import runs as operations

    call = invocation(ctx)
    run_id, app_ = call.find_run(run)
    view = operations.show(app_, run_id)
    table = ["", *sweep_lines(view.results)] if view.results else []
    call.result(view.to_json(), chain(run_lines(view, app_.project.root, call.output.width), table))


@app.command(
    epilog=examples(
        "amlctl runs compare @2 @last # the newest run and the one before",
        "amlctl runs compare @3 @last --patch # with what changed in the code",
        "amlctl runs compare RUN RUN RUN --md # for a pull request",
    )
)
def compare(
    ctx: typer.Context,
    run: Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="Two or more runs")],
    patch: Annotated[bool, option("Show what changed in the code, line by line", "--patch", "-p")] = False,
    md: Annotated[bool, option("Print a table in Markdown", "--md")] = False,
    csv_: Annotated[bool, option("Print a table in CSV", "--csv")] = False,
) -> None:
    """Show what differs between runs: settings, config, code, data, environment, metrics, time"""
    call = invocation(ctx)
    if md + csv_ + call.is_json > 1:
        raise UsageError("--md, --csv and --json exclude each other")
    if patch and csv_:
        raise UsageError("--csv has no place for --patch", hint="use --md or --json")
    # Here, since a list of runs reads neither outputs nor manifests.
    from amlctl.cli.render import compared
    from amlctl.operations.compare import compare as compare_runs

    comparison = compare_runs(each_at(call, run), with_patch=patch)
    if csv_:
        text: Iterable[Line | Table] = compared.csv_lines(comparison)
    elif md:
        text = compared.markdown(comparison)
    else:
        text = compared.screen(comparison, call.output.width)
    call.result(comparison.to_json() if call.is_json else None, text)


_HEIGHT = 18

Runs = Annotated[
    list[str] | None,
    typer.Argument(metavar="RUN...", help="Runs; default: @last"),
]


@app.command(
    epilog=examples(
        "amlctl runs plot # the key metric of the newest run",
        "amlctl runs plot @2 @last --metric loss # two runs",
    )
)
def plot(
    ctx: typer.Context,
    run: Runs = None,
    metric: Annotated[
        list[str] | None,
        option("Plot this metric; may be repeated", "--metric", "-m", metavar="NAME"),
    ] = None,
) -> None:
    """Plot a metric of runs over their steps, in the terminal"""
    from amlctl.operations.metrics import plot as plotted_runs

    call = invocation(ctx)
    try:
        found = each_at(call, run)
    except NotFound as error:
        from amlctl.runs.records import local_records

        known = {name for record in local_records(call.app.project.state_dir) for name in record.metrics}
        if named := [one for one in run or () if one in known]:
            runs = [one for one in run or () if one not in named]
            options = [part for one in (*named, *(metric or ())) for part in ("--metric", one)]
            error.hint = Command("runs", "plot", *runs, *options)
        raise
    results = plotted_runs(found, metric or (), call.app.settings.runs.metric)
    width = FALLBACK_WIDTH if call.output.width >= UNLIMITED_WIDTH else call.output.width
    document = results[0].to_json() if len(results) == 1 else {"plots": [one.to_json() for one in results]}
    call.result(document, _screen(results, width, has_color=call.output.out_has_color))


def runs_at(call: Invocation, references: Sequence[str] | None) -> list[RunAt]:
    """The runs that a command names, of any workspace; `@last` without any."""
    from amlctl.operations.runs import RunAt

    return [RunAt(*call.find_run(one)) for one in references or (LAST,)]


def each_at(call: Invocation, references: Sequence[str] | None) -> list[RunAt]:
    """The same, with its runs instead of a sweep."""
    from amlctl.operations.runs import each_of_sweep

    return each_of_sweep(runs_at(call, references))


def _screen(results: Sequence[Plotted], width: int, *, has_color: bool) -> Iterator[Line | Table]:
    from amlctl.cli.render.plot import Curve, style_of
    from amlctl.cli.render.plot import plot as drawn

    for number, result in enumerate(results):
        if number:
            yield ""
        yield [bold(result.metric)]
        curves = [Curve(run, points) for run, points in result.curves.items()]
        yield from drawn(curves, width, _HEIGHT, has_color=has_color)
        for position, curve in enumerate(curves):
            mark: Cell = Styled(f"{position + 1} " if len(curves) > 1 else "", f"bold {style_of(position)}")
            yield [mark, Styled(curve.label, style_of(position)), f"  {_summary(result.metric, curve.points)}"]
        for run in result.missing:
            yield f"{run}  no series of {result.metric}"


def _summary(metric: str, points: Sequence[Point]) -> str:
    from amlctl.core.metrics import goal_of, shown

    finite = [point for point in points if math.isfinite(point.value)]
    text = f"last {shown(points[-1].value)}"
    if finite:
        best = (min if goal_of(metric).is_lower_better else max)(finite, key=lambda point: point.value)
        text += f", best {shown(best.value)} at step {best.step:g}"
    return text + (f", {len(points) - len(finite)} not finite" if len(finite) < len(points) else "")


_FILE_MODE = 0o644
"""A page is made to be given to others."""


@app.command(
    epilog=examples(
        "amlctl runs report # the newest run",
        "amlctl runs report @2 @last -o compared.html # two runs on one page",
    )
)
def report(
    ctx: typer.Context,
    run: Runs = None,
    output: Annotated[
        Path | None,
        option(
            "Write to this file; default: outputs/RUN-report.html", "--output", "-o", metavar="FILE", dir_okay=False
        ),
    ] = None,
) -> None:
    """Write one HTML page about runs: phases, metrics, pictures, settings, log"""
    # Here, since a list of runs does not need these.
    from amlctl.cli.render.report.page import page
    from amlctl.localfs.atomic import write_bytes
    from amlctl.localfs.disk_errors import disk_error
    from amlctl.operations.report import report as collected

    call = invocation(ctx)
    found = collected(each_at(call, run))
    data = page(found, datetime.now(UTC)).encode("utf-8", "replace")
    more = f"-and-{len(found.runs) - 1}-more" if len(found.runs) > 1 else ""
    name = f"{found.runs[0].record.run}{more}-report.html"
    path = call.cwd / output if output is not None else call.app.project.outputs_dir / name
    try:
        if path.is_file() or not path.exists():
            write_bytes(path.resolve(), data, mode=_FILE_MODE)
        else:  # a device or a pipe must not be replaced
            path.write_bytes(data)
    except IsADirectoryError as error:
        raise UsageError(f"{path} is a folder", hint="name a file") from error
    except OSError as error:
        raise disk_error(error, str(path)) or UsageError(f"cannot write {path}: {error.strerror}") from error
    shown = path.relative_to(call.cwd) if path.is_relative_to(call.cwd) else path
    call.result(
        {"runs": [one.record.run for one in found.runs], "file": str(path), "bytes": len(data)},
        [[linked(str(shown), path.absolute()), f"  ({size(len(data))})"]],
    )


app.command("share", epilog=runs_share.EXAMPLES)(runs_share.share)
app.command("cancel", epilog=cancel.EXAMPLES)(cancel.cancel)


@app.command(
    epilog=examples(
        "amlctl runs wait @last # exit code 0 if it Completed, else 1",
        "amlctl runs wait @2 @last && amlctl submit report.py",
    )
)
def wait(
    ctx: typer.Context,
    run: Annotated[list[str], typer.Argument(metavar="RUN...", help="One or more runs")],
) -> int:
    """Wait until runs have finished; the exit code says whether all of them Completed"""
    from amlctl.operations.waiting import wait_for

    call = invocation(ctx)
    waited = wait_for(runs_at(call, run))
    call.result(
        waited.to_json(), [["run ", highlight(one.run), "  ", state_cell(one.status)] for one in waited.records]
    )
    return 0 if waited.failure is None else waited.failure.exit_code


@app.command("open", epilog=examples("amlctl runs open # in the browser, or the folder of its outputs"))
def open_(ctx: typer.Context, run: LastRun = LAST) -> None:
    """Open a run's page in Studio, or the folder of its fetched outputs, and print the address"""
    from amlctl.operations import runs as operations

    call = invocation(ctx)
    run_id, app_ = call.find_run(run)
    address = operations.open_run(app_, run_id)
    if call.output.out_is_terminal and not call.is_json:
        open_in_desktop(address)
    target = address if address.startswith(("https://", "http://")) else Path(address)
    call.result({"run": run_id, "place": address}, [[linked(address, target)]])


@app.command(epilog=examples("amlctl runs delete @last --yes # without confirmation"))
def delete(
    ctx: typer.Context,
    run: Annotated[list[str], typer.Argument(metavar="RUN...", help="Finished runs")],
    yes: Yes = False,
) -> None:
    """Delete finished runs: record, logs and stored outputs; what was fetched stays"""
    from amlctl.operations import runs as operations

    call = invocation(ctx)
    named = runs_at(call, run)
    runs = operations.with_children(named)
    found = [one.run for one in runs]

    def act(is_sure: bool) -> dict[str, list[str]]:
        if not is_sure:
            operations.require_finished(runs)  # else the answer to the question would not matter
            what = count(len(found), "run") if found[1:] else f"run {found[0]}"
            raise NeedsConfirmation(
                f"{what} would be deleted: record, logs and stored outputs",
                hint=if_intended("runs", "delete", *(one.run for one in named)),
                details=found if found[1:] else (),
            )
        return operations.delete(runs)

    kept = {run_id: stays for run_id, stays in asking(act, is_sure=yes, output=call.output).items() if stays}
    call.result(
        {"deleted": found, **({"kept": kept} if kept else {})},
        [
            line
            for run_id in found
            for line in (f"deleted {run_id}", *(f"  kept: {what}" for what in kept.get(run_id, ())))
        ],
    )
