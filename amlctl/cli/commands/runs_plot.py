"""`amlctl runs plot`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from amlctl.cli.command_group import examples, option
from amlctl.cli.completion import complete_metric, complete_run
from amlctl.cli.invocation import Invocation, invocation
from amlctl.cli.output import FALLBACK_WIDTH, UNLIMITED_WIDTH
from amlctl.cli.render.plot import Curve, style_of
from amlctl.cli.render.plot import plot as drawn
from amlctl.cli.render.tables import Cell, Line, Styled, Table, bold
from amlctl.core.metrics import Point, goal_of, shown
from amlctl.operations import runs as operations
from amlctl.operations.plot import Plotted
from amlctl.operations.plot import plot as plotted_runs

if TYPE_CHECKING:
    from amlctl.operations.plot import Plotted

EXAMPLES = examples(
    "amlctl runs plot # the key metric of the newest run",
    "amlctl runs plot @2 @last --metric loss # two runs",
)
_HEIGHT = 18

Runs = Annotated[
    list[str] | None,
    typer.Argument(metavar="RUN...", autocompletion=complete_run, help="Runs; default: @last"),
]


def plot(
    ctx: typer.Context,
    run: Runs = None,
    metric: Annotated[
        list[str] | None,
        option("Plot this metric; may be repeated", "--metric", "-m", metavar="NAME", autocompletion=complete_metric),
    ] = None,
) -> None:
    """Plot a metric of runs over their steps, in the terminal"""

    call = invocation(ctx)
    results = plotted_runs(runs_at(call, run), metric or (), call.app.settings.runs.metric)
    width = FALLBACK_WIDTH if call.output.width >= UNLIMITED_WIDTH else call.output.width
    document = results[0].to_json() if len(results) == 1 else {"plots": [one.to_json() for one in results]}
    call.result(document, _screen(results, width, has_color=call.output.out_has_color))


def runs_at(call: Invocation, references: Sequence[str] | None) -> list[operations.RunAt]:
    """The runs that a command names, of any workspace, those of a sweep instead of it; `@last` without any."""
    found = []
    for one in references or ("@last",):
        app, reference = call.app_of(one)
        found.append(operations.RunAt(operations.resolve_run(app.workspace, reference), app))
    return operations.each_of_sweep(found)


def _screen(results: Sequence[Plotted], width: int, *, has_color: bool) -> Iterator[Line | Table]:

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
    finite = [point for point in points if math.isfinite(point.value)]
    text = f"last {shown(points[-1].value)}"
    if finite:
        best = (min if goal_of(metric).is_lower_better else max)(finite, key=lambda point: point.value)
        text += f", best {shown(best.value)} at step {best.step:g}"
    return text + (f", {len(points) - len(finite)} not finite" if len(finite) < len(points) else "")
