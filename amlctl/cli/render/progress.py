"""Progress of stages, and waits for services, on stderr: a live region on a terminal, a line now and then elsewhere.

Events arrive as often as something happens; only what is shown here is throttled. A finished stage leaves one lasting
line if it took long enough to be of interest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock, Timer, current_thread
from typing import TYPE_CHECKING, TextIO

from amlctl.cli.render.tables import duration, printable
from amlctl.core.estimate import Estimate
from amlctl.core.events import NOTEWORTHY_S, Stage, StageProgress
from amlctl.core.message import count, size

if TYPE_CHECKING:
    from amlctl.cli.render.live import Region

LINE_INTERVAL_S = 5.0
"""Without a terminal a stage shows a line at most this often; so does a wait, of which dozens may begin at once."""

LIVE_DELAY_S = 0.3
"""Quick commands end before anything is drawn, and without importing rich."""

_OPEN_ENDED_S = 6.0
"""How long a wait is shown that may end early: while it lasts, the next event about it comes before."""


class StageState:
    """The latest event of a stage; times are seconds of the monotonic clock."""

    def __init__(self, latest: StageProgress, started_s: float) -> None:
        self.latest = latest
        self.started_s = self.shown_s = started_s
        self._estimate = Estimate(started_s)

    def note(self, now_s: float) -> None:
        """Remember how far the stage is, for rate and time left. Call it often, also while nothing moves."""
        self._estimate.note(now_s, self.latest.done_bytes, self.latest.done_values)

    @property
    def name(self) -> str:
        return f"{self.latest.stage.value:<6}"

    @property
    def share(self) -> float | None:
        """By bytes if there are any; None while totals are unknown."""
        event = self.latest
        done, total = (
            (event.done_bytes, event.total_bytes) if event.total_bytes else (event.done_files, event.total_files)
        )
        return done / total if total else None

    @property
    def percent(self) -> str:
        """Not 100% before the stage is done; empty while totals are unknown."""
        return "" if self.share is None else f"{min(self.share, 0.99):.0%}"

    @property
    def files(self) -> str:
        done, total = self.latest.done_files, self.latest.total_files
        return count(done, "file") if total is None else f"{done:,}/{count(total, 'file')}"

    @property
    def bytes(self) -> str:
        done, total = self.latest.done_bytes, self.latest.total_bytes
        if not done and not total:
            return ""
        return size(done) if total is None else f"{size(done)} of {size(total)}"

    def rate(self, now_s: float) -> str:
        """Of the last seconds; empty for a stage that counts files only."""
        rate = self._estimate.rate(now_s) if self.latest.done_bytes else None
        return "" if rate is None else f"{size(round(rate))}/s"

    def left(self, now_s: float) -> str:
        """Time left; empty while unknown."""
        event = self.latest
        if not event.total_bytes:
            return ""
        left_s = self._estimate.left_s(now_s, event.total_bytes, event.total_values)
        return "" if left_s is None else f"{duration(max(1, round(left_s)))} left"

    def line(self, now_s: float) -> str:
        """How far the stage is, for a file or a pipe."""
        parts = [f"{self.name}  {printable(self.latest.subject)}", self.percent, self.files, self.bytes]
        return "  ".join(part for part in (*parts, self.rate(now_s), self.left(now_s)) if part)

    def summary(self, now_s: float) -> str:
        """What a finished stage did."""
        done = [count(self.latest.done_files, "file")]
        if self.latest.done_bytes:
            done.append(size(self.latest.done_bytes))
        took = duration(now_s - self.started_s)
        return f"{self.name}  {printable(self.latest.subject)}  {', '.join(done)} in {took}"


@dataclass(frozen=True)
class Wait:
    """Why the command waits for `service`, and for how long; `is_open_ended`: it may end earlier."""

    service: str
    reason: str
    wait_s: float
    is_open_ended: bool = False

    def line(self, passed_s: float) -> str:
        left_s = max(self.wait_s - passed_s, 0)
        return f"{self.service}: {self.reason} in {left_s:.{0 if left_s >= 1 else 1}f} s"

    @property
    def shown_s(self) -> float:
        return min(self.wait_s, _OPEN_ENDED_S) if self.is_open_ended else self.wait_s


class Progress:
    """Lines for a file or a pipe. Thread-safe; never raises. `write` puts a line on stderr and does not raise."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._lock = Lock()
        self.stages: dict[tuple[str, str], StageState] = {}
        self.is_closed = False

    def update(self, event: StageProgress) -> None:
        """Take in how far a stage is. A finished one is forgotten."""
        key = (event.stage.value, event.subject)
        state = self.stages.get(key)
        if self.is_closed:  # a thread that ends late must not draw over the result
            return
        if state is None:
            now_s = time.monotonic()
            state = self.stages.setdefault(key, StageState(event, now_s))
        state.latest = event
        if event.is_done:
            self._finish(key, state, time.monotonic())
        else:
            self._show(state)

    def _finish(self, key: tuple[str, str], state: StageState, now_s: float) -> None:
        self.stages.pop(key, None)
        if self.feeds_another(state):
            return
        if now_s - state.started_s >= NOTEWORTHY_S or state.shown_s > state.started_s:
            self.write_line(state.summary(now_s))

    def feeds_another(self, state: StageState) -> bool:
        """Whether a later stage of the same files is shown already, which hashing then waits for."""
        event = state.latest
        return event.stage is Stage.HASH and (Stage.SEND.value, event.subject) in self.stages

    def _show(self, state: StageState) -> None:
        now_s = time.monotonic()
        state.note(now_s)
        if self.feeds_another(state):
            return
        if now_s - state.shown_s >= LINE_INTERVAL_S:
            with self._lock:  # one of the threads writes the line
                before, state.shown_s = state.shown_s, now_s
            if now_s - before >= LINE_INTERVAL_S:
                self._write(state.line(now_s))

    def tool_said(self, line: str) -> None:
        """Show the latest line of a tool, where a line can be drawn again."""

    def write_line(self, line: str) -> None:
        """Write a message where it does not disturb what is drawn."""
        self._write(line)

    def pause(self) -> None:
        """Draw nothing until the next event: something else needs the terminal."""
        self.stages.clear()


class LiveProgress(Progress):
    """A region at the bottom of the terminal that rich redraws a few times a second."""

    def __init__(self, write: Callable[[str], None], stream: TextIO, *, has_color: bool) -> None:
        super().__init__(write)
        self._stream = stream
        self._has_color = has_color
        self._waiting: dict[str, tuple[float, Wait]] = {}
        self._timer: Timer | None = None
        self._region: Region | None = None
        self.tool_line = ""

    def _show(self, state: StageState) -> None:
        self._start_soon()

    def wait(self, wait: Wait) -> None:
        """Show what the command waits for."""
        self._waiting[wait.service] = time.monotonic(), wait
        self._start_soon()

    def wait_lines(self) -> Iterator[str]:
        """What the command waits for now."""
        now_s = time.monotonic()
        for since_s, wait in list(self._waiting.values()):
            if now_s - since_s > wait.shown_s:
                self._waiting.pop(wait.service, None)
            else:
                yield wait.line(now_s - since_s)

    def tool_said(self, line: str) -> None:
        self.tool_line = printable(line)
        self._start_soon()

    def _start_soon(self) -> None:
        if self._timer is None:
            with self._lock:
                if self._timer is None:
                    self._timer = Timer(LIVE_DELAY_S, self._start)
                    self._timer.daemon = True
                    self._timer.start()

    def _start(self) -> None:
        from amlctl.cli.render.live import Region

        region = Region(self, self._stream, has_color=self._has_color)
        with self._lock:
            if self._timer is current_thread() and not self.is_closed:  # not paused meanwhile
                region.start()
                self._region = region

    def write_line(self, line: str) -> None:
        self.tool_line = ""
        if not self.stages and not self._waiting:
            self.pause()
        with self._lock:
            if self._region is None:
                self._write(line)
            else:
                self._region.print_line(line)

    def pause(self) -> None:
        with self._lock:
            timer, self._timer = self._timer, None
            region, self._region = self._region, None
        if timer is not None:
            timer.cancel()
        if region is not None:
            with suppress(OSError):  # the terminal was closed
                region.stop()
        self.stages.clear()
        self._waiting.clear()
        self.tool_line = ""
