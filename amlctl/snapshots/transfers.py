"""How far a stage is, from what its transfers report while bytes move.

A file of a pack counts in proportion to what of the pack has moved. Only bytes that a service has, or that were read
from it, count: what waits in memory does not.
"""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock
from typing import Callable, Optional, TypeVar

from amlctl.core.events import EventSink, Stage, StageProgress

_Value = TypeVar("_Value")


class Transfers:
    """All transfers of one stage. Thread-safe. Totals may change as more becomes known; None while unknown."""

    def __init__(self, stage: Stage, subject: str, sink: EventSink) -> None:
        self._stage = stage
        self._subject = subject
        self._sink = sink
        self._done_files = self._done_bytes = self._done_values = 0
        self._total_files: Optional[int] = None
        self._total_bytes: Optional[int] = None
        self._total_values = 0
        self._has_begun = False
        self._lock = Lock()

    def begin(self) -> None:
        """Show the stage before its first byte has moved, which may take long."""
        with self._lock:
            self._report()

    def expect(self, total_files: int, total_bytes: int, more_values: int = 0) -> None:
        """Set the totals, what has moved already included; `more_values` are about to be transferred."""
        with self._lock:
            self._total_files, self._total_bytes = total_files, total_bytes
            self._total_values = self._done_values + more_values
            if self._has_begun:
                self._report()

    def transfer(self, files: int, content_bytes: int, wire_bytes: int) -> Transfer:
        """One value: `files` with `content_bytes` in total, which travel as `wire_bytes`."""
        return Transfer(self, files, content_bytes, wire_bytes)

    def add(self, files: int, content_bytes: int, values: int = 0) -> None:
        """All may be negative."""
        with self._lock:
            self._done_files += files
            self._done_bytes += content_bytes
            self._done_values += values
            self._report()

    def finish(self) -> None:
        """The last event, unless nothing was shown."""
        with self._lock:
            if self._has_begun:
                self._has_begun = False
                totals = self._done_files, self._done_bytes
                self._sink(StageProgress(self._stage, self._subject, *totals, *totals, is_done=True))

    def _report(self) -> None:
        """With the lock held, so that no event overtakes a later one."""
        self._has_begun = True
        totals = self._total_files, self._total_bytes
        values = self._done_values, self._total_values
        self._sink(
            StageProgress(self._stage, self._subject, self._done_files, self._done_bytes, *totals, False, *values)
        )


class Transfer:
    """One value on its way; its parts may move in several threads."""

    __slots__ = ("_bytes", "_content_bytes", "_files", "_lock", "_moved", "_of", "_shown_files", "_wire_bytes")

    def __init__(self, of: Transfers, files: int, content_bytes: int, wire_bytes: int) -> None:
        self._of = of
        self._files = files
        self._content_bytes = content_bytes
        self._wire_bytes = wire_bytes
        self._moved = 0
        self._bytes = self._shown_files = 0
        self._lock = Lock()

    def moved(self, wire_bytes: int) -> None:
        """So many more bytes have moved; negative where a request has to be made again."""
        with self._lock:
            self._moved += wire_bytes
            share = min(1.0, max(0, self._moved) / self._wire_bytes) if self._wire_bytes else 0.0
            # A single file counts once it is complete.
            self._count(int(share * self._files) if share < 1.0 else self._files - 1, int(share * self._content_bytes))

    def done(self) -> None:
        """All of it has arrived, or was there before."""
        with self._lock:
            self._count(self._files, self._content_bytes, values=1)

    def _count(self, files: int, content_bytes: int, *, values: int = 0) -> None:
        files_before, bytes_before = self._shown_files, self._bytes
        self._shown_files, self._bytes = files, content_bytes
        self._of.add(files - files_before, content_bytes - bytes_before, values)


_LARGE_BYTES = 1 << 20


def taking_turns(values: Iterable[_Value], size_of: Callable[[_Value], int]) -> list[_Value]:
    """Large and small ones spread evenly: the line is full while requests for small ones wait for their answers, and
    the first fifth moves as the rest will."""
    large: list[_Value] = []
    small: list[_Value] = []
    for value in values:
        (large if size_of(value) >= _LARGE_BYTES else small).append(value)
    placed = [(at / len(some), value) for some in (large, small) for at, value in enumerate(some)]
    return [value for _, value in sorted(placed, key=lambda one: one[0])]
