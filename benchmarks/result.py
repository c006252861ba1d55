"""What a benchmark hands back: its rows, and the goals that they meet or miss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from measure import Command, Samples


@dataclass(frozen=True)
class Row:
    """A command and what was measured; no samples where its program is not installed."""

    label: str
    shown: str
    samples: Samples | None


@dataclass(frozen=True)
class Goal:
    """`measured` shall be at most (or at least) `limit`; None where it could not be measured."""

    text: str
    measured: float | None
    limit: float
    unit: str = "×"
    is_lower_bound: bool = False

    @property
    def is_met(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.is_lower_bound else self.measured <= self.limit


@dataclass(frozen=True)
class Result:
    """The first row is amlctl's; the others are compared with it."""

    name: str
    data: str
    rows: Sequence[Row]
    goals: Sequence[Goal]


def rows_of(commands: Sequence[Command], samples: Sequence[Samples], missing: Sequence[str] = ()) -> list[Row]:
    """`missing`: programs that are not installed; each gets a row that says so."""
    rows = [Row(command.label, command.shown, kept) for command, kept in zip(commands, samples, strict=True)]
    return rows + [Row(program, "", None) for program in missing]


def ratio(rows: Sequence[Row], of: str, to: str) -> float | None:
    """Median of the row `of` divided by that of the row `to`; None where one of them was not measured."""
    by_label = {row.label: row.samples for row in rows}
    one, other = by_label.get(of), by_label.get(to)
    return None if one is None or other is None else one.median_s / other.median_s
