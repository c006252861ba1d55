"""A limit of bandwidth that all threads of a store share."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event, Lock

from amlctl.errors import Interrupted


class Pace:
    """`bytes_per_s` holds for both directions together. Thread-safe."""

    def __init__(
        self,
        bytes_per_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._interrupted = Event()
        self._sleep = sleep or self._interrupted.wait
        self._lock = Lock()
        self._free_at_s = 0.0

    def take(self, size_bytes: int) -> None:
        """Have the line for as long as `size_bytes` need, after those who took it before. Raises Interrupted."""
        with self._lock:
            now_s = self._clock()
            start_s = max(now_s, self._free_at_s)
            self._free_at_s = start_s + size_bytes / self._bytes_per_s
            wait_s = self._free_at_s - now_s
        if wait_s > 0:
            self._sleep(wait_s)
        if self._interrupted.is_set():
            raise Interrupted("interrupted")

    def interrupt(self) -> None:
        """All who wait, and whoever comes until `resume`, give up."""
        self._interrupted.set()

    def resume(self) -> None:
        with self._lock:
            self._free_at_s = 0.0  # those who had the line until then do not use it
        self._interrupted.clear()
