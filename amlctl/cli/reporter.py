"""The event sink of the command line: which event is shown to this user, and when.

While a log is on the screen nothing is drawn over it: stages are silent from the first piece of a log until
its run has finished. All methods are thread-safe and never raise.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, BinaryIO

from amlctl.cli.output import Output
from amlctl.cli.render.progress import LINE_INTERVAL_S, LiveProgress, Progress, Wait
from amlctl.cli.render.tables import Line, bold, dim, highlight, linked, painted, printable, warning
from amlctl.core.events import (
    Event,
    LogText,
    Note,
    Retried,
    RunCreated,
    RunPageKnown,
    RunStateChanged,
    RunWatched,
    SnapshotCommitted,
    Stage,
    StageProgress,
    SweepWatched,
    ToolSaid,
    Unanswered,
    Warned,
)
from amlctl.core.log_text import CarriageReturnCollapser, TerminalFilter
from amlctl.core.run_state import is_final

if TYPE_CHECKING:
    from amlctl.cli.render.run_screen import RunScreen


_MOVES = {Stage.SEND: "sent", Stage.RECEIVE: "received"}


class Reporter:
    """Callable with any event. `close` before a result or an error is printed."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._is_quiet = output.options.is_quiet
        self._lock = RLock()
        self._is_log_open = False
        self._log_is_terminal = output.err_is_terminal if output.options.is_json else output.out_is_terminal
        self._shares_screen = self._log_is_terminal and output.err_is_terminal
        self._log = self._make_log(is_raw=False)
        self._progress = self._make_progress()
        self._wait_said_s = float("-inf")
        self._screen: RunScreen | None = None
        self._shown_states: dict[str, str] = {}
        self.has_run = False
        """A run exists: how to continue is for its own messages to say."""
        self.open_page: Callable[[str], object] | None = None
        """Called once, with the page of the run that is followed."""

    def _make_log(self, *, is_raw: bool) -> _LogWriter:
        is_json = self._output.options.is_json
        stream = sys.stderr.buffer if is_json else sys.stdout.buffer
        has_links = self._output.out_has_links and not is_json
        return _LogWriter(stream, is_terminal=self._log_is_terminal, is_raw=is_raw, has_links=has_links)

    def _make_progress(self) -> Progress:
        write = self._output.write_text
        if self._output.can_redraw:
            return LiveProgress(write, sys.stderr, has_color=self._output.err_has_color)
        return Progress(write)

    def __call__(self, event: Event) -> None:
        if isinstance(event, StageProgress):  # without the lock: there are thousands a second
            if not self._is_log_open and not self._is_quiet:
                self._progress.update(event)
        elif isinstance(event, ToolSaid):
            if not self._is_quiet and not self._output.options.is_verbose:
                self._progress.tool_said(event.line)
            else:
                self._show(event)
        elif isinstance(event, (RunWatched, SweepWatched)):
            with self._lock:
                if isinstance(event, RunWatched) or self._output.shows_runs:
                    self._watched().show(event)
                else:
                    self._show_sweep(event)
        elif isinstance(event, (Retried, Unanswered)):
            self._show_wait(event)
        elif isinstance(event, LogText):
            with self._lock:
                if not self._is_log_open:
                    self._is_log_open = True
                    self._progress.pause()
                if self._screen is not None and self._shares_screen:
                    self._screen.write_log(self._log.filtered(event.text))
                else:
                    self._log.write(event.text)
        else:
            self._show(event)

    def _show_wait(self, event: Retried | Unanswered) -> None:
        is_verbose = self._output.options.is_verbose
        if isinstance(event, Unanswered):
            reason, wait_s = f"no response for {event.waited_s:.0f} s, giving up", event.limit_s - event.waited_s
        else:
            reason = f"{self._output.commands.in_words(event.reason)}, retry {event.attempt} of {event.most}"
            wait_s = event.wait_s
        if self._is_quiet or not (isinstance(event, Unanswered) or event.is_noteworthy or is_verbose):
            return
        wait = Wait(event.name, printable(reason), wait_s, is_open_ended=isinstance(event, Unanswered))
        with self._lock:
            now_s = time.monotonic()
            if isinstance(self._progress, LiveProgress) and not is_verbose and not self._is_log_open:
                self._progress.wait(wait)
            elif is_verbose or now_s - self._wait_said_s >= LINE_INTERVAL_S:
                self._wait_said_s = now_s
                self._write_line(wait.line(0.0))

    def _show_sweep(self, event: SweepWatched) -> None:
        from amlctl.cli.render.run_text import changed_states

        for line in changed_states(event.rows, event.goal, self._shown_states):
            if not self._is_quiet:
                self._write_line(line)

    def _watched(self) -> RunScreen:
        if self._screen is None:
            from amlctl.cli.render.run_screen import RunScreen

            self._progress.pause()
            self._log.end_line()
            self._screen = RunScreen(sys.stderr, has_color=self._output.err_has_color)
            self._screen.start()
        return self._screen

    def _end_screen(self) -> None:
        if self._screen is not None:
            self._screen.stop()
            self._screen = None

    def _show(self, event: Event) -> None:
        self.has_run = self.has_run or isinstance(event, RunCreated)
        if isinstance(event, RunPageKnown) and self.open_page is not None:
            self.open_page(event.url)
            self.open_page = None
        with self._lock:
            line = self._line(event)
            if isinstance(event, RunStateChanged) and is_final(event.state):
                self._end_screen()
                self._log.end_line()
                self._is_log_open = False
            if line is not None:
                self._write_line(line)

    def _write_line(self, line: Line) -> None:
        if self._screen is not None:
            self._screen.write_line(self._output.painted(line))
            return
        if self._is_log_open and self._shares_screen:
            self._log.end_line()
        self._progress.write_line(self._output.painted(line))

    def _line(self, event: Event) -> Line | None:
        """The event in words, or None if it is not worth a line to this user."""
        options = self._output.options
        if isinstance(event, Warned):
            return [warning("warning:"), " ", event.message]
        if self._is_quiet:
            return None
        if isinstance(event, Note):
            return event.message
        if isinstance(event, ToolSaid):
            return event.line
        if isinstance(event, RunCreated):
            return ["run ", highlight(event.run)]
        if isinstance(event, RunPageKnown):
            return [dim("Studio:"), " ", event.url]
        if isinstance(event, RunStateChanged):
            if is_final(event.state) or self._screen is not None:
                return None  # the result says how it ended, and the screen what it does now
            return [dim("run is"), " ", bold(event.state), f": {event.reason}" if event.reason else ""]
        if isinstance(event, SnapshotCommitted) and options.is_verbose:
            return f"{event.dataset} is at snapshot {event.snapshot}"
        return None

    @property
    def shows_run_id(self) -> bool:
        """Whether a result can do without it."""
        return self.has_run and self._shares_screen and not self._is_quiet

    @property
    def moved(self) -> str:
        """How far the present transfer is, as the beginning of a sentence; empty without one."""
        for state in list(self._progress.stages.values()):
            if state.latest.stage in _MOVES and state.latest.done_bytes:
                return f"{state.bytes} {_MOVES[state.latest.stage]}: "
        return ""

    def show_raw_log(self) -> None:
        """From now on write the log as it is, with everything it does to a terminal."""
        self._log = self._make_log(is_raw=True)

    def close(self) -> None:
        """Draw no more progress, and complete the log's last line."""
        with self._lock:
            self._progress.is_closed = True
            self.pause()

    def pause(self) -> None:
        """Draw nothing until the next event, and complete the log's last line."""
        with self._lock:
            self._progress.pause()
            self._end_screen()
            self._log.end_line()
            self._is_log_open = False


_TRACED = re.compile(r'(?<=File ")[^"\n]+(?=", line \d)')
"""Paths in a traceback."""


def _linked_path(found: re.Match[str]) -> str:
    """Of a file of this machine; what stands in a log may be of another one, or nothing that this user may look at."""
    path = Path(found[0]).absolute()
    is_here = os.path.isfile(path)
    return painted([linked(found[0], path)], str, has_color=False, has_links=True) if is_here else found[0]


class _LogWriter:
    """A run's log on its way to `stream`: as written on a terminal, with progress bars collapsed elsewhere. If the
    reader goes away, the rest is dropped. `has_links`: paths in tracebacks lead to the code.

    A pipe gets the filter of `core.log_text` as well, since `| less -R` and `| tee` end at a terminal;
    `logs --raw` turns it off.
    """

    def __init__(self, stream: BinaryIO, *, is_terminal: bool, is_raw: bool, has_links: bool) -> None:
        self._stream = stream
        self._is_terminal = is_terminal
        self._has_links = has_links and not is_raw
        self._collapser = None if is_terminal or is_raw else CarriageReturnCollapser()
        self._filter = None if is_raw else TerminalFilter()
        self._is_open = True
        self._last = b"\n"

    def filtered(self, text: str) -> str:
        """What of a piece of the log may be shown."""
        shown = self._filter.feed(text) if self._filter else text
        return _TRACED.sub(_linked_path, shown) if self._has_links and 'File "' in shown else shown

    def write(self, text: str) -> None:
        data = self.filtered(text).encode("utf-8", "backslashreplace")
        self._put(self._collapser.feed(data) if self._collapser else data)

    def end_line(self) -> None:
        """Finish a line that the log left open, and its color, so that other words can follow."""
        if self._filter and self._is_terminal:
            self._put(self._filter.end().encode(), is_text=False)
        if self._collapser:
            self._put(self._collapser.flush())
        if self._last != b"\n":
            self._put(b"\n")

    def _put(self, data: bytes, *, is_text: bool = True) -> None:
        if not data or not self._is_open:
            return
        if is_text:
            self._last = data[-1:]
        try:
            self._stream.write(data)
            self._stream.flush()
        except (OSError, ValueError):
            self._is_open = False
