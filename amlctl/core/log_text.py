"""Logs as a terminal would show them in the end: of a line that was written over, only what came last.

A progress bar writes `\\r` and the line again. A carriage return before a line feed (also several) only ends the
line. Bytes, not text: a log may hold any encoding, and `\\r` and `\\n` are the same byte in all that matter.
"""

from __future__ import annotations

LONGEST_LINE = 1 << 20
"""Bytes of one line that are held, in case a carriage return comes; of a longer line the beginning stays."""


class CarriageReturnCollapser:
    """Incremental: how the log is cut into pieces makes no difference. Not thread-safe.

    What a program writes after a lone `\\r` replaces the line from its beginning; a shorter text leaves no rest
    of the longer one, since progress bars pad with blanks and those are all that would be left.
    """

    def __init__(self) -> None:
        self._line = bytearray()
        self._done = bytearray()
        self._returned = False

    def feed(self, data: bytes) -> bytes:
        """The lines that `data` completes, each with its `\\n`, and the beginning of one that is very long."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._write_over(line)
            self._done += self._line
            self._done += b"\n"
            self._line.clear()
            self._returned = False
        self._write_over(rest)
        done = bytes(self._done)
        self._done.clear()
        return done

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
        if len(self._line) > LONGEST_LINE:
            cut = len(self._line) // LONGEST_LINE * LONGEST_LINE
            self._done += self._line[:cut]
            del self._line[:cut]


class TailFinder:
    """Where the last `count` lines of a log begin, which is shown piece by piece from its end on.

    A last line without a line feed counts as one.
    """

    def __init__(self, count: int, end: int) -> None:
        """`end` is the offset of the log's end, in bytes."""
        self._left = count
        self._end = end
        self.start = end if count <= 0 else None
        """The answer, once it is known."""

    def feed(self, data: bytes, offset: int) -> None:
        """`data` stands at `offset`, and ends where the piece before it began."""
        # A line feed at the very end begins no line.
        at = len(data) - 1 if offset + len(data) == self._end else len(data)
        while self.start is None:
            at = data.rfind(b"\n", 0, at)
            if at < 0:
                break
            self._left -= 1
            if self._left == 0:
                self.start = offset + at + 1
        if self.start is None and offset == 0:
            self.start = 0
