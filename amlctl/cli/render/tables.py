"""Plain tables that fit the width they are given, and names that cannot break a line."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple

_GAP = "  "
_MIN_COLUMN = 10
"""Cells below which a column is not cut any further."""


class Column(NamedTuple):
    """A column's heading. `is_whole`: never cut; `is_right`: numbers; `is_wrapped`: what does not fit goes on below;
    `paint` colours a cell after it is laid out.

    Where even the cut columns are too wide together, those with `rank` go, the highest first; 0 always stays.
    """

    heading: str
    is_whole: bool = False
    is_right: bool = False
    is_wrapped: bool = False
    rank: int = 0
    paint: Callable[[str], str] | None = None


def printable(text: str) -> str:
    """`text` on one line: control characters and bytes that are no UTF-8 are written as escapes."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that os.fsdecode could not decode
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def cell_width(text: str) -> int:
    """Terminal cells that `text` takes."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def cut(text: str, width: int) -> str:
    """`text` in at most `width` cells, with `…` where something is missing."""
    if cell_width(text) <= width:
        return text
    kept = ""
    taken = 1
    for character in text:
        taken += cell_width(character)
        if taken > width:
            break
        kept += character
    return kept + "…"


def cut_path(path: str, width: int) -> str:
    """A path in at most `width` cells; what is missing is missing at its beginning."""
    return path if cell_width(path) <= width else cut(path[::-1], width)[::-1]


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Lines of a table with headings. Columns without any text are left out."""
    cells = [[printable(cell) for cell in row] for row in rows]
    kept = [i for i in range(len(columns)) if any(row[i] for row in cells)]
    widths = _fit([columns[i] for i in kept], [[row[i] for i in kept] for row in cells], width)
    while _total(widths) > width and any(columns[i].rank for i in kept):
        kept.remove(max(kept, key=lambda i: columns[i].rank))
        widths = _fit([columns[i] for i in kept], [[row[i] for i in kept] for row in cells], width)
    columns = [columns[i] for i in kept]
    lines = [_line(columns, [column.heading for column in columns], widths, is_painted=False)]
    for row in cells:
        for part in _wrapped(columns, [row[i] for i in kept], widths):
            lines.append(_line(columns, part, widths, is_painted=True))
    return lines


def _wrapped(columns: Sequence[Column], row: Sequence[str], widths: Sequence[int]) -> Iterator[Sequence[str]]:
    """The row, and below it what did not fit into those of its cells that are wrapped."""
    parts = [
        textwrap.wrap(cell, width) if column.is_wrapped else [cell]
        for column, cell, width in zip(columns, row, widths, strict=True)
    ]
    return zip_longest(*parts, fillvalue="")


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _fit(columns: Sequence[Column], cells: Sequence[Sequence[str]], width: int) -> list[int]:
    """Widths of the columns: the widest that may be cut is cut first."""
    widths = [
        max([cell_width(column.heading), *(cell_width(row[i]) for row in cells)]) for i, column in enumerate(columns)
    ]
    for _ in range(_total(widths) - width):
        cuttable = [i for i, column in enumerate(columns) if not column.is_whole and widths[i] > _MIN_COLUMN]
        if not cuttable:
            break
        widths[max(cuttable, key=lambda i: widths[i])] -= 1
    return widths


def _line(columns: Sequence[Column], row: Sequence[str], widths: Sequence[int], *, is_painted: bool) -> str:
    parts = []
    for column, cell, cell_limit in zip(columns, row, widths, strict=True):
        text = cut(cell, cell_limit)
        blank = " " * (cell_limit - cell_width(text))
        painted = column.paint(text) if is_painted and column.paint else text
        parts.append(blank + painted if column.is_right else painted + blank)
    return _GAP.join(parts).rstrip()


def fields(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """`name   value` lines; pairs without a value are left out, further lines of a value are indented."""
    shown = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0)
    return [
        f"{name if i == 0 else '':<{width}}{_GAP}{printable(line)}"
        for name, value in shown
        for i, line in enumerate(value.split("\n"))
    ]
