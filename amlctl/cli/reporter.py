"""The event sink of the command line: who wants to know what, and when.

While a log is on the screen nothing is drawn over it: stages are silent from the first piece of a log until
its run has ended. All methods are thread-safe and never raise.
"""

from __future__ import annotations

import sys
from threading import RLock

from amlctl.cli.output import Output
from amlctl.cli.render.log import LogWriter
from amlctl.cli.render.progress import LiveProgress, NoProgress, NowAndThen, PlainProgress, Progress
from amlctl.cli.render.stages import Wait
from amlctl.cli.render.tables import printable
from amlctl.core.events import (
    Event,
    LogText,
    Note,
    Retried,
    RunCreated,
    RunStateChanged,
    SnapshotCommitted,
    StageProgress,
    Unanswered,
    Warned,
)
from amlctl.core.run_state import is_final
from amlctl.core.secret_names import masked


class Reporter:
    """Callable with any event. `close` before a result or an error is printed."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._style = output.err_style
        self._lock = RLock()
        self._is_log_open = False
        self._is_closed = False
        self._log_is_terminal = output.err_is_terminal if output.options.is_json else output.out_is_terminal
        self._shares_screen = self._log_is_terminal and output.err_is_terminal
        self._log = self._make_log(is_raw=False)
        self._progress = self._make_progress()
        self._waits = NowAndThen()

    def _make_log(self, *, is_raw: bool) -> LogWriter:
        stream = sys.stderr.buffer if self._output.options.is_json else sys.stdout.buffer
        return LogWriter(stream, is_terminal=self._log_is_terminal, is_raw=is_raw)

    def _make_progress(self) -> Progress:
        write_line = self._output.write_line
        if self._output.options.is_quiet:
            return NoProgress(write_line)
        if self._output.can_redraw:
            return LiveProgress(sys.stderr, write_line, has_colour=self._style.is_coloured)
        return PlainProgress(write_line)

    def __call__(self, event: Event) -> None:
        if isinstance(event, StageProgress):
            with self._lock:  # a thread that ends late must not draw over the result
                if not self._is_log_open and not self._is_closed:
                    self._progress.update(event)
            return
        if isinstance(event, (Retried, Unanswered)):
            self._tell_wait(event)
            return
        with self._lock:
            if isinstance(event, LogText):
                self._tell_log(event)
            else:
                self._tell(event)

    def _tell_wait(self, event: Retried | Unanswered) -> None:
        options = self._output.options
        if isinstance(event, Unanswered):
            reason, wait_s = f"no answer for {event.waited_s:.0f} s, attempt ends", event.limit_s - event.waited_s
        else:
            reason, wait_s = f"{event.reason}, retry {event.attempt} of {event.most}", event.wait_s
            if not event.is_noteworthy and not options.is_verbose:
                return
        if options.is_quiet:
            return
        wait = Wait(event.name, printable(reason), wait_s, is_open_ended=isinstance(event, Unanswered))
        with self._lock:
            if not options.is_verbose and not self._is_log_open:
                self._progress.wait(wait)
            elif options.is_verbose or self._waits.is_due():
                self._write_line(wait.line(0.0))

    def _tell_log(self, event: LogText) -> None:
        if not self._is_log_open:
            self._is_log_open = True
            self._progress.pause()
        self._log.write(event.text)

    def _tell(self, event: Event) -> None:
        line = self._line(event)
        if isinstance(event, RunStateChanged) and is_final(event.state):
            self._log.end_line()
            self._is_log_open = False
        if line is not None:
            self._write_line(line)

    def _write_line(self, line: str) -> None:
        if self._is_log_open and self._shares_screen:
            self._log.end_line()
        self._progress.write_line(self._style.safe(masked(line)))

    def _line(self, event: Event) -> str | None:
        """The event in words, or None where it is not worth a line to this user."""
        options, style = self._output.options, self._style
        if isinstance(event, Warned):
            return f"{style.warning('warning:')} {printable(self._output.commands.in_words(event.message))}"
        if options.is_quiet:
            return None
        if isinstance(event, Note):
            return printable(self._output.commands.in_words(event.message))
        if isinstance(event, RunCreated):
            return f"run {style.name(event.run)}"
        if isinstance(event, RunStateChanged):
            reason = f": {printable(event.reason)}" if event.reason else ""
            return f"{style.dim('run is')} {_state(event.state, self._output)}{reason}"
        if isinstance(event, SnapshotCommitted) and options.is_verbose:
            return f"{printable(event.dataset)} is at snapshot {event.snapshot}"
        return None

    def show_raw_log(self) -> None:
        """From now on a log is written as it is, with all that it does to a terminal."""
        self._log = self._make_log(is_raw=True)

    def close(self) -> None:
        """No progress is drawn any more, and the log's last line is complete."""
        with self._lock:
            self._is_closed = True
            self.pause()

    def pause(self) -> None:
        """Nothing is drawn until the next event, and the log's last line is complete."""
        with self._lock:
            self._progress.pause()
            self._log.end_line()
            self._is_log_open = False


def _state(state: str, output: Output) -> str:
    style = output.err_style
    paint = {"Completed": style.good, "Failed": style.bad, "Canceled": style.warning}.get(state, style.bold)
    return paint(state)
