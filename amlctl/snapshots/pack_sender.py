"""Packs on their way into a store.

A store that can write a value before its key is known gets each part of a pack while the next one is filled: the
processor's cache still has it, and a few parts of memory do for all packs. Any other gets whole packs, two at a time,
so that the line is not idle while one waits for its end; there is memory for two, and the next is filled as they leave.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

from amlctl.core.content_id import ContentHasher
from amlctl.core.manifest import FileEntry, Kind, StoredAt
from amlctl.core.pack import Bytes, Member, PackBuilder
from amlctl.core.store_keys import pack_key
from amlctl.localfs.deflate import fastest_compressor
from amlctl.localfs.sync_state import SyncState
from amlctl.stores.contract import Draft, Store

_PART_BYTES = 2 << 20
_PARTS_UNDER_WAY = 3
_KEPT_PACKS_UNDER_WAY = 2
_KEPT_PARTS = 16
_KEPT_PART_BYTES = (8 << 20) + (128 << 10)
"""Where whole packs are in memory: eight hold one of the usual size, with what each has no room for at its end."""


class _Sending(NamedTuple):
    """A finished pack; `parts` is the memory that it still needs."""

    members: Sequence[Member]
    draft: Draft
    parts: Sequence[Bytes]
    is_new: Future[bool]


class PackSender:
    """Takes contents in order and sends each full pack in the background. Used from one thread.

    `places` and `pack_sizes` grow as packs are finished; they are true once `finish` has returned. `was_there`
    has the contents of packs that the store had already, unknown to us. `content_bytes` is the size of all that
    was added, before deflating.
    """

    def __init__(self, store: Store, state: SyncState | None, pack_size: int, *, store_key: str, replace: bool) -> None:
        """`store_key`: what `state` knows the store by. `replace`: a pack of the same name is written again, since it
        may be damaged."""
        self._store = store
        self._store_key = store_key
        self._state = state
        self._replace = replace
        self._builder = PackBuilder(pack_size, fastest_compressor(), self._memory, self._take_part)
        self._draft = store.draft()
        self._part_bytes = _KEPT_PART_BYTES if self._draft.keeps_parts else _PART_BYTES
        # One worker where parts are written, so that they keep their order.
        self._packs_under_way = _KEPT_PACKS_UNDER_WAY if self._draft.keeps_parts else 1
        self._pool = ThreadPoolExecutor(self._packs_under_way)
        self._hasher = ContentHasher()
        self._parts: deque[tuple[Bytes, Future[None] | None]] = deque()
        self._free: list[bytearray] = []
        self._made = 0
        self._sending: deque[_Sending] = deque()
        self._seen: set[str] = set()
        self.places: dict[str, StoredAt] = {}
        self.pack_sizes: dict[str, int] = {}
        self.was_there: set[str] = set()
        self.content_bytes = 0

    def room(self, path: str, size_bytes: int) -> memoryview:
        """Memory where a content may be put before it is known whether it has to be sent: see `PackBuilder.room`."""
        return self._builder.room(path, size_bytes)

    def keep(self, entry: FileEntry) -> None:
        """Send what stands in the last room, which was for `entry`. Raises what sending an earlier pack has raised."""
        if self._is_new(entry):
            self._builder.keep(entry.content_id, entry.size_bytes)
            self._send_if_full()

    def add(self, entry: FileEntry, data: bytes) -> None:
        """Raises what sending an earlier pack has raised."""
        if self._is_new(entry):
            self._builder.add(entry.content_id, entry.path, data)
            self._send_if_full()

    def flush(self) -> None:
        """What follows goes to another pack."""
        if not self._builder.is_empty:
            self._send()

    def finish(self) -> None:
        """Send what is left and wait until all has arrived."""
        self.flush()
        self._wait(0)
        self._made -= len(self._free)
        self._free.clear()

    def close(self) -> None:
        """Nothing stays of a pack that is not finished."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._draft.drop()
        for sending in self._sending:
            sending.draft.drop()

    def _is_new(self, entry: FileEntry) -> bool:
        if entry.content_id in self._seen:
            return False
        self._seen.add(entry.content_id)
        self.content_bytes += entry.size_bytes
        return True

    def _send_if_full(self) -> None:
        if self._builder.is_full:
            self._send()

    def _memory(self, size_bytes: int) -> memoryview:
        """For the next part: memory that is used again, since the first touch of new pages costs as much as a copy."""
        if self._draft.keeps_parts:
            while not self._free and self._made >= _KEPT_PARTS and self._sending:
                self._wait(len(self._sending) - 1)
        else:
            while len(self._parts) >= _PARTS_UNDER_WAY:
                self._reuse([self._settled_part()])
        if size_bytes > self._part_bytes:
            return memoryview(bytearray(size_bytes))
        if self._free:
            return memoryview(self._free.pop())
        self._made += 1
        return memoryview(bytearray(self._part_bytes))

    def _reuse(self, parts: Sequence[Bytes]) -> None:
        for part in parts:
            if isinstance(part, memoryview) and isinstance(part.obj, bytearray) and len(part.obj) == self._part_bytes:
                self._free.append(part.obj)

    def _take_part(self, part: Bytes) -> None:
        if self._draft.keeps_parts:
            self._append(part)
            self._parts.append((part, None))
        else:
            self._parts.append((part, self._pool.submit(self._append, part)))

    def _append(self, part: Bytes) -> None:
        self._hasher.update(part)
        self._draft.append(part)

    def _settled_part(self) -> Bytes:
        part, appended = self._parts.popleft()
        if appended is not None:
            appended.result()
        return part

    def _send(self) -> None:
        pack = self._builder.finish()
        parts = [self._settled_part() for _ in range(len(self._parts))]
        name = self._hasher.content_id()
        if self._state is not None:
            self._state.remember_pack(self._store_key, name, pack.size_bytes, pack.members)
        self.pack_sizes[name] = pack.size_bytes
        for member in pack.members:
            self.places[member.content_id] = StoredAt(Kind.PACK, name, member.offset, member.length, member.is_deflated)
        self._wait(self._packs_under_way - 1)
        if not self._draft.keeps_parts:
            self._reuse(parts)
            parts = []
        is_new = self._pool.submit(self._draft.finish, pack_key(name), replace=self._replace)
        self._sending.append(_Sending(pack.members, self._draft, parts, is_new))
        self._draft, self._hasher = self._store.draft(), ContentHasher()

    def _wait(self, at_most: int) -> None:
        """Until no more packs than that are under way."""
        while len(self._sending) > at_most:
            sending = self._sending[0]
            if not sending.is_new.result():
                self.was_there.update(member.content_id for member in sending.members)
            self._reuse(sending.parts)
            self._sending.popleft()


@contextmanager
def pack_sender(
    store: Store, state: SyncState | None, pack_size: int, *, store_key: str = "", replace: bool = False
) -> Iterator[PackSender]:
    sender = PackSender(store, state, pack_size, store_key=store_key, replace=replace)
    try:
        yield sender
    finally:
        sender.close()
