"""How much may be under way to a service at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition

_LEAST_BYTES = 8 << 20
_AHEAD_S = 4.0
"""What a line carries in this time may be under way: more only means that a kill, or the user, loses more of it."""
_MEASURE_S = 5.0


class Window:
    """Bytes under way, over all files: at most `most_bytes`, fewer on a slow line; one part is always let in.

    Thread-safe.
    """

    def __init__(self, most_bytes: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_bytes = most_bytes
        self._clock = clock
        self._limit_bytes = min(most_bytes, _LEAST_BYTES)
        self._used = 0
        self._since_s = 0.0
        self._arrived = 0
        self._changed = Condition()

    @property
    def limit_bytes(self) -> int:
        return self._limit_bytes

    def take(self, size_bytes: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._used == 0 or self._used + size_bytes <= self._limit_bytes)
            if self._used == 0:
                self._since_s, self._arrived = self._clock(), 0
            self._used += size_bytes

    def give_back(self, size_bytes: int, *, has_travelled: bool = True) -> None:
        """What has not travelled says nothing about the line."""
        with self._changed:
            self._used -= size_bytes
            self._changed.notify_all()
            if not has_travelled:
                return
            self._arrived += size_bytes
            now_s = self._clock()
            elapsed_s = max(now_s - self._since_s, 1e-6)
            ahead_bytes = int(self._arrived / elapsed_s * _AHEAD_S)
            self._limit_bytes = min(self._most_bytes, max(_LEAST_BYTES, ahead_bytes))
            if elapsed_s > _MEASURE_S:
                # What is older counts half. From nothing, two blocks that end together would look like a fast line.
                self._since_s, self._arrived = now_s - elapsed_s / 2, self._arrived // 2

    @contextmanager
    def taken(self, size_bytes: int) -> Iterator[None]:
        self.take(size_bytes)
        try:
            yield
        finally:
            self.give_back(size_bytes)
