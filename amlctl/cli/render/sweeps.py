"""A sweep: its runs as a table, with the values of each and the best of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from amlctl.cli.render.tables import (
    Cell,
    Column,
    Line,
    Styled,
    Table,
    bold,
    dim,
    duration,
    good,
    highlight,
    state_cell,
)
from amlctl.core.metrics import Goal, shown
from amlctl.core.run_state import RunState, is_final
from amlctl.core.sweep import SweepRow, best_of, label

if TYPE_CHECKING:
    from amlctl.operations.watch import SweepView

_METRICS = 4
"""Columns of metrics; `runs compare` has all."""
_ORDER = (RunState.RUNNING, RunState.COMPLETED, RunState.FAILED, RunState.CANCELED)


def sweep_table(rows: Sequence[SweepRow], goal: Goal | None, shown_rows: Sequence[SweepRow] | None = None) -> Table:
    """Of `shown_rows` (default: all), with a mark for the best of all."""
    best = best_of(rows, goal)
    keys = list(dict.fromkeys(key for row in rows for key in row.values))
    metrics = list(dict.fromkeys([*([goal.name] if goal else []), *(name for row in rows for name in row.metrics)]))
    short = Counter(key.rpartition(".")[2] for key in keys)
    columns = [
        Column("RUN", is_whole=True),
        *(Column(last if short[last := key.rpartition(".")[2]] == 1 else key) for key in keys),
        Column("STATUS", is_whole=True, rank=1),
        Column("TOOK", is_whole=True, is_right=True, rank=2),
        *(Column(name, is_whole=True, is_right=True, rank=3 * bool(at)) for at, name in enumerate(metrics[:_METRICS])),
        Column("", is_whole=True),
    ]
    return Table(
        columns,
        [
            [
                row.run,
                *(row.values.get(key, "") for key in keys),
                state_cell(row.status),
                "" if row.took_s is None else duration(row.took_s),
                *(shown(row.metrics.get(name)) for name in metrics[:_METRICS]),
                good("best") if best is not None and row.run == best.run else dim("deleted") if row.is_deleted else "",
            ]
            for row in (rows if shown_rows is None else shown_rows)
        ],
    )


def sweep_lines(view: SweepView | None) -> Iterator[Line | Table]:
    """The results of a sweep; nothing without one."""
    if view is not None:
        yield sweep_table(view.rows, view.goal)
        yield best_line(view.rows, view.goal)


def best_line(rows: Sequence[SweepRow], goal: Goal | None) -> Line:
    """`best loss 0.1: lr=0.1 size=1`; or why no run is the best."""
    best = best_of(rows, goal)
    if goal is None:
        return "no metrics to compare the runs by"
    if best is None:
        return f"no run that Completed has the metric {goal.name}"
    return ["best ", bold(f"{goal.name} {shown(best.metrics[goal.name])}"), f"  {label(best.values)}  ", best.run]


def count_line(rows: Sequence[SweepRow]) -> Line:
    """`5 of 8 finished  2 Running  1 Failed`."""
    counted = Counter(row.status for row in rows)
    done = sum(number for state, number in counted.items() if is_final(state))
    line: list[Cell] = [f"{done} of {len(rows)} finished"]
    for state in _ORDER:
        if counted[state] and (state is not RunState.COMPLETED or counted[state] < done):
            line += ["  ", Styled(f"{counted[state]} {state}", state_cell(state).style)]
    return line


def fitting(rows: Sequence[SweepRow], goal: Goal | None, room: int) -> Sequence[SweepRow]:
    """The rows that a screen has room for, in order: those that run now first, then the best, then the others."""
    if len(rows) <= room:
        return rows

    def key(row: SweepRow) -> tuple[bool, tuple[bool, float]]:
        return row.status != RunState.RUNNING, (True, 0.0) if goal is None else goal.rank(row.metrics)

    kept = {row.run for row in sorted(rows, key=key)[:room]}
    return [row for row in rows if row.run in kept]


class StatesSeen:
    """Which changes of runs were said already, where nothing is redrawn."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def lines(self, rows: Sequence[SweepRow], goal: Goal | None) -> list[Line]:
        found: list[Line] = []
        for row in rows:
            is_said = row.status == RunState.RUNNING or is_final(row.status)
            if is_said and self._said.get(row.run) != row.status:
                self._said[row.run] = row.status
                found.append(_said(row, goal))
        return found


def _said(row: SweepRow, goal: Goal | None) -> Line:
    metrics: Mapping[str, object] = row.metrics
    value = f"  {goal.name} {shown(metrics[goal.name])}" if goal is not None and goal.name in metrics else ""
    took = f" in {duration(row.took_s)}" if row.took_s is not None and is_final(row.status) else ""
    return ["run ", highlight(row.run), f"  {label(row.values)}  ", state_cell(row.status), f"{took}{value}"]
