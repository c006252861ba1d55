"""`amlctl runs plot`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from amlctl.cli.command_group import examples, option
from amlctl.cli.invocation import Invocation, invocation
from amlctl.cli.output import FALLBACK_WIDTH, UNLIMITED_WIDTH
from amlctl.cli.parameters import LAST
from amlctl.cli.render.tables import Cell, Line, Styled, Table, bold
from amlctl.core.message import Command
from amlctl.errors import NotFound

if TYPE_CHECKING:
    from amlctl.core.metrics import Point
    from amlctl.operations.metrics import Plotted
    from amlctl.operations.runs import RunAt

EXAMPLES = examples(
    "amlctl runs plot # the key metric of the newest run",
    "amlctl runs plot @2 @last --metric loss # two runs",
)
_HEIGHT = 18

Runs = Annotated[
    list[str] | None,
    typer.Argument(metavar="RUN...", help="Runs; default: @last"),
]


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
