"""Lets a loop wait for signals, for a child's end and for other threads at once, without polling.

The interpreter writes the number of every signal that arrives into a pipe (`signal.set_wakeup_fd`), so nothing
is lost between two looks and no work is done inside a handler.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterable
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Only a handler of our own makes the interpreter write to the pipe."""


class Wakeups:
    """A context manager for the main thread; the handlers from before come back at its end."""

    def __init__(self, stop_signals: Iterable[int] = STOP_SIGNALS) -> None:
        # What the caller ignores, as nohup does with SIGHUP, stays ignored.
        wanted = [number for number in stop_signals if signal.getsignal(number) is not signal.SIG_IGN]
        self._numbers = (*wanted, signal.SIGCHLD)

    def __enter__(self) -> Wakeups:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._old_descriptor = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._old_handlers = {number: signal.signal(number, _ignore) for number in self._numbers}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_descriptor)
        os.close(self._reader)
        os.close(self._writer)

    def wait(self, timeout_s: float) -> set[int]:
        """The stop signals that arrived since the last call; returns at once if there were any, or a child ended."""
        select.select([self._reader], [], [], max(0.0, timeout_s))
        arrived: set[int] = set()
        while True:
            try:
                arrived.update(os.read(self._reader, 4096))
            except BlockingIOError:
                return arrived - {signal.SIGCHLD}
