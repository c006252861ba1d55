"""What a store holds besides the contents that a dataset's HEAD names, and how it is reused safely.

Sources, cheapest first: the HEADs of other datasets, which a command reads once; packs that this machine has sent (also
those of a sync that was killed); and, for large files, the object of that name.

What was there when it was looked up may be deleted by a gc before the commit: see `gc_mark.py`.

Before a commit it is made sure that what it names is in the store, with its size.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from functools import cached_property
from typing import Optional, TypeVar

from amlctl.core.manifest import OBJECT, FileEntry, Kind, Manifest, StoredAt
from amlctl.core.message import AGAIN, some
from amlctl.core.store_keys import area_of, object_key, pack_key
from amlctl.core.sync_plan import Layout
from amlctl.errors import Conflict, IntegrityError, NotFound, SettingsError
from amlctl.localfs.sync_state import KnownPacks, SyncState
from amlctl.parallel import in_parallel
from amlctl.snapshots.contents import key_of, values_of
from amlctl.snapshots.gc_mark import GcWatch
from amlctl.snapshots.heads import list_datasets, read_head
from amlctl.snapshots.manifests import Written, read_manifest
from amlctl.stores.contract import Store

_PLACE = struct.Struct("<16sQQB")
_Places = dict[bytes, bytes]
"""By content id: pack, offset, length and whether it is deflated; empty for an object. 190 bytes per content instead of
the 350 of a `StoredAt`."""


class DatasetContents:
    """Where the datasets of a store have their contents, and what this machine has sent, for one command: both are read
    when they are first wanted, and what the command commits is added. Not thread-safe.

    What others commit meanwhile is not in it, and is sent again at worst; what a gc has deleted since is noticed before
    a commit (`ensure_kept`).
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._places: Optional[_Places] = None
        self.pack_sizes: dict[str, int] = {}
        self._sent_to = self._last_sent = ""
        self._sent = KnownPacks([])

    def read(self) -> None:
        """From the store at the first call."""
        if self._places is None:
            self._places = {}
            datasets = list_datasets(self._store)
            for places, pack_sizes in in_parallel(self._read, datasets, self._store.concurrency):
                self._places.update(places)
                self.pack_sizes.update(pack_sizes)

    def place(self, content: str) -> Optional[StoredAt]:
        """Not known before `read`."""
        found = self._places.get(bytes.fromhex(content)) if self._places else None
        if not found:
            return None if found is None else OBJECT
        pack, offset, length, is_deflated = _PLACE.unpack(found)
        return StoredAt(Kind.PACK, pack.hex(), offset, length, bool(is_deflated))

    def add(self, committed: Manifest) -> None:
        if self._places is not None:
            self._places.update(_places(committed))
            self.pack_sizes.update(committed.pack_sizes)

    def sent(self, state: SyncState, store_key: str) -> KnownPacks:
        """Without packs of datasets that this command has committed."""
        if self._sent_to != store_key:
            self._sent_to, self._last_sent, self._sent = store_key, "", KnownPacks([])
        if found := state.packs(store_key, later_than=self._last_sent):
            new = [known for known in found if not self._last_sent or known.pack not in self.pack_sizes]
            self._last_sent = found[0].pack
            if new:
                self._sent = KnownPacks([*new, *self._sent.packs])
        return self._sent

    def forget(self, contents: Collection[str]) -> None:
        if self._places:
            for content in contents:
                self._places.pop(bytes.fromhex(content), None)

    def _read(self, dataset: str) -> tuple[_Places, Mapping[str, int]]:
        try:
            head = read_head(self._store, dataset)
            if head is None:
                return {}, {}
            manifest = read_manifest(self._store, head.manifest_key)
            return _places(manifest), manifest.pack_sizes
        except (NotFound, IntegrityError, SettingsError):
            # Damaged, or written by a newer amlctl: it cannot be reused; `store verify` reports damage.
            return {}, {}


def _places(manifest: Manifest) -> _Places:
    return {
        bytes.fromhex(content): _PLACE.pack(bytes.fromhex(pack), offset, length, is_deflated) if pack else b""
        for content, (kind, pack, offset, length, is_deflated) in manifest.places.items()
        if kind is not Kind.MIRROR
    }


class KnownContents:
    """Looks contents up outside of HEAD; remembers the sizes of the packs that it names. For one thread.

    A pack is asked for at most once, and only when one of its contents is wanted.
    """

    def __init__(
        self,
        store: Store,
        store_key: str,
        state: SyncState,
        layout: Layout,
        datasets: DatasetContents,
        *,
        reads_datasets: bool,
    ) -> None:
        """`store_key`: what `state` knows the store by. `reads_datasets`: they are worth the requests; what the command
        has read of them before is used in any case."""
        self._store = store
        self._store_key = store_key
        self._state = state
        self._layout = layout
        self._datasets = datasets
        self._reads_datasets = reads_datasets
        self._is_there: dict[str, bool] = {}
        self._damaged: Collection[str] = ()
        self.pack_sizes: dict[str, int] = {}

    def distrust(self, contents: Collection[str]) -> None:
        """These content ids are not to be reused wherever they are: what is there was found damaged."""
        self._damaged = {*self._damaged, *contents}
        self._datasets.forget(contents)

    def packed(self, content: str) -> StoredAt | None:
        """Where a small content is in a pack that exists."""
        if content in self._damaged:
            return None
        place, sizes = self._in_dataset(content), self._datasets.pack_sizes
        if place is None and (place := self._sent_place(content)) is not None:
            self._look_for([place.pack])
            if not self._is_there[place.pack]:
                return None
            sizes = self._sent.sizes
        if place is not None and place.pack:
            self.pack_sizes[place.pack] = sizes[place.pack]
        return place

    def __call__(self, entries: Sequence[FileEntry]) -> Mapping[str, StoredAt]:
        found: dict[str, StoredAt] = {}
        large: list[FileEntry] = []
        contents = {entry.content_id for entry in entries} - set(self._damaged)
        sent = [self._sent_place(content) for content in contents if self._in_dataset(content) is None]
        self._look_for([place.pack for place in sent if place is not None])
        for entry in entries:
            place = self.packed(entry.content_id)
            if place is not None:
                found[entry.content_id] = place
            elif not self._layout.is_small(entry) and entry.content_id not in self._damaged:
                large.append(entry)
        keys = [object_key(entry.content_id) for entry in large]
        for entry, info in zip(large, in_parallel(self._store.info, keys, self._store.concurrency)):
            if info is not None and info.size_bytes == entry.size_bytes:
                found[entry.content_id] = OBJECT
        return found

    def _in_dataset(self, content: str) -> StoredAt | None:
        if self._reads_datasets:
            self._datasets.read()
        return self._datasets.place(content)

    def _sent_place(self, content: str) -> StoredAt | None:
        """Where this machine has put it, whether it arrived or not."""
        return self._sent.place(content)

    @cached_property
    def _sent(self) -> KnownPacks:
        return self._datasets.sent(self._state, self._store_key)

    def _look_for(self, packs: Sequence[str]) -> None:
        new = [pack for pack in dict.fromkeys(packs) if pack not in self._is_there]
        for pack, info in zip(new, in_parallel(self._store.info, map(pack_key, new), self._store.concurrency)):
            # A power cut may have cut it short.
            self._is_there[pack] = info is not None and info.size_bytes == self._sent.sizes[pack]
            if not self._is_there[pack]:
                self._state.forget_pack(self._store_key, pack)


_T = TypeVar("_T")
_TRIES = 4
ANY_SIZE = -1
_FEW = 64
"""Up to so many values are asked for one by one; of more the folders are listed."""


class ValuesLost(Conflict):
    """Values that a commit would have named are missing, or cut short. It is shown where sending `contents`, which are
    those whose bytes are lost, again does not help."""

    def __init__(self, keys: Collection[str], places: Mapping[str, StoredAt]) -> None:
        lost = some(sorted(keys), 3)
        super().__init__(f"the store has lost what was about to be committed: {lost}", hint=AGAIN)
        self.contents = {c for c, at in places.items() if at.kind is not Kind.MIRROR and key_of(c, at) in keys}


def repeated_if_lost(attempt: Callable[[Optional[Set[str]]], _T]) -> _T:
    """What `attempt` returns: a gc may delete what one is about to commit, so a few are made, each with the contents
    that those before it have lost (None: it is the first)."""
    lost: Optional[Set[str]] = None
    for _ in range(_TRIES - 1):
        try:
            return attempt(lost)
        except ValuesLost as error:
            lost = error.contents | (lost or set())
    return attempt(lost)


def values_named(manifest: Manifest, contents: Collection[str]) -> dict[str, int]:
    """Packs and objects that hold `contents`, with the size in bytes of each. The plain files of a mirror are not
    looked at: gc does not delete them."""
    values = values_of(manifest, set(contents))
    return {key: value.size_bytes for key, value in values.items() if not area_of(key).is_plain}


def ensure_kept(
    store: Store,
    watch: GcWatch,
    manifest: Manifest,
    written: Written,
    *,
    reused: Collection[str],
    sent: Collection[str] = (),
) -> None:
    """After the manifest was written, before it is committed. Raises ValuesLost.

    `reused` are contents of the manifest that were in the store already, `sent` those that were not. What HEAD names
    belongs to neither: gc keeps that.
    """
    if watch.was_quiet():
        wanted = {**values_named(manifest, reused), **dict.fromkeys(written.found, ANY_SIZE)}
    else:
        watch.wait()
        wanted = {**values_named(manifest, [*reused, *sent]), **dict.fromkeys(written.files, ANY_SIZE)}
    lost = missing_values(store, wanted)
    if lost:
        raise ValuesLost(lost, manifest.places)


def missing_values(store: Store, wanted: Mapping[str, int]) -> set[str]:
    """Those of the keys that are not in the store with that size in bytes."""
    if len(wanted) <= _FEW:
        found = (entry for entry in in_parallel(store.info, wanted, store.concurrency) if entry is not None)
    else:
        folders = {_folder_to_list(key) for key in wanted}
        found = (entry for folder in folders for entry in store.list(folder))
    return wanted.keys() - {entry.key for entry in found if wanted.get(entry.key) in (ANY_SIZE, entry.size_bytes)}


def _folder_to_list(key: str) -> str:
    """All packs or objects at once, since their folders are many; for others the one that the value is in."""
    top = key.partition("/")[0]
    return f"{top}/" if top in ("packs", "objects") else key.rpartition("/")[0] + "/"
