"""Lines and tables of a result, as data until the terminal or the pipe is known.

All text is made printable here, so that no name can break a line or send a control sequence to the terminal. A table of
rich takes two seconds for 5,000 runs, and shortens all columns alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple, TypeAlias

import typer

_GAP = "  "
_LINK = re.compile(r"(?:https?|file)://[!-~]+")
_LEAST_COLUMN = 10
"""Cells below which a column is not shortened any further."""


class Styled(NamedTuple):
    """A text in a style of rich, for example `bold red`. Color never carries meaning of its own; nor does `link`, the
    address that a terminal opens when the text is clicked."""

    text: str
    style: str = ""
    link: str = ""


Cell: TypeAlias = "str | Styled"
Line: TypeAlias = "str | list[Cell]"
"""One line, in parts where some of it is styled."""


good = partial(Styled, style="green")
bad = partial(Styled, style="bold red")
warning = partial(Styled, style="yellow")
highlight = partial(Styled, style="cyan")
dim = partial(Styled, style="dim")
bold = partial(Styled, style="bold")


def state_cell(state: str) -> Styled:
    """The name of a run's state in its color."""
    from amlctl.core.run_state import RunState  # here, since every command imports this module

    styles: dict[str, Callable[[str], Styled]] = {
        RunState.COMPLETED: good,
        RunState.FAILED: bad,
        RunState.CANCELED: warning,
        RunState.RUNNING: highlight,
    }
    return styles.get(state, Styled)(state)


def linked(text: str, target: str | Path) -> Styled:
    """`target` is a web address, or an absolute path of this disk."""
    return Styled(text, "", target.as_uri() if isinstance(target, Path) else target)


@dataclass(frozen=True)
class Column:
    """`is_whole`: never shortened; `is_right`: numbers; `is_wrapped`: continues below if too long.

    If even the shortened columns do not fit a screen, those with `rank` are dropped, the highest first.
    """

    heading: str = ""
    is_whole: bool = False
    is_right: bool = False
    is_wrapped: bool = False
    rank: int = 0


class Table:
    """Rows of cells; columns without any text are left out."""

    def __init__(self, columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> None:
        cells = [[_printable_cell(cell) for cell in row] for row in rows]
        kept = [i for i in range(len(columns)) if any(row[i].text for row in cells)]
        self._columns = [columns[i] for i in kept]
        self._rows = [[row[i] for i in kept] for row in cells]

    def in_words(self, in_words: Callable[[str], str]) -> Table:
        """The table with commands in its cells ready to type, and without secrets."""
        return Table(self._columns, [[Styled(in_words(cell.text), cell.style) for cell in row] for row in self._rows])

    def lines(self, width: int, *, has_color: bool = False) -> Iterator[str]:
        """Aligned, and made to fit `width` cells as far as the columns allow."""
        has_headings = any(column.heading for column in self._columns)
        rows = [[bold(column.heading) for column in self._columns]] * has_headings + self._rows
        full = [max((cell_width(row[i].text) for row in rows), default=0) for i in range(len(self._columns))]
        least = {i: full[i] if one.is_whole else min(full[i], _LEAST_COLUMN) for i, one in enumerate(self._columns)}
        while _with_gaps(least) > width and any(self._columns[i].rank for i in least):
            del least[max(least, key=lambda i: self._columns[i].rank)]
        cells = {i: full[i] for i in least}
        while _with_gaps(cells) > width and (longer := [i for i in cells if cells[i] > least[i]]):
            cells[max(longer, key=cells.__getitem__)] -= 1
        for row in rows:
            fitted = [_fitted(row[i].text, cells[i], is_wrapped=self._columns[i].is_wrapped) for i in cells]
            for texts in zip_longest(*fitted, fillvalue=""):
                parts = []
                for i, text in zip(cells, texts, strict=True):
                    blank, shown = " " * (cells[i] - cell_width(text)), _styled(text, row[i].style, has_color=has_color)
                    parts.append(blank + shown if self._columns[i].is_right else shown + blank)
                yield _GAP.join(parts).rstrip()


def _with_gaps(cells: Mapping[int, int]) -> int:
    return sum(cells.values()) + len(_GAP) * (len(cells) - 1)


def _fitted(text: str, cells: int, *, is_wrapped: bool) -> list[str]:
    """Lines of at most `cells`."""
    if cell_width(text) <= cells:
        return [text]
    if is_wrapped:
        from textwrap import wrap  # here, since every command imports this module

        return wrap(text, cells, break_on_hyphens=False)
    return [cut(text, cells)]


def cut(text: str, cells: int) -> str:
    """Its beginning, if it is longer."""
    if cell_width(text) <= cells:
        return text
    if text.isascii():
        return f"{text[: cells - 1]}…"
    from rich.cells import set_cell_size

    return f"{set_cell_size(text, cells - 1)}…"


def _printable_cell(cell: Cell) -> Styled:
    return Styled(printable(cell.text), cell.style) if isinstance(cell, Styled) else Styled(printable(cell), "")


def painted(line: Line, in_words: Callable[[str], str], *, has_color: bool, has_links: bool = False) -> str:
    """A line as text: commands in it ready to type, everything else as it can be shown."""
    parts = [part if isinstance(part, Styled) else Styled(part) for part in ([line] if isinstance(line, str) else line)]
    return "".join(_painted(part, in_words, has_color=has_color, has_links=has_links) for part in parts)


def _painted(part: Styled, in_words: Callable[[str], str], *, has_color: bool, has_links: bool) -> str:
    text = printable(in_words(part.text))
    shown = _styled(text, part.style, has_color=has_color)
    if not has_links or _LINK.fullmatch(part.link) is None:
        return shown
    return f"\x1b]8;;{part.link}\x1b\\{shown}\x1b]8;;\x1b\\"


def _styled(text: str, style: str, *, has_color: bool) -> str:
    if not (has_color and style and text):
        return text
    words = style.split()
    color = next((word for word in words if word not in ("bold", "dim")), None)
    return typer.style(text, fg=color, bold="bold" in words or None, dim="dim" in words or None)


def printable(text: str) -> str:
    """`text` on one line: control characters and bytes that are not UTF-8 become escapes."""
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
    from rich.cells import cell_len

    return cell_len(text)


def fields(pairs: Iterable[tuple[str, Cell]], indent: str = "") -> Iterator[Line]:
    """`name   value` lines; pairs without a value are left out, further lines of a value are indented."""
    shown = [(name, value) for name, value in pairs if value and (not isinstance(value, Styled) or value.text)]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        if isinstance(value, Styled):
            yield [f"{indent}{name:<{width}}{_GAP}", value]
            continue
        for i, line in enumerate(value.split("\n")):
            yield f"{indent}{name if i == 0 else '':<{width}}{_GAP}{line}"


def beginning(lines: Sequence[Line], most: int, *, is_verbose: bool, indent: str = "  ") -> Iterator[Line]:
    """The first lines, and how many more there are; all of them with `-v`."""
    shown = lines if is_verbose else lines[:most]
    yield from shown
    if len(shown) < len(lines):
        yield [dim(f"{indent}… and {len(lines) - len(shown):,} more (-v shows all)")]


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for length, unit, part, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= length:
            rest = whole % length // part
            return f"{whole // length} {unit} {rest} {small}" if rest else f"{whole // length} {unit}"
    return f"{whole} s"


def moment(iso: str) -> str:
    """An ISO 8601 time as local time, to the second; anything else as it is."""
    try:
        return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return iso
