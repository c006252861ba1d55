"""How much may be under way to a service at a time, and the memory of it: bounded, and used again.

New pages cost as much as reading does.
"""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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


class BlockMemory:
    """A buffer for each block that the window lets in. Thread-safe: a list takes and gives in one step."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._free: list[bytearray] = []

    @contextmanager
    def block(self, size_bytes: int) -> Iterator[BlockBuffer]:
        """Waits until there is room. It is free again behind the `with`, unless it was handed over to be sent."""
        self._window.take(size_bytes)
        buffer = self._free.pop() if self._free else bytearray()
        block = BlockBuffer(buffer if len(buffer) >= size_bytes else bytearray(size_bytes), size_bytes)
        try:
            yield block
        finally:
            if not block.is_handed_over:
                self._give_back(block, has_travelled=False)

    def hand_over(self, block: BlockBuffer) -> Callable[[], None]:
        """What is to be called once the block has been sent, or never will be."""
        block.is_handed_over = True
        return functools.partial(self._give_back, block, has_travelled=True)

    def _give_back(self, block: BlockBuffer, *, has_travelled: bool) -> None:
        self._free.append(block.memory)
        self._window.give_back(block.size_bytes, has_travelled=has_travelled)


class BlockBuffer:
    """`data` is the place for `size_bytes`; what stands there is old."""

    def __init__(self, memory: bytearray, size_bytes: int) -> None:
        self.memory = memory
        self.size_bytes = size_bytes
        self.data = memoryview(memory)[:size_bytes]
        self.is_handed_over = False


_M_ARENA_MAX = -8


def use_one_heap() -> None:
    """For all threads that begin later. Each would get a heap of its own, and what large values one has left is of no
    use to another: sending 16 files of 24 MB and 2,500 small ones took 180 MB instead of 124, bringing them 179
    instead of 131. Who waits for a network loses no time by it.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
