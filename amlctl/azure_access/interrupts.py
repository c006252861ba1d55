"""Ctrl-C for threads that wait for a network: who waits is woken, and nothing new begins until the end of it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Lock

from amlctl.errors import Interrupted


class Interrupts:
    """Of all connections of one transport. Thread-safe."""

    def __init__(self) -> None:
        self._is_on = Event()
        self._count = 0
        self._in_use: set[socket.socket] = set()
        self._lock = Lock()

    @property
    def count(self) -> int:
        """How many interrupts there have been: a request belongs to the time before or after each of them."""
        return self._count

    def interrupt(self) -> None:
        """End what is under way; until `resume` nothing new begins."""
        with self._lock:
            self._count += 1
            self._is_on.set()
            for used in self._in_use:
                _shut(used)

    def resume(self) -> None:
        self._is_on.clear()

    def check(self, since: int) -> None:
        """Raises Interrupted between `interrupt` and `resume`, and for what began when the count was another one."""
        if self._is_on.is_set() or self._count != since:
            raise Interrupted("interrupted")

    def wait(self, seconds: float) -> None:
        """Until then, or until an interrupt."""
        self._is_on.wait(seconds)

    @contextmanager
    def ending(self, used: socket.socket, since: int) -> Iterator[None]:
        """An interrupt wakes a thread that waits for `used` inside. Raises Interrupted."""
        with self._lock:
            self.check(since)
            self._in_use.add(used)
        try:
            yield
        finally:
            with self._lock:
                self._in_use.discard(used)


def _shut(used: socket.socket) -> None:
    """The line alone: a TLS socket that another thread uses keeps what it needs to fail by itself."""
    with suppress(OSError):  # it has ended meanwhile
        socket.socket.shutdown(used, socket.SHUT_RDWR)
