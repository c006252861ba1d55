"""A run's log on its way to the user: as written on a terminal, with progress bars collapsed elsewhere.

Everywhere it passes the filter of `core.terminal_text`, also into a pipe: `| less -R`, `| tee` and `| cat` end at a
terminal as well. `logs --raw` turns the filter off.
"""

from __future__ import annotations

from typing import BinaryIO

from amlctl.core.log_text import CarriageReturnCollapser
from amlctl.core.terminal_text import TerminalFilter


class LogWriter:
    """Writes pieces of a log to `stream`. A reader that went away is no error: the rest is dropped."""

    def __init__(self, stream: BinaryIO, *, is_terminal: bool, is_raw: bool = False) -> None:
        self._stream = stream
        self._is_terminal = is_terminal
        self._collapser = None if is_terminal or is_raw else CarriageReturnCollapser()
        self._filter = None if is_raw else TerminalFilter()
        self._is_open = True
        self._last = b"\n"

    def write(self, text: str) -> None:
        data = (self._filter.feed(text) if self._filter else text).encode("utf-8", "backslashreplace")
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
