"""Plots and time lines as SVG inside a page. Colors are classes of the page's style."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from amlctl.cli.render.plot import Curve
from amlctl.cli.render.report.markup import Markup, joined, markup
from amlctl.cli.render.tables import duration
from amlctl.core.metrics import Point, shown
from amlctl.core.phases import Span
from amlctl.core.plot_scale import Scale, tick_text

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
