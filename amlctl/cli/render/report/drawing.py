"""HTML from templates, which escape every value that is not markup; and plots and time lines as SVG inside a page.
Colors are classes of its style."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape

from amlctl.cli.render.plot import Curve, Scale, tick_text
from amlctl.cli.render.tables import duration
from amlctl.core.metrics import Point, shown
from amlctl.core.phases import Span
from amlctl.core.resources import Resources, Sample
from amlctl.operations.report import RunPage


class Markup(str):
    """Text that is HTML."""


def markup(template: str, *values: object) -> Markup:
    """`template` is ours; `{}` in it stand for the values."""
    return Markup(template.format(*map(_escaped, values)))


def joined(parts: Iterable[Markup]) -> Markup:
    return Markup("".join(parts))


def _escaped(value: object) -> str:
    if isinstance(value, Markup):
        return value
    text = "" if value is None else str(value)
    # Control characters are not allowed in HTML; surrogates stand for bytes that are not UTF-8.
    shown = "".join(one if one.isprintable() or one in "\t\n" else "\ufffd" for one in text)
    return escape(shown)


COLORS = 8
"""Classes `c0` … of curves and runs."""
_WIDTH, _HEIGHT = 480, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 12, 8, 24
_MOST_POINTS = 600
_BAR = 1000


def color_of(number: int) -> str:
    return f"c{number % COLORS}"


def plot(metric: str, curves: Sequence[Curve], *, over: str = "steps") -> Markup:
    """Curves keep the number of their run as color; an empty one has none."""
    finite = [point for curve in curves for point in curve.points if math.isfinite(point.value)]
    x = Scale.over([point.step for point in finite], wanted=5)
    y = Scale.over([point.value for point in finite], wanted=4, margin=0.04)

    def at_x(step: float) -> float:
        return _LEFT + x.part(step) * (_WIDTH - _LEFT - _RIGHT)

    def at_y(value: float) -> float:
        return _HEIGHT - _BOTTOM - y.part(value) * (_HEIGHT - _TOP - _BOTTOM)

    grid = [
        markup(
            '<line x1="{}" y1="{}" x2="{}" y2="{}"/><text x="{}" y="{}" text-anchor="end">{}</text>',
            *(_LEFT, f"{at_y(tick):.1f}", _WIDTH - _RIGHT, f"{at_y(tick):.1f}"),
            *(_LEFT - 6, f"{at_y(tick) + 4:.1f}", tick_text(tick)),
        )
        for tick in y.ticks
    ] + [
        markup('<text x="{}" y="{}" text-anchor="middle">{}</text>', f"{at_x(tick):.1f}", _HEIGHT - 8, tick_text(tick))
        for tick in x.ticks
    ]
    lines = [
        markup(
            '<g class="curve {}"><title>{}: {}</title>{}</g>',
            color_of(number),
            curve.label,
            f"last {shown(curve.points[-1].value)}",
            joined(_strokes([(at_x(p.step), at_y(p.value)) if math.isfinite(p.value) else None for p in thinned])),
        )
        for number, curve in enumerate(curves)
        if curve.points and (thinned := list(_thinned(curve.points)))
    ]
    return markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{} over {}"><g class="grid">{}</g>{}</svg>',
        *(_WIDTH, _HEIGHT, metric, over, joined(grid), joined(lines)),
    )


def _strokes(places: Sequence[tuple[float, float] | None]) -> Iterator[Markup]:
    """A line for each stretch of points; a point between two gaps is a circle."""
    stretch: list[tuple[float, float]] = []
    for place in [*places, None]:
        if place is not None:
            stretch.append(place)
            continue
        if len(stretch) == 1:
            yield markup('<circle cx="{:.1f}" cy="{:.1f}" r="3"/>'.format(*stretch[0]))
        elif stretch:
            yield markup('<polyline points="{}"/>', " ".join(f"{left:.1f},{top:.1f}" for left, top in stretch))
        stretch = []


def _thinned(points: Sequence[Point]) -> Iterator[Point]:
    """Of a long series the least and the greatest of each stretch, so that peaks stay."""
    if len(points) <= _MOST_POINTS:
        yield from points
        return
    stretch = math.ceil(2 * len(points) / _MOST_POINTS)
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        finite = [point for point in part if math.isfinite(point.value)]
        if not finite:
            yield part[0]
            continue
        ends = {min(finite, key=lambda point: point.value), max(finite, key=lambda point: point.value)}
        yield from sorted(ends)


def time_line(spans: Sequence[Span], longest_s: float) -> Markup:
    """The phases one after the other, on a scale on which `longest_s` is the whole width."""
    parts: list[Markup] = []
    left = 0.0
    for span in spans:
        width = max(span.seconds / longest_s * _BAR, 2.0)
        parts.append(
            markup(
                '<rect class="phase {}" x="{}" y="0" width="{}" height="20"><title>{} {}</title></rect>',
                *(f"p-{span.name}", f"{left:.1f}", f"{width:.1f}", span.name, duration(span.seconds)),
            )
        )
        left += width
    return markup(
        '<svg class="time" viewBox="0 0 {} 20" preserveAspectRatio="none" role="img" aria-label="phases">{}</svg>',
        *(f"{max(left, _BAR):.1f}", joined(parts)),
    )


_TIMES = ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
_SIZES = ((1e9, "GB"), (1e6, "MB"))
_PLOTS: Sequence[tuple[str, bool, Callable[[Sample], float | None]]] = (
    ("CPU in %", False, lambda sample: None if sample.processors is None else 100 * sample.processors),
    ("Memory", True, lambda sample: sample.memory_bytes),
    ("GPU in %", False, lambda sample: None if sample.gpu is None else 100 * sample.gpu),
    ("GPU memory", True, lambda sample: sample.gpu_memory_bytes),
)
"""Title, whether it has bytes, and the value."""


def resource_plots(runs: Sequence[RunPage]) -> Iterator[Markup]:
    """Nothing where nothing is recorded."""
    longest_s = max((run.resources.samples[-1].at_s for run in runs if run.resources.samples), default=0.0)
    unit_s, unit = next((one for one in _TIMES if longest_s >= 2 * one[0]), _TIMES[-1])
    figures = []
    for title, has_bytes, value_of in _PLOTS:
        values = [list(_values(run.resources, value_of)) for run in runs]
        most = max((value for each in values for _, value in each), default=0.0)
        if not most:
            continue
        scale, size_unit = next((one for one in _SIZES if most >= one[0]), _SIZES[-1]) if has_bytes else (1.0, "")
        curves = [
            Curve(run.record.run, [Point(at_s / unit_s, value / scale) for at_s, value in each])
            for run, each in zip(runs, values, strict=True)
        ]
        name = f"{title} in {size_unit}" if has_bytes else title
        figures.append(markup("<figure><figcaption>{}</figcaption>{}</figure>", name, plot(name, curves, over=unit)))
    if figures:
        yield markup('<h2>Resources over time, in {}</h2><section class="plots">{}</section>', unit, joined(figures))


def _values(resources: Resources, value_of: Callable[[Sample], float | None]) -> Iterator[tuple[float, float]]:
    for sample in resources.samples:
        value = value_of(sample)
        if value is not None:
            yield sample.at_s, value
