"""Curves in a terminal, in braille: 2 by 4 dots a cell.

Each has a color and a digit at its end; without color a pattern of dashes tells them apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from amlctl.cli.render.tables import Cell, Line, Styled, dim
from amlctl.core.metrics import Point

_LARGEST, _SMALLEST = 1e300, 1e-300
"""Of what is shown: beyond them a range is infinite, or a step is zero."""


class Scale(NamedTuple):
    low: float
    high: float
    ticks: Sequence[float]

    @classmethod
    def over(cls, values: Sequence[float], *, wanted: int, margin: float = 0.0) -> Scale:
        """Over finite values, with about `wanted` ticks; `margin` is the part of the range added at each end."""
        ends = min(values, default=0.0), max(values, default=1.0)
        low, high = (min(_LARGEST, max(-_LARGEST, end)) for end in ends)
        if high - low <= max(_SMALLEST, 1e-12 * max(abs(low), abs(high))):
            pad = abs(low) / 2 if abs(low) > _SMALLEST else 1.0
            low, high = low - pad, high + pad
        low, high = low - (high - low) * margin, high + (high - low) * margin
        step = _round_step((high - low) / wanted)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        return cls(low, high, [number * step for number in range(first, last + 1)])

    def part(self, value: float) -> float:
        """From 0 at the low end to 1 at the high one."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


def _round_step(least: float) -> float:
    """The next of 1, 2, 5, 10 … times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def tick_text(value: float) -> str:
    return f"{value:.4g}" if abs(value) > 1e-12 else "0"


STYLES = ("cyan", "yellow", "magenta", "green", "blue", "red")
_DASHES = ((1, 0), (6, 3), (1, 2), (9, 3), (3, 3))
"""Dots on and off."""
_BITS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_BLANK = 0x2800
_MOST_MARKED = 9
_LEAST_COLUMNS = 10
"""Of a plot; a narrower screen folds its lines."""


class Curve(NamedTuple):
    label: str
    points: Sequence[Point]


def style_of(number: int) -> str:
    return STYLES[number % len(STYLES)]


def plot(curves: Sequence[Curve], width: int, height: int, *, has_color: bool) -> Iterator[Line]:
    """`width` and `height` in cells, axes included. Points that are not finite are gaps."""
    finite = [point for curve in curves for point in curve.points if math.isfinite(point.value)]
    y_scale = Scale.over([point.value for point in finite], wanted=max(2, height // 4), margin=0.03)
    x_scale = Scale.over([point.step for point in finite], wanted=max(2, width // 14))
    y_labels = {_row(y_scale, tick, height - 2): tick_text(tick) for tick in y_scale.ticks}
    margin = max(map(len, y_labels.values()))
    columns, rows = max(width - margin - 2, _LEAST_COLUMNS), height - 2
    cells = _drawn(curves, x_scale, y_scale, columns, rows, is_dashed=not has_color)
    for row in range(rows):
        label = y_labels.get(row)
        line: list[Cell] = [dim(f"{label or '':>{margin}} {'┤' if label else '│'}")]
        line += [cells.get((column, row), " ") for column in range(columns)]
        yield _stripped(line)
    axis, labels = ["─"] * columns, [" "] * (columns + margin + 2)
    for tick in x_scale.ticks:
        column, text = round(x_scale.part(tick) * (columns - 1)), tick_text(tick)
        start = min(max(column + margin + 2 - len(text) // 2, 0), len(labels) - len(text))
        if all(sign == " " for sign in labels[max(start - 1, 0) : start + len(text) + 1]):
            axis[column] = "┬"
            labels[start : start + len(text)] = text
    yield [dim(f"{'':>{margin}} └{''.join(axis)}")]
    yield [dim("".join(labels).rstrip())]


def _row(scale: Scale, value: float, rows: int) -> int:
    return rows - 1 - int(scale.part(value) * (rows * 4 - 1)) // 4


def _drawn(
    curves: Sequence[Curve], x: Scale, y: Scale, columns: int, rows: int, *, is_dashed: bool
) -> dict[tuple[int, int], Cell]:
    bits: dict[tuple[int, int], int] = {}
    owners: dict[tuple[int, int], int] = {}
    ends: dict[tuple[int, int], Cell] = {}
    for number, curve in enumerate(curves):
        on, off = _DASHES[number % len(_DASHES)] if is_dashed else _DASHES[0]
        count, cell = 0, (0, 0)
        for dot_x, dot_y in _dots(curve.points, x, y, columns * 2 - 1, rows * 4 - 1):
            cell = dot_x // 2, rows - 1 - dot_y // 4
            if count % (on + off) < on:
                bits[cell] = bits.get(cell, 0) | _BITS[dot_x % 2][3 - dot_y % 4]
                owners[cell] = number
            count += 1
        if count == 1 and len(curves) == 1:
            ends[cell] = Styled("●", style_of(number))
        elif count and 1 < len(curves) <= _MOST_MARKED:
            while cell in ends and cell[1] < rows - 1:  # two curves that end at one place
                cell = cell[0], cell[1] + 1
            ends[cell] = Styled(str(number + 1), f"bold {style_of(number)}")
    drawn: dict[tuple[int, int], Cell] = {
        cell: Styled(chr(_BLANK | dots), style_of(owners[cell])) for cell, dots in bits.items()
    }
    return {**drawn, **ends}


def _dots(points: Sequence[Point], x: Scale, y: Scale, most_x: int, most_y: int) -> Iterator[tuple[int, int]]:
    """Along the curve, one dot for each step of a line between two points."""
    places = [
        (round(x.part(point.step) * most_x), round(y.part(point.value) * most_y))
        if math.isfinite(point.value)
        else None
        for point in points
    ]
    if places and places[0] is not None:
        yield places[0]
    for before, after in pairwise(places):
        if after is None:
            continue
        if before is None:
            yield after
            continue
        steps = max(abs(after[0] - before[0]), abs(after[1] - before[1]))
        for step in range(1, steps + 1):
            yield tuple(round(a + (b - a) * step / steps) for a, b in zip(before, after, strict=True))  # type: ignore[misc]


def _stripped(line: list[Cell]) -> list[Cell]:
    while line and line[-1] == " ":
        line.pop()
    return line
