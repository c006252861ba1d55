"""Where a large file is cut into blocks, so that an edit or an insertion changes few of them. Pure.

A block's id is its content: 16 bytes xxh3-128 and its first 32 bytes, its *anchor*. The list of blocks that the
service keeps is therefore enough, on any machine, to find the old blocks again in a new file: behind an insertion
the anchor is searched for (at the speed of memory), the hash confirms it, and the blocks after it follow without a
search. Borders of a first version are at fixed distances. Measured against borders that depend on the content:
see `docs/architecture.md`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import xxhash

MIB = 1 << 20
MIN_BLOCK = 4 * MIB
MAX_BLOCKS = 50_000
"""Of one blob: what the service allows (Put Block List)."""
_USUAL_BLOCKS = 20_000
_ANCHOR = 32
_ID_BYTES = 16 + _ANCHOR
_LOOK_AHEAD = 4
"""Old blocks whose anchors are searched for at a time."""
_GIVE_UP_AFTER = 16
"""Windows in a row without any old block, after which only the places where one may stand unmoved are looked at."""
_CANDIDATES = 4
"""Hits of one anchor that are hashed: a file of zeros has one everywhere."""

Read = Callable[[int, int], bytes]
"""Bytes of the file: from an offset, at most so many."""


@dataclass(frozen=True)
class Block:
    """`id` as the service has it (base64), `size_bytes` of content."""

    id: str
    size_bytes: int


def block_id(data: bytes) -> str:
    """Base64 of hash and anchor: 64 characters for every block, as the service wants them of one length."""
    raw = xxhash.xxh3_128_digest(data) + data[:_ANCHOR].ljust(_ANCHOR, b"\0")
    return base64.b64encode(raw).decode()


def block_size(size_bytes: int, *, smallest: int = MIN_BLOCK) -> int:
    """The distance of borders for a file of that size: so that the number of blocks stays far from the limit."""
    size = smallest
    while size * _USUAL_BLOCKS < size_bytes:
        size *= 2
    return size


def cut(
    read: Read, size_bytes: int, old: Sequence[Block], *, distance: int, max_blocks: int = MAX_BLOCKS
) -> Iterator[int]:
    """Sizes of the blocks of a file of `size_bytes`; they add up to it.

    `old` are the blocks of an earlier version in order; those that were made by other programs match nothing.
    Where reusing them would lead to more than `max_blocks` blocks, the file is cut at fixed distances.
    """
    sizes = [] if not old else list(_aligned(read, size_bytes, [_Old.of(block) for block in old], distance))
    if not sizes or len(sizes) > max_blocks:
        sizes = list(_pieces(size_bytes, distance))
    yield from sizes


@dataclass(frozen=True)
class _Old:
    digest: bytes
    anchor: bytes
    size_bytes: int

    @classmethod
    def of(cls, block: Block) -> _Old:
        try:
            raw = base64.b64decode(block.id, validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) != _ID_BYTES:
            return cls(b"", b"", block.size_bytes)
        return cls(raw[:16], raw[16 : 16 + min(_ANCHOR, block.size_bytes)], block.size_bytes)

    def is_at(self, read: Read, offset: int) -> bool:
        if not self.digest or read(offset, len(self.anchor)) != self.anchor:
            return False
        data = read(offset, self.size_bytes)
        return len(data) == self.size_bytes and xxhash.xxh3_128_digest(data) == self.digest

    @property
    def is_searchable(self) -> bool:
        """A run of one byte is found everywhere, which tells nothing."""
        return len(self.anchor) == _ANCHOR and len(set(self.anchor)) > 1


def _pieces(size_bytes: int, distance: int) -> Iterator[int]:
    while size_bytes > 0:
        yield min(distance, size_bytes)
        size_bytes -= distance


def _aligned(read: Read, size_bytes: int, old: Sequence[_Old], distance: int) -> Iterator[int]:
    at, index = 0, 0
    while at < size_bytes:
        if index < len(old) and old[index].is_at(read, at):
            yield old[index].size_bytes
            at += old[index].size_bytes
            index += 1
            continue
        found = _resume(read, size_bytes, old, at, index, distance)
        if found is None:
            yield from _pieces(size_bytes - at, distance)
            return
        start, index = found
        yield from _pieces(start - at, distance)
        at = start


def _resume(
    read: Read, size_bytes: int, old: Sequence[_Old], at: int, index: int, distance: int
) -> tuple[int, int] | None:
    """The next place from `at` where an old block from `index` on stands, and which; None: there is none.

    Two things are looked for: blocks that were overwritten, behind which the next stands where it always stood,
    and bytes that came or went, so that the same blocks stand elsewhere.
    """
    unmoved: dict[int, int] = {}
    end = at
    for number in range(index, len(old)):
        unmoved[end] = number
        end += old[number].size_bytes
    places = iter(sorted(unmoved))
    place = next(places, None)
    searched = [number for number in range(index, min(index + _LOOK_AHEAD, len(old))) if old[number].is_searchable]
    window, misses = at, 0
    while window < size_bytes:
        window_end = min(window + distance, size_bytes)
        best: tuple[int, int] | None = None
        while place is not None and place <= window_end:
            if place > at and old[unmoved[place]].is_at(read, place):
                best = (place, unmoved[place])
                break
            place = next(places, None)
        if misses < _GIVE_UP_AFTER and searched:
            data = read(window, window_end - window + _ANCHOR - 1)
            for number in searched:
                start = _search(read, data, window, old[number])
                if start is not None and start > at - 1 and (best is None or start < best[0]):
                    best = (start, number)
        if best is not None:
            return best
        window, misses = window_end, misses + 1
    return None


def _search(read: Read, data: bytes, window: int, block: _Old) -> int | None:
    hit = -1
    for _ in range(_CANDIDATES):
        hit = data.find(block.anchor, hit + 1)
        if hit < 0:
            return None
        if block.is_at(read, window + hit):
            return window + hit
    return None


def kept_bytes(blocks: Sequence[Block], there: Collection[str]) -> int:
    return sum(block.size_bytes for block in blocks if block.id in there)
