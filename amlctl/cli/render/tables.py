"""Lines and tables of a result, as data until the terminal or the pipe is known.

rich draws tables on a terminal; in a pipe they are aligned text, without the import. All text is made printable here,
so that no name can break a line or send a control sequence to the terminal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias, TypeVar

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
    """`is_whole`: never shortened; `is_right`: numbers; `is_wrapped`: continues below if too long, a name after a `/`.

    If even the shortened columns do not fit a screen, those with `rank` are dropped, the highest first.
    """

    heading: str = ""
    is_whole: bool = False
    is_right: bool = False
    is_wrapped: bool = False
    rank: int = 0


whole = partial(Column, is_whole=True)
number = partial(Column, is_whole=True, is_right=True)
Thing = TypeVar("Thing")


class Table:
    """Rows of cells; columns without any text are left out."""

    def __init__(self, columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> None:
        cells = [[_printable_cell(cell) for cell in row] for row in rows]
        kept = [i for i in range(len(columns)) if any(row[i].text for row in cells)]
        self._columns = [columns[i] for i in kept]
        self._rows = [[row[i] for i in kept] for row in cells]

    @classmethod
    def of(cls, things: Iterable[Thing], columns: Mapping[Column, Callable[[Thing], Cell]]) -> Table:
        """A row for each thing; of each column what it shows."""
        return cls(list(columns), [[cell(one) for cell in columns.values()] for one in things])

    def in_words(self, in_words: Callable[[str], str]) -> Table:
        """The table with commands in its cells ready to type, and without secrets."""
        return Table(self._columns, [[Styled(in_words(cell.text), cell.style) for cell in row] for row in self._rows])

    def plain(self) -> Iterator[str]:
        """Aligned lines, as wide as needed."""
        headings = [Styled(column.heading, "") for column in self._columns]
        lines = [headings, *self._rows] if any(heading.text for heading in headings) else self._rows
        widths = [max(cell_width(line[i].text) for line in lines) for i in range(len(self._columns))]
        for line in lines:
            parts = []
            for column, cell, width in zip(self._columns, line, widths, strict=True):
                blank = " " * (width - cell_width(cell.text))
                parts.append(blank + cell.text if column.is_right else cell.text + blank)
            yield _GAP.join(parts).rstrip()

    def drawn(self, width: int, *, has_color: bool) -> str:
        """The lines of rich's table for a screen of `width` cells."""
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text

        console = Console(
            width=width + len(_GAP),
            height=len(self._rows) + 2,  # without one, rich takes TERM=dumb to have 80 columns
            force_terminal=True,
            color_system="standard" if has_color else None,
            legacy_windows=False,
        )
        has_headings = any(column.heading for column in self._columns)
        table = RichTable(box=None, padding=(0, len(_GAP), 0, 0), show_header=has_headings, header_style="")
        full = [
            max([cell_width(column.heading), *(cell_width(row[i].text) for row in self._rows)])
            for i, column in enumerate(self._columns)
        ]
        shortest = [
            full[i] if column.is_whole else width // 3 if column.is_wrapped else _LEAST_COLUMN
            for i, column in enumerate(self._columns)
        ]
        least = {i: min(full[i], cells) for i, cells in enumerate(shortest)}
        while sum(least.values()) + len(_GAP) * (len(least) - 1) > width and any(self._columns[i].rank for i in least):
            del least[max(least, key=lambda i: self._columns[i].rank)]
        # rich would shorten every column alike, then crop the lines: the widest that may be shortened are, one by one.
        widths = {i: full[i] for i in least}
        while sum(widths.values()) + len(_GAP) * (len(widths) - 1) > width:
            longer = [i for i in widths if widths[i] > least[i]]
            if not longer:
                break
            widths[max(longer, key=widths.__getitem__)] -= 1
        for i in least:
            column = self._columns[i]
            table.add_column(
                Text(column.heading, "bold"),
                justify="right" if column.is_right else "left",
                no_wrap=not column.is_wrapped,
                overflow="fold" if column.is_wrapped else "ellipsis",
                width=widths[i],
            )
        for row in self._rows:
            table.add_row(*(Text(_wrapped(row[i].text, self._columns[i], widths[i]), row[i].style) for i in least))
        with console.capture() as captured:
            console.print(table)
        return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def _wrapped(name: str, column: Column, cells: int) -> str:
    """In lines that end with `/`. rich wraps parts that are longer than a line, and what is not a name."""
    if not column.is_wrapped or cell_width(name) <= cells or " " in name:
        return name
    lines = [""]
    for part in re.split(r"(?<=/)", name):
        if lines[-1] and cell_width(lines[-1] + part) > cells:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


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
    shown = _styled(text, part.style) if has_color and part.style and text else text
    if not has_links or _LINK.fullmatch(part.link) is None:
        return shown
    return f"\x1b]8;;{part.link}\x1b\\{shown}\x1b]8;;\x1b\\"


def _styled(text: str, style: str) -> str:
    *attributes, last = style.split()
    is_attribute = last in ("bold", "dim")
    names = [*attributes, last] if is_attribute else attributes
    return typer.style(
        text, fg=None if is_attribute else last, bold="bold" in names or None, dim="dim" in names or None
    )


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
