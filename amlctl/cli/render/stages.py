"""The stages that are under way, and one line of text for each. Knows no terminal."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock

from amlctl.cli.render import quantities
from amlctl.cli.render.estimate import Estimator
from amlctl.cli.render.tables import cell_width, cut_path, printable
from amlctl.core.events import StageProgress

_BAR_CELLS = 20
_SUBJECT_CELLS = 12
"""A subject is cut down to this before other parts are left out."""


@dataclass
class StageState:
    """The latest event of a stage, and how fast it goes. Seconds are of the board's clock."""

    latest: StageProgress
    started_s: float
    estimator: Estimator = field(default_factory=Estimator)
    shown_s: float | None = None

    def line(self, now_s: float, width: int) -> str:
        """What is known of the stage in at most `width` cells; a bar where there is room for one."""
        event = self.latest
        fraction = self.fraction()
        parts = [_progress(event.done_files, event.total_files, "file")]
        if event.done_bytes or event.total_bytes:
            parts.append(_sizes(event.done_bytes, event.total_bytes))
        rate = self.estimator.rate(now_s)
        if rate is not None and event.done_bytes:
            parts.append(f"{quantities.size(rate)}/s")
        left_s = self._left_s(now_s)
        if left_s is not None:
            parts.append(f"{quantities.duration(max(1, round(left_s)))} left")
        if fraction is not None:
            parts.insert(0, f"{fraction:4.0%}")
        head = f"{event.stage.value:<8}"
        subject = printable(event.subject)
        text = "  ".join(parts)
        room = width - len(head) - len(text) - 2
        if fraction is not None and room >= _BAR_CELLS + 2 + max(_SUBJECT_CELLS, cell_width(subject)):
            filled = round(fraction * _BAR_CELLS)
            text = "━" * filled + "─" * (_BAR_CELLS - filled) + "  " + text
            room -= _BAR_CELLS + 2
        while room < min(_SUBJECT_CELLS, cell_width(subject)) and len(parts) > 1:
            dropped = parts.pop(0 if fraction is not None and len(parts) == 5 else 1)
            room += len(dropped) + 2
            text = "  ".join(parts)
        return f"{head}{cut_path(subject, max(room, 1))}  {text}"

    def fraction(self) -> float | None:
        """0 to 1, by bytes where there are any, never 1 before it is done; None while totals are unknown."""
        event = self.latest
        if event.total_bytes:
            share = event.done_bytes / event.total_bytes
        elif event.total_files:
            share = event.done_files / event.total_files
        else:
            return None
        return 1.0 if event.is_done else min(share, 0.99)

    def _left_s(self, now_s: float) -> float | None:
        event = self.latest
        if event.is_done or (event.total_files is None and event.total_bytes is None):
            return None
        left_files = max(0, (event.total_files or 0) - event.done_files)
        left_bytes = max(0, (event.total_bytes or 0) - event.done_bytes)
        return self.estimator.remaining_s(now_s, left_files, left_bytes)

    def summary(self, now_s: float) -> str:
        """What a finished stage did."""
        event = self.latest
        done = [quantities.count(event.done_files, "file")]
        if event.done_bytes:
            done.append(quantities.size(event.done_bytes))
        took = quantities.duration(now_s - self.started_s)
        return f"{event.stage.value:<8}{printable(event.subject)}  {', '.join(done)} in {took}"


def _progress(done: int, total: int | None, noun: str) -> str:
    return quantities.count(done, noun) if total is None else f"{done:,}/{quantities.count(total, noun)}"


def _sizes(done: int, total: int | None) -> str:
    return quantities.size(done) if total is None else f"{quantities.size(done)} of {quantities.size(total)}"


class StageBoard:
    """Stages by their latest event. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._stages: dict[tuple[str, str], StageState] = {}

    def update(self, event: StageProgress, now_s: float) -> StageState:
        """Take in an event. A finished stage leaves the board; its state is returned a last time."""
        key = (event.stage.value, event.subject)
        with self._lock:
            state = self._stages.setdefault(key, StageState(event, now_s))
            state.latest = event
            state.estimator.add(now_s, event.done_files, event.done_bytes)
            if event.is_done:
                del self._stages[key]
            return state

    def lines(self, now_s: float, width: int) -> list[str]:
        """One line for each stage that is under way, oldest first."""
        with self._lock:
            return [state.line(now_s, width) for state in self._stages.values()]

    def clear(self) -> None:
        with self._lock:
            self._stages.clear()
