"""Memory for the blocks of files under way: bounded, and used again, since new pages cost as much as reading does."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from amlctl.stores.azure_blob.window import Window


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
