"""How little memory the allocator of glibc keeps of what was freed. Elsewhere there is nothing to do."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_M_ARENA_MAX = -8


def use_one_heap() -> None:
    """For all threads that begin later. Each would get a heap of its own, and what large values one has left is of no
    use to another: sending 16 files of 24 MB and 2,500 small ones took 180 MB instead of 124, bringing them 179
    instead of 131. Who waits for a network loses no time by it.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
