"""Bring contents into a store: packs as they fill up, and large files in parallel.

Two packs travel while the next one is filled, so that the line is never idle. There is memory for one and a half packs:
the next ones are filled with what has left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Condition
from typing import Callable, NamedTuple

from amlctl.core.content_id import ContentHasher, content_id
from amlctl.core.manifest import OBJECT, ONE_FILE, FileEntry, Kind, Manifest, StoredAt
from amlctl.core.pack import Bytes, Member, PackBuilder
from amlctl.core.store_keys import object_key, pack_key
from amlctl.core.sync_plan import SyncPlan
from amlctl.errors import Conflict
from amlctl.localfs.disk_errors import failing_disk
from amlctl.localfs.read_file import read_small
from amlctl.localfs.sync_state import SyncState
from amlctl.parallel import Stop, alongside, in_parallel
from amlctl.snapshots.contents import read_content
from amlctl.snapshots.transfers import Transfer, Transfers, taking_turns
from amlctl.stores.contract import Buffers, FileBody, Store, always

_UNDER_WAY = 2
_PART_BYTES = 2 << 20
_PARTS = 48
_LOCAL_PARTS = 40
"""Parts in memory: 33 hold a pack of the usual size. A folder takes them faster than they are filled."""


class _Sending(NamedTuple):
    """A finished pack."""

    members: Sequence[Member]
    is_new: Future[bool]


class PackSender:
    """Takes contents in order and sends each full pack in the background. Used from one thread.

    `places` and `pack_sizes` grow as packs are finished; they are true once `finish` has returned. `was_there`
    has the contents of packs that the store had already, unknown to this machine. `content_bytes` is the size of all
    that was added, before deflating. `transfers` count the bytes of packs that arrive.
    """

    def __init__(
        self,
        store: Store,
        state: SyncState | None,
        pack_size: int,
        transfers: Transfers,
        *,
        store_key: str = "",
        replace: bool = False,
    ) -> None:
        """`store_key`: what `state` knows the store by. `replace`: a pack of the same name is written again, since it
        may be damaged."""
        self.store = store
        self._store_key = store_key
        self._state = state
        self.replace = replace
        self.transfers = transfers
        self._content_bytes_sent = 0
        self._parts: list[Bytes] = []
        self._hasher = ContentHasher()
        self._builder = PackBuilder(pack_size, self._memory, self._take_part)
        self._pool = ThreadPoolExecutor(_UNDER_WAY)
        self._free: list[bytearray] = []
        self._allocated = 0
        self._lent = 0
        """Parts of packs that the store still needs."""
        self._returned = Condition()
        self._most_parts = _PARTS if store.folder is None else _LOCAL_PARTS
        self._sending: deque[_Sending] = deque()
        self._seen: set[str] = set()
        self.places: dict[str, StoredAt] = {}
        self.pack_sizes: dict[str, int] = {}
        self.was_there: set[str] = set()
        self.content_bytes = 0

    @property
    def content_files(self) -> int:
        """How many contents were added."""
        return len(self._seen)

    def room(self, path: str, size_bytes: int) -> memoryview:
        """Memory where a content may be put before it is known whether it has to be sent: see `PackBuilder.room`."""
        return self._builder.room(path, size_bytes)

    def keep(self, entry: FileEntry) -> None:
        """Send what is in the last room, which was for `entry`. Raises what sending an earlier pack has raised."""
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
        self._allocated -= len(self._free)
        self._free.clear()

    def __enter__(self) -> PackSender:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

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
        while self._sending and self._sending[0].is_new.done():
            self._wait(len(self._sending) - 1)
        if size_bytes > _PART_BYTES:
            return memoryview(bytearray(size_bytes))
        with self._returned:
            self._returned.wait_for(lambda: self._free or self._allocated < self._most_parts or not self._lent)
            if self._free:
                return memoryview(self._free.pop())
        self._allocated += 1
        return memoryview(bytearray(_PART_BYTES))

    def _take_part(self, part: Bytes) -> None:
        self._hasher.update(part)  # while the processor's cache has it
        self._parts.append(part)

    def _send(self) -> None:
        pack = self._builder.finish()
        parts = [*self._parts]
        self._parts.clear()
        name = self._hasher.hexdigest()
        self._hasher = ContentHasher()
        if self._state is not None:
            self._state.remember_pack(self._store_key, name, pack.size_bytes, pack.members)
        self.pack_sizes[name] = pack.size_bytes
        for member in pack.members:
            at = StoredAt(Kind.PACK, name, member.offset, member.length, member.is_deflated)
            self.places[member.content_id] = at
        self._wait(_UNDER_WAY - 1)
        content_bytes = self.content_bytes - self._content_bytes_sent
        self._content_bytes_sent = self.content_bytes
        transfer = self.transfers.transfer(len(pack.members), content_bytes, pack.size_bytes)
        with self._returned:
            self._lent += len(parts)
        is_new = self._pool.submit(self._put, pack_key(name), parts, transfer)
        self._sending.append(_Sending(pack.members, is_new))

    def _put(self, key: str, parts: Sequence[Bytes], transfer: Transfer) -> bool:
        lent = deque(parts)
        arrived = 0

        def release(size_bytes: int) -> None:
            nonlocal arrived
            arrived += size_bytes
            while lent and arrived >= len(lent[0]):
                arrived -= len(lent[0])
                self._take_back([lent.popleft()])

        try:
            is_new = self.store.put(key, Buffers(parts, release), replace=self.replace, on_bytes=transfer.moved)
        finally:
            self._take_back(lent)
        transfer.done()
        return is_new

    def _take_back(self, parts: Collection[Bytes]) -> None:
        memories = [part.obj for part in parts if isinstance(part, memoryview)]
        with self._returned:
            self._lent -= len(parts)
            self._free += [one for one in memories if isinstance(one, bytearray) and len(one) == _PART_BYTES]
            self._returned.notify_all()

    def _wait(self, at_most: int) -> None:
        """Until no more packs than that are under way."""
        while len(self._sending) > at_most:
            sending = self._sending[0]
            if not sending.is_new.result():
                self.was_there.update(member.content_id for member in sending.members)
            self._sending.popleft()


class Destination(NamedTuple):
    """Where files that are sent alone get to. `replaces` what the store has there; `check` is asked before each file
    and while it travels: what it raises ends the file."""

    key: Callable[[FileEntry], str]
    replaces: bool = False
    check: Callable[[], None] = always


OBJECTS = Destination(lambda entry: object_key(entry.content_id))


def send_plan(
    plan: SyncPlan,
    root: Path,
    head: Manifest,
    sender: PackSender,
    *,
    max_workers: int,
    destination: Destination = OBJECTS,
) -> tuple[Mapping[str, StoredAt], Mapping[str, int], Set[str]]:
    """Send what the plan names to the store of the sender; the places of all its entries, the sizes of all packs, and
    the contents that the store had although that was not known (a gc may be about to take them). `destination`: of
    files that are sent alone. Progress goes to `sender.transfers`.

    Raises Conflict where a file is not any more what it was when it was identified.
    """
    store, transfers, replace = sender.store, sender.transfers, sender.replace
    stop = Stop()
    # Packs may have been sent before there was a plan.
    values = len(plan.packs) + len(plan.files)
    transfers.expect(sender.content_files + plan.send_files, sender.content_bytes + plan.send_bytes, values)
    if plan.send_files:
        transfers.begin()
    predecessors = {} if destination.replaces else _predecessors(plan, head)

    def send_file(entry: FileEntry) -> bool:
        stop.check()
        destination.check()
        transfer = transfers.transfer(1, entry.size_bytes, entry.size_bytes)
        body = FileBody(
            _local(root, entry),
            entry.size_bytes,
            entry.content_id,
            None if replace else predecessors.get(entry.path),
            is_sent_whole=replace,
            may_go_on=destination.check,
        )

        def moved(size_bytes: int) -> None:
            stop.check()
            transfer.moved(size_bytes)

        was_new = store.put(destination.key(entry), body, replace=replace or destination.replaces, on_bytes=moved)
        transfer.done()
        return was_new

    files = taking_turns(plan.files, lambda entry: entry.size_bytes)
    with alongside(lambda: list(in_parallel(send_file, files, max_workers, stop=stop)), stop) as were_new:
        for pack in plan.packs:
            if pack[0].content_id in plan.repacked:
                sender.flush()
            for entry in pack:
                stop.check()
                sender.add(entry, _content(store, root, head, entry, plan))
        sender.finish()
    was_there = {entry.content_id for entry, was_new in zip(files, were_new.result()) if not was_new}
    transfers.finish()
    places = {**dict.fromkeys((entry.content_id for entry in plan.files), OBJECT), **plan.places, **sender.places}
    live = {entry.content_id for entry in plan.entries}
    places = {content: place for content, place in places.items() if content in live}
    return places, {**head.pack_sizes, **sender.pack_sizes}, was_there | sender.was_there


def _content(store: Store, root: Path, head: Manifest, entry: FileEntry, plan: SyncPlan) -> bytes:
    """The bytes to pack: from this disk, or from the store where another machine has put them."""
    path = _local(root, entry)
    try:
        data = read_small(path)
    except OSError as error:
        if (failure := failing_disk(error, str(path))) is not None:
            raise failure from error
        data = b""
    if content_id(data) == entry.content_id:
        return data
    if entry.content_id in plan.repacked:
        return read_content(store, head, entry)
    raise changed(entry.path)


def _predecessors(plan: SyncPlan, head: Manifest) -> Mapping[str, str]:
    """For the path of each large file to send: the key of the object that it was before."""
    paths = {entry.path for entry in plan.files}
    return {
        entry.path: object_key(entry.content_id)
        for entry in head.entries
        if entry.path in paths and head.places.get(entry.content_id) == OBJECT
    }


def changed(path: str) -> Conflict:
    return Conflict(f"{path} changed during the sync", hint="run the same command again: what arrived is kept")


def _local(root: Path, entry: FileEntry) -> Path:
    return root if entry.path == ONE_FILE else root / entry.path
