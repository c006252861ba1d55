"""Progress of stages, and waits for services, on stderr: a live region on a terminal, a line now and then elsewhere.

Both show a finished stage by one lasting line if it took long enough to be of interest. `write_line` puts a
line on stderr; it must not raise.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from threading import Lock, Timer
from typing import TYPE_CHECKING, Protocol, TextIO

from amlctl.cli.render.stages import StageBoard, Wait
from amlctl.core.events import StageProgress

if TYPE_CHECKING:
    from rich.live import Live

NOTEWORTHY_S = 2.0
"""A stage shorter than this leaves no line."""

LINE_INTERVAL_S = 5.0
"""Without a terminal a stage shows a line at most this often."""

LIVE_DELAY_S = 0.3
"""Quick commands end before anything is drawn, and without importing rich."""

FRAMES_PER_SECOND = 8


class Progress(Protocol):
    """Takes the events of stages. Thread-safe; never raises."""

    def update(self, event: StageProgress) -> None: ...

    def wait(self, wait: Wait) -> None: ...

    def write_line(self, line: str) -> None:
        """Put a message where it does not disturb what is drawn."""
        ...

    def pause(self) -> None:
        """Draw nothing until the next event: somebody else needs the terminal."""
        ...


class NowAndThen:
    """Lets a line through at most every `LINE_INTERVAL_S`: dozens of requests may fail at the same time."""

    def __init__(self) -> None:
        self._last_s = float("-inf")

    def is_due(self) -> bool:
        now_s = time.monotonic()
        if now_s - self._last_s < LINE_INTERVAL_S:
            return False
        self._last_s = now_s
        return True


class PlainProgress:
    """Lines for a file or a pipe."""

    def __init__(self, write_line: Callable[[str], None]) -> None:
        self._write_line = write_line
        self._board = StageBoard()
        self._waits = NowAndThen()
        self._lock = Lock()

    def wait(self, wait: Wait) -> None:
        with self._lock:
            if self._waits.is_due():
                self._write_line(wait.line(0.0))

    def update(self, event: StageProgress) -> None:
        now_s = time.monotonic()
        state = self._board.update(event, now_s)
        with self._lock:
            if event.is_done:
                if state.shown_s is not None or now_s - state.started_s >= NOTEWORTHY_S:
                    self._write_line(state.summary(now_s))
                return
            if now_s - (state.started_s if state.shown_s is None else state.shown_s) < LINE_INTERVAL_S:
                return
            state.shown_s = now_s
            self._write_line(state.line(now_s, 100))

    def write_line(self, line: str) -> None:
        self._write_line(line)

    def pause(self) -> None:
        self._board.clear()


class LiveProgress:
    """A region at the bottom of the terminal that is redrawn a few times a second."""

    def __init__(self, stream: TextIO, write_line: Callable[[str], None], *, has_colour: bool) -> None:
        self._stream = stream
        self._write_line = write_line
        self._has_colour = has_colour
        self._board = StageBoard()
        self._lock = Lock()
        self._timer: Timer | None = None
        self._live: Live | None = None

    def update(self, event: StageProgress) -> None:
        now_s = time.monotonic()
        state = self._board.update(event, now_s)
        if event.is_done:
            if now_s - state.started_s >= NOTEWORTHY_S:
                self.write_line(state.summary(now_s))
        else:
            self._start_soon()

    def wait(self, wait: Wait) -> None:
        self._board.wait(wait, time.monotonic())
        self._start_soon()

    def _start_soon(self) -> None:
        if self._timer is None:
            with self._lock:
                if self._timer is None:
                    self._timer = Timer(LIVE_DELAY_S, self._start)
                    self._timer.daemon = True
                    self._timer.start()

    def _start(self) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        console = Console(file=self._stream, no_color=not self._has_colour, highlight=False, soft_wrap=True)

        def region() -> Text:
            lines = self._board.lines(time.monotonic(), console.width - 1)
            text = Text("\n".join(lines), no_wrap=True, overflow="crop", end="")
            text.highlight_regex(r"(?m)^\w+", "cyan")
            text.highlight_regex("━+", "green")
            text.highlight_regex("─+", "dim")
            return text

        live = Live(
            get_renderable=region,
            console=console,
            refresh_per_second=FRAMES_PER_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        with self._lock:
            if self._timer is None:  # paused meanwhile
                return
            live.start()
            self._live = live

    def write_line(self, line: str) -> None:
        if self._board.is_empty:
            self.pause()
        with self._lock:
            if self._live is None:
                self._write_line(line)
                return
            from rich.text import Text

            self._live.console.print(Text.from_ansi(line), soft_wrap=True)

    def pause(self) -> None:
        with self._lock:
            timer, self._timer = self._timer, None
            live, self._live = self._live, None
        if timer is not None:
            timer.cancel()
        if live is not None:
            with suppress(OSError):  # a terminal that was closed
                live.stop()
        self._board.clear()


class NoProgress:
    """For `--quiet`: messages pass, stages do not show."""

    def __init__(self, write_line: Callable[[str], None]) -> None:
        self._write_line = write_line

    def update(self, event: StageProgress) -> None:
        pass

    def wait(self, wait: Wait) -> None:
        pass

    def write_line(self, line: str) -> None:
        self._write_line(line)

    def pause(self) -> None:
        pass
