"""Where a large file is cut into blocks, so that an edit or an insertion changes few of them. Pure.

A block's id is its content: 16 bytes xxh3-128 and its first 32 bytes, its *anchor*. So the service's list of blocks
suffices, on any machine, to find the old blocks in a new file at any offset: one of them is found by its anchor, the
hash confirms it, and its neighbors before and after it follow without a search. Borders of a first version are at fixed
distances. For a comparison with borders that depend on the content see `docs/azure-clients.md`.
"""

from __future__ import annotations

import base64
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import xxhash

from amlctl.stores.contract import Buffer

MIB = 1 << 20
MIN_BLOCK = 4 * MIB
MAX_BLOCKS = 50_000
"""Of one blob: the limit of the service (Put Block List)."""
_USUAL_BLOCKS = 20_000
_ANCHOR = 32
_ID_BYTES = 16 + _ANCHOR
ID_LENGTH = _ID_BYTES * 5 // 4
"""Characters of an id: the service requires equal lengths for all uncommitted blocks of a blob, at most 64 bytes."""
_WORD = 8
_STRIDE = _ANCHOR - _WORD
"""Of words this far apart one is inside any anchor: only these are looked up (0.5 GB/s, for all anchors)."""
_SEARCHED = 4096
"""Old blocks that are searched for, spread evenly; the others are found next to them. Limits memory to 10 MB."""
_PATIENCE = 8
"""The gap before the next window is an eighth of the part searched without success: an entirely new file costs few
searches, and a part that moved is found if it is longer than an eighth of the new bytes before it."""
_CANDIDATES = 4
"""Anchors, offsets of an anchor, and blocks with it that are tried: some content repeats everywhere."""

Read = Callable[[int, int], bytes]
"""Bytes of the file: from an offset, at most so many."""


@dataclass(frozen=True)
class Block:
    """`id` is text, which the SDK sends as base64; `size_bytes` is that of the content.

    An id of another form belongs to another program or an earlier amlctl: the block is not reused.
    """

    id: str
    size_bytes: int


def block_id(data: Buffer) -> str:
    """Base85 of hash and anchor: 60 characters for every block, since the service requires equal lengths."""
    return _id(xxhash.xxh3_128_digest(data), bytes(data[:_ANCHOR]))


def block_id_of(parts: Sequence[Buffer]) -> str:
    """`block_id` of consecutive parts."""
    state = xxhash.xxh3_128()
    start = b""
    for part in parts:
        state.update(part)
        if len(start) < _ANCHOR:
            start += bytes(part[: _ANCHOR - len(start)])
    return _id(state.digest(), start)


def _id(digest: bytes, anchor: bytes) -> str:
    return base64.b85encode(digest + anchor.ljust(_ANCHOR, b"\0")).decode()


def block_size(size_bytes: int, *, smallest: int = MIN_BLOCK) -> int:
    """The distance of borders for a file of that size, which keeps the number of blocks far below the limit."""
    size = smallest
    while size * _USUAL_BLOCKS < size_bytes:
        size *= 2
    return size


def cut(
    read: Read, size_bytes: int, old: Sequence[Block], *, distance: int, max_blocks: int = MAX_BLOCKS
) -> Iterator[int]:
    """Sizes of the blocks of a file of `size_bytes`; they add up to it.

    `old` are the blocks of an earlier version in order; those of other programs match nothing. If reusing them leads to
    more than `max_blocks` blocks, the file is cut at fixed distances.
    """
    aligned = _aligned(read, size_bytes, [_Old.of(block) for block in old], distance) if old else iter(())
    sizes = list(islice(aligned, max_blocks + 1))
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
            raw = base64.b85decode(block.id)
        except ValueError:
            raw = b""
        if len(raw) != _ID_BYTES or not block.size_bytes:
            return cls(b"", b"", block.size_bytes)
        return cls(raw[:16], raw[16 : 16 + min(_ANCHOR, block.size_bytes)], block.size_bytes)

    def is_at(self, read: Read, offset: int) -> bool:
        if not self.digest or read(offset, len(self.anchor)) != self.anchor:
            return False
        data = read(offset, self.size_bytes)
        return len(data) == self.size_bytes and xxhash.xxh3_128_digest(data) == self.digest

    def is_searchable(self, distance: int) -> bool:
        """Short periods (zeros) are found everywhere, which means nothing; small blocks could fragment a file."""
        is_distinct = len(self.anchor) == _ANCHOR and self.anchor.find(self.anchor[_ANCHOR // 2 :]) == _ANCHOR // 2
        return is_distinct and self.size_bytes * 8 >= distance


class _Index:
    """Old blocks by the words of their anchors: at any offset of an anchor, a word that is looked up is inside."""

    def __init__(self, old: Sequence[_Old], distance: int) -> None:
        self._old = old
        fit = [number for number, block in enumerate(old) if block.is_searchable(distance)]
        by_anchor: dict[bytes, list[int]] = {}
        for number in fit[:: len(fit) // _SEARCHED + 1]:
            by_anchor.setdefault(old[number].anchor, []).append(number)
        self._by_word = {
            int.from_bytes(anchor[at : at + _WORD], sys.byteorder): numbers
            for anchor, numbers in by_anchor.items()
            for at in range(_STRIDE)
        }

    def find(self, read: Read, window: int, size_bytes: int, expected: int) -> tuple[int, int] | None:
        """The first offset of an old block in a window, and its number; of many, those from `expected` on."""
        data = read(window, size_bytes + 2 * _ANCHOR)
        words = memoryview(data)[: len(data) // _WORD * _WORD].cast("Q")[:: _STRIDE // _WORD]
        found = {}
        for word in self._by_word.keys() & words:
            numbers = self._by_word[word]
            nearest = bisect_left(numbers, expected) % len(numbers)
            found[(numbers[nearest] - expected) % len(self._old)] = numbers[nearest : nearest + _CANDIDATES]
        offsets = (self._confirm(read, data, window, found[far]) for far in sorted(found)[:_CANDIDATES])
        return min((one for one in offsets if one), default=None)

    def _confirm(self, read: Read, data: bytes, window: int, numbers: Sequence[int]) -> tuple[int, int] | None:
        """The offset of one of the blocks, which all have the same anchor."""
        hit = -1
        for _ in range(_CANDIDATES):
            hit = data.find(self._old[numbers[0]].anchor, hit + 1)
            if hit < 0:
                return None
            for number in numbers:
                if self._old[number].is_at(read, window + hit):
                    return window + hit, number
        return None


def _pieces(size_bytes: int, distance: int) -> Iterator[int]:
    while size_bytes > 0:
        yield min(distance, size_bytes)
        size_bytes -= distance


def _aligned(read: Read, size_bytes: int, old: Sequence[_Old], distance: int) -> Iterator[int]:
    at, number = 0, 0
    index = _Index(old, distance)
    while at < size_bytes:
        if number < len(old) and old[number].is_at(read, at):
            yield old[number].size_bytes
            at += old[number].size_bytes
            number += 1
            continue
        found = _resume(read, size_bytes, old, index, at, number, distance)
        if found is None:
            yield from _pieces(size_bytes - at, distance)
            return
        start, number = found
        yield from _pieces(start - at, distance)
        at = start


def _resume(
    read: Read, size_bytes: int, old: Sequence[_Old], index: _Index, at: int, expected: int, distance: int
) -> tuple[int, int] | None:
    """The next offset from `at` of an old block, and its number; None without one.

    Two cases: blocks were overwritten, and the next one is at its old offset; or bytes were inserted, removed or moved,
    and the same blocks are at other offsets.
    """
    offset, number, window = at, expected, at
    while window < size_bytes:
        window_end = min(window + distance, size_bytes)
        while number < len(old) and offset <= window_end:
            if offset > at and old[number].is_at(read, offset):
                return offset, number
            offset += old[number].size_bytes
            number += 1
        found = index.find(read, window, window_end - window, expected)
        if found is not None:
            return _step_back(read, old, at, *found)
        gap = (window_end - at) // distance // _PATIENCE * distance
        # Never beyond the last window: the end of a file often stays the same.
        window = max(window_end, min(window_end + gap, size_bytes - distance))
    return None


def _step_back(read: Read, old: Sequence[_Old], at: int, start: int, number: int) -> tuple[int, int]:
    """The first of the consecutive old blocks before the one that was found."""
    while number > 0 and start - old[number - 1].size_bytes >= at:
        if not old[number - 1].is_at(read, start - old[number - 1].size_bytes):
            break
        number -= 1
        start -= old[number].size_bytes
    return start, number
