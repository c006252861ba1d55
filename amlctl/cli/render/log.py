"""A run's log on its way to the user: as written on a terminal, collapsed elsewhere."""

from __future__ import annotations

from typing import BinaryIO

from amlctl.core.log_text import CarriageReturnCollapser


class LogWriter:
    """Writes pieces of a log to `stream`. A reader that went away is no error: the rest is dropped."""

    def __init__(self, stream: BinaryIO, *, is_terminal: bool) -> None:
        self._stream = stream
        self._collapser = None if is_terminal else CarriageReturnCollapser()
        self._is_open = True
        self._last = b"\n"

    def write(self, text: str) -> None:
        data = text.encode("utf-8", "backslashreplace")
        self._put(self._collapser.feed(data) if self._collapser else data)

    def end_line(self) -> None:
        """Finish a line that the log left open, so that other words can follow."""
        if self._collapser:
            self._put(self._collapser.flush())
        if self._last != b"\n":
            self._put(b"\n")

    def _put(self, data: bytes) -> None:
        if not data or not self._is_open:
            return
        self._last = data[-1:]
        try:
            self._stream.write(data)
            self._stream.flush()
        except (OSError, ValueError):
            self._is_open = False
