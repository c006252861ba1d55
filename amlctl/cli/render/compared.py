"""A comparison of runs as a screen, Markdown or CSV; `compared_lines` is what all of them show."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from amlctl.cli.render.run_text import value_text
from amlctl.cli.render.tables import (
    Cell,
    Column,
    Line,
    Styled,
    Table,
    bad,
    bold,
    cell_width,
    dim,
    duration,
    fields,
    good,
    highlight,
    warning,
)
from amlctl.core.job import RUNTIME_ARCHIVE
from amlctl.core.message import ID_CELLS
from amlctl.core.metrics import goal_of, shown

if TYPE_CHECKING:
    from amlctl.operations.compare import Comparison, Counts, FileChanges, MetricRow, Row

_MOST_FILES = 20
"""Changed files that are named."""
_NARROW = 19
"""Cells of a run's column where many of them share a screen."""
_MD_SIGNS = {"+": "+", "−": "-", "~": "!"}
"""Those that Markdown's `diff` colors."""
_IDS = ("code", "git commit", "dataset ", "published ")
"""Fields whose values are ids, of which the beginning is shown."""


class ComparedLine(NamedTuple):
    """A line of the table: in which section, with a cell for each run."""

    section: str
    field: str
    cells: list[Styled]


def compared_lines(comparison: Comparison) -> Iterator[ComparedLine]:
    for row in sorted(comparison.differences, key=lambda row: _SECTIONS.index(_section(row.field))):
        section = _section(row.field)
        name = row.field.removeprefix("config.") if section == "config" else row.field
        yield ComparedLine(section, "took" if name == "seconds" else name, list(map(Styled, _cells(comparison, row))))
    for metric in comparison.metrics:
        yield ComparedLine("metrics", metric.field, list(_metric_cells(metric)))


_SECTIONS = ("settings", "config", "code", "data", "environment", "results")


def _section(field: str) -> str:
    if field.startswith("config."):
        return "config"
    if field in ("code", "git commit"):
        return "code"
    if field.startswith(("dataset ", "input ")):
        return "data"
    if field in ("status", "exit code", "seconds") or field.startswith("published "):
        return "results"
    return "environment" if field == "environment" else "settings"


def _cells(comparison: Comparison, row: Row) -> Iterator[str]:
    changes: Sequence[FileChanges | Counts | None] = ()
    if row.field.startswith("dataset "):
        changes = (comparison.data or {}).get(row.field.removeprefix("dataset "), ())
    elif row.field == "code":
        changes = comparison.code
    for number, value in enumerate(row.values):
        if row.field == "seconds":
            yield "-" if value is None else duration(value) + _time_delta(row.values[0], value, is_first=number == 0)
        elif isinstance(value, str) and row.field.startswith(_IDS):
            change = changes[number] if number < len(changes) else None
            yield value[:ID_CELLS] + ("" if change is None else f"  {_counted(change)}")
        else:
            yield value_text(value)


def _time_delta(first: float | None, value: float, *, is_first: bool) -> str:
    if first is None or is_first:
        return ""
    difference = _shown_s(value) - _shown_s(first)
    if not difference:
        return " (=)"
    return f" ({'+' if value >= first else '−'}{duration(abs(difference))})"


def _shown_s(seconds: float) -> float:
    """As `duration` rounds it."""
    return round(seconds, 1) if seconds < 9.95 else round(seconds)


def _counted(change: FileChanges | Counts) -> str:
    """`+312 −4 ~18`."""
    added, modified, deleted = (one if isinstance(one, int) else len(one) for one in change)
    parts = ((added, "+"), (deleted, "−"), (modified, "~"))
    return " ".join(f"{sign}{number}" for number, sign in parts if number) or "mode only"


def _metric_cells(metric: MetricRow) -> Iterator[Styled]:
    is_lower_better = goal_of(metric.field).is_lower_better
    for number, (value, delta) in enumerate(zip(metric.values, metric.deltas, strict=True)):
        text = shown(value) or "-"
        if number == 0 or delta is None:
            yield Styled(text)
        elif delta == 0:
            yield Styled(f"{text} (=)")
        else:
            sign = "+" if delta > 0 else "−"
            cell = f"{text} ({sign}{shown(_difference(metric.values[0], value) or abs(delta))})"
            yield good(cell) if (delta < 0) == is_lower_better else bad(cell)


def _difference(first: Any, other: Any) -> float:
    """Of two metrics as they are shown, so that it is what a reader computes."""
    if type(first) is int and type(other) is int:
        return abs(other - first)
    return float(abs(Decimal(shown(other)) - Decimal(shown(first))))


def screen(comparison: Comparison, width: int) -> Iterator[Line | Table]:
    """Blocks of as many runs as fit side by side, the first run in each; below, value by value, what is too wide for
    that. Where the ids of the runs do not fit, they become numbers."""
    lines = list(compared_lines(comparison))
    if not any(line for line in lines if line.section != "metrics") and not any(
        metric.differs for metric in comparison.metrics
    ):
        yield "the runs do not differ in anything recorded"
        if not lines:
            return
    longest = max(max(cell_width(line.field) + 2, cell_width(line.section)) for line in lines)
    headings = list(comparison.runs)
    if longest + sum(cell_width(run) + 2 for run in headings) > width:
        headings = [f"({number})" for number in range(1, len(headings) + 1)]
        yield from (f"{number}  {run}" for number, run in zip(headings, comparison.runs, strict=True))
    texts = [[heading, *(line.cells[i].text for line in lines)] for i, heading in enumerate(headings)]
    if longest + sum(2 + max(map(cell_width, column)) for column in texts) <= width:
        at_once, room = max(2, len(headings)), width
    else:
        at_once = max(2, min(len(headings), (width - longest) // (_NARROW + 2)))
        room = max((width - longest) // at_once - 2, *map(cell_width, headings))
    wide = [line for line in lines if max(cell_width(cell.text) for cell in line.cells) > room]
    narrow = [line for line in lines if line not in wide]
    for start in range(1, len(headings), at_once - 1):
        columns = [0, *range(start, min(start + at_once - 1, len(headings)))]
        if start > 1:
            yield ""
        yield _block([headings[i] for i in columns], [_at(line, columns) for line in narrow])
    for line in wide:
        yield [highlight(f"{line.section} {line.field}")]
        yield from fields(
            zip(headings, (cell if cell.style else cell.text for cell in line.cells), strict=True), indent="  "
        )
    for title, signs in changed_paths(comparison, headings):
        yield ""
        yield [bold(title)]
        yield from _files(signs)
    if comparison.patch is not None:
        yield ""
        yield from map(_painted, comparison.patch)


def _at(line: ComparedLine, columns: Sequence[int]) -> ComparedLine:
    return ComparedLine(line.section, line.field, [line.cells[i] for i in columns])


def _block(headings: Sequence[str], lines: Sequence[ComparedLine]) -> Table:
    rows: list[list[Cell]] = []
    for section, found in groupby(lines, key=lambda line: line.section):
        rows.append([bold(section), *[""] * len(headings)])
        rows += ([f"  {line.field}", *line.cells] for line in found)
    return Table([Column(heading, is_whole=True) for heading in ("", *headings)], rows)


def _files(changed: Sequence[tuple[str, str]]) -> Iterator[Line]:
    kinds = {"+": good, "−": bad, "~": warning}
    lines = [kinds[sign](f"  {sign} {path}") for sign, path in changed]
    for line in lines[:_MOST_FILES]:
        yield [line]
    if len(lines) > _MOST_FILES:
        yield f"  … {len(lines) - _MOST_FILES} more: --json"


def changed_paths(comparison: Comparison, runs: Sequence[str]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """`code of RUN` and `environment of RUN`, named as in `runs`, where they differ from those of the first one: each
    path, or package, with the sign of its change."""
    for what, changes in (("code", comparison.code), ("environment", comparison.environment)):
        for run, change in zip(runs, changes, strict=True):
            if change is not None:
                kinds = (("+", change.added), ("−", change.deleted), ("~", change.modified))
                signs = [(sign, path) for sign, paths in kinds for path in paths]
                shown = [(sign, "the runtime of amlctl" if path == RUNTIME_ARCHIVE else path) for sign, path in signs]
                yield f"{what} of {run}", shown


def _painted(line: str) -> Line:
    if line.startswith(("+++", "---", "diff ")):
        return [bold(line)]
    if line.startswith("@@"):
        return [highlight(line)]
    return [good(line) if line.startswith("+") else bad(line) if line.startswith("-") else dim(line)]


def markdown(comparison: Comparison) -> Iterator[Line]:
    yield _md_row(["", *comparison.runs])
    yield _md_row(["---"] * (len(comparison.runs) + 1))
    for section, lines in groupby(compared_lines(comparison), key=lambda line: line.section):
        yield _md_row([f"**{section}**", *[""] * len(comparison.runs)])
        for line in lines:
            yield _md_row([line.field, *(cell.text for cell in line.cells)], is_text=True)
    for title, signs in changed_paths(comparison, comparison.runs):
        yield from ("", f"{title}:", "", "```diff", *(f"{_MD_SIGNS[sign]} {path}" for sign, path in signs), "```")
    if comparison.patch:
        yield from ("", "```diff", *comparison.patch, "```")


def _md_row(cells: Sequence[str], *, is_text: bool = False) -> str:
    shown_cells = [_escaped(cell) if is_text else cell for cell in cells]
    return f"| {' | '.join(shown_cells)} |"


def _escaped(text: str) -> str:
    """Of a cell: no sign of it means anything to Markdown or HTML."""
    for sign in "\\`*_[]<>|~#":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("\n", " ")


def csv_lines(comparison: Comparison) -> Iterator[str]:
    """Raw values of what differs, and of all metrics."""
    yield _csv_line(["field", *comparison.runs])
    for row in comparison.differences:
        yield _csv_line([row.field, *row.values])
    for metric in comparison.metrics:
        yield _csv_line([f"metrics.{metric.field}", *metric.values])


def _csv_line(values: Sequence[Any]) -> str:
    import csv  # here, with what it needs, since few tables are printed so
    import io

    out = io.StringIO()
    plain = ["" if one is None else one if isinstance(one, (str, int, float)) else json.dumps(one) for one in values]
    csv.writer(out, lineterminator="").writerow(plain)
    return out.getvalue()
