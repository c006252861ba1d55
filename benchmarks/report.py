"""Results as text for the terminal and as Markdown for RESULTS.md: one table, cut two ways."""

from __future__ import annotations

from collections.abc import Sequence

from measure import memory_floor
from result import Goal, Result, Row

_HEAD = ("", "median", "fastest–slowest", "peak memory", "amlctl is")


def text(result: Result) -> str:
    cells = [_HEAD, *_cells(result)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEAD))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
    goals = [f"{_verdict(goal)}: {goal.text}: {_measured(goal)}" for goal in result.goals]
    return "\n".join([f"{result.name}: {result.data}", *lines, *goals])


def markdown(results: Sequence[Result], about: Sequence[str]) -> str:
    lines = ["# Benchmark results", "", *about, ""]
    lines += ["| goal | measured | |", "|---|---|---|"]
    for result in results:
        lines += [f"| `{result.name}`: {goal.text} | {_measured(goal)} | {_verdict(goal)} |" for goal in result.goals]
    for result in results:
        lines += ["", f"## {result.name}", "", f"{result.data[:1].upper()}{result.data[1:]}.", ""]
        lines += [f"| command |{'|'.join(f' {head} ' for head in _HEAD[1:])}|", "|---|---:|---:|---:|---:|"]
        for row, cells in zip(result.rows, _cells(result), strict=True):
            lines.append(f"| {f'`{row.shown}`' if row.shown else row.label} | {' | '.join(cells[1:])} |")
    return "\n".join(lines) + "\n"


def _cells(result: Result) -> list[tuple[str, ...]]:
    return [_line(row, result.rows[0]) for row in result.rows]


def _line(row: Row, ours: Row) -> tuple[str, ...]:
    if row.samples is None or ours.samples is None:
        return row.label, "not installed", "", "", ""
    low, high = min(row.samples.seconds), max(row.samples.seconds)
    against = "" if row is ours else f"{ours.samples.median_s / row.samples.median_s:.2f} ×"
    return row.label, f"{row.samples.median_s:.3f} s", f"{low:.3f}–{high:.3f} s", _peak(row.samples.peak), against


def _peak(size_bytes: int) -> str:
    floor = memory_floor()
    return f"< {floor / 1e6:.0f} MB" if size_bytes <= 1.05 * floor else f"{size_bytes / 1e6:.0f} MB"


def _measured(goal: Goal) -> str:
    return "not measured" if goal.measured is None else f"{goal.measured:.2f} {goal.unit}"


def _verdict(goal: Goal) -> str:
    return {True: "met", False: "MISSED", None: "open"}[goal.is_met]
