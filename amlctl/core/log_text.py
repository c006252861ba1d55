"""Logs as a terminal would show them in the end: of a line that was written over, only what came last.

A progress bar writes `\\r` and the line anew. A carriage return before a line feed (also several) only ends the
line. Bytes, not text: a log may hold any encoding, and `\\r` and `\\n` are the same byte in all that matter.
"""

from __future__ import annotations


class CarriageReturnCollapser:
    """Incremental: how the log is cut into pieces makes no difference. Not thread-safe.

    What a program writes after a lone `\\r` replaces the line from its beginning; a shorter text leaves no rest
    of the longer one, since progress bars pad with blanks and those are all that would be left.
    """

    def __init__(self) -> None:
        self._line = bytearray()
        self._returned = False

    def feed(self, data: bytes) -> bytes:
        """The lines that `data` completes, each with its `\\n`."""
        done = bytearray()
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._write_over(line)
            done += self._line
            done += b"\n"
            self._line.clear()
            self._returned = False
        self._write_over(rest)
        return bytes(done)

    @property
    def pending(self) -> bytes:
        """The line that is not complete yet, as it looks now."""
        return bytes(self._line)

    def flush(self) -> bytes:
        """The last line if no line feed ended it; the collapser is as new afterwards."""
        rest = bytes(self._line)
        self._line.clear()
        self._returned = False
        return rest

    def _write_over(self, text: bytes) -> None:
        first, *later = text.split(b"\r")
        self._append(first)
        for part in later:
            self._returned = True
            self._append(part)

    def _append(self, part: bytes) -> None:
        if not part:
            return
        if self._returned:
            self._line.clear()
            self._returned = False
        self._line += part


def tail_lines(data: bytes, count: int) -> bytes:
    """The last `count` lines; a last line without a line feed counts as one."""
    if count <= 0:
        return b""
    end = len(data) - 1 if data.endswith(b"\n") else len(data)
    for _ in range(count):
        end = data.rfind(b"\n", 0, end)
        if end < 0:
            return data
    return data[end + 1 :]
