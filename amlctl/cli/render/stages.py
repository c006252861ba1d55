"""The stages that are under way, and one line of text for each. Knows no terminal."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock

from amlctl.cli.render import quantities
from amlctl.cli.render.estimate import Estimator
from amlctl.cli.render.tables import cell_width, cut_path, printable
from amlctl.core.events import StageProgress
from amlctl.core.wording import count

_HEAD_CELLS = 8
_BAR_CELLS = 20
_SUBJECT_CELLS = 12
"""A subject is cut down to this before other parts are left out."""

_DROPPED_FIRST = ("bytes", "rate", "files", "left")
"""What is left out on a narrow screen, in this order."""


@dataclass
class StageState:
    """The latest event of a stage, and how fast it goes. Seconds are of the board's clock."""

    latest: StageProgress
    started_s: float
    estimator: Estimator = field(default_factory=Estimator)
    shown_s: float | None = None

    def line(self, now_s: float, width: int) -> str:
        """What is known of the stage in at most `width` cells; a bar where there is room for one."""
        head = f"{self.latest.stage.value:<{_HEAD_CELLS}}"
        subject = printable(self.latest.subject)
        parts = self._parts(now_s)
        needed = len(head) + min(_SUBJECT_CELLS, cell_width(subject))
        for part in _DROPPED_FIRST:
            if needed + _cells(parts) > width:
                parts.pop(part, None)
        room = width - len(head) - _cells(parts)
        fraction = self.fraction()
        bar = ""
        if fraction is not None and room >= cell_width(subject) + _BAR_CELLS + 2:
            filled = round(fraction * _BAR_CELLS)
            bar = "  " + "━" * filled + "─" * (_BAR_CELLS - filled)
        words = "".join(f"  {part}" for part in parts.values())
        return f"{head}{cut_path(subject, max(room, 1))}{bar}{words}"

    def _parts(self, now_s: float) -> dict[str, str]:
        event = self.latest
        parts = {}
        fraction = self.fraction()
        if fraction is not None:
            parts["percent"] = f"{fraction:3.0%}"
        parts["files"] = _counts(event.done_files, event.total_files)
        if event.done_bytes or event.total_bytes:
            parts["bytes"] = _sizes(event.done_bytes, event.total_bytes)
        rate = self.estimator.rate(now_s)
        if rate is not None and event.done_bytes:
            parts["rate"] = f"{quantities.size(rate)}/s"
        left_s = self._left_s(now_s)
        if left_s is not None:
            parts["left"] = f"{quantities.time_left(left_s)} left"
        return parts

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
        done = [count(event.done_files, "file")]
        if event.done_bytes:
            done.append(quantities.size(event.done_bytes))
        took = quantities.duration(now_s - self.started_s)
        return f"{event.stage.value:<8}{printable(event.subject)}  {', '.join(done)} in {took}"


def _cells(parts: dict[str, str]) -> int:
    """Cells of all parts, each with the gap before it."""
    return sum(len(part) + 2 for part in parts.values())


def _counts(done: int, total: int | None) -> str:
    return count(done, "file") if total is None else f"{done:,}/{count(total, 'file')}"


def _sizes(done: int, total: int | None) -> str:
    return quantities.size(done) if total is None else f"{quantities.size(done)} of {quantities.size(total)}"


_OPEN_ENDED_S = 6.0
"""A wait that may end earlier is shown this long: while it lasts, the next event about it comes before."""


@dataclass(frozen=True)
class Wait:
    """Why `service` is waited for, and how long from its event on; `is_open_ended`: it may end earlier."""

    service: str
    reason: str
    wait_s: float
    is_open_ended: bool = False

    def line(self, passed_s: float) -> str:
        left_s = max(self.wait_s - passed_s, 0)
        return f"{self.service}: {self.reason} in {left_s:.{0 if left_s >= 1 else 1}f} s"


class StageBoard:
    """Stages by their latest event, and what is waited for. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._stages: dict[tuple[str, str], StageState] = {}
        self._waits: dict[str, tuple[float, Wait]] = {}

    def wait(self, wait: Wait, now_s: float) -> None:
        """Show it in place of an earlier one for the same service."""
        with self._lock:
            self._waits[wait.service] = now_s, wait

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
        """One line for each stage that is under way, oldest first; then what is waited for."""
        with self._lock:
            lines = [state.line(now_s, width) for state in self._stages.values()]
            for since_s, wait in list(self._waits.values()):
                if now_s - since_s > (min(wait.wait_s, _OPEN_ENDED_S) if wait.is_open_ended else wait.wait_s):
                    del self._waits[wait.service]
                else:
                    lines.append(cut_path(f"{'wait':<{_HEAD_CELLS}}{wait.line(now_s - since_s)}", width))
            return lines

    @property
    def is_empty(self) -> bool:
        return not self._stages and not self._waits

    def clear(self) -> None:
        with self._lock:
            self._stages.clear()
            self._waits.clear()
