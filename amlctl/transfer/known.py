"""What a store holds besides the contents that a dataset's HEAD names, and how it is reused safely.

Sources, cheapest first: packs that this machine has sent (also those of a sync that was killed), the HEADs of
other datasets, and, for large files, the object of that name.

Reuse and `gc` keep out of each other's way: gc first writes the mark `gc/running`, then lists the manifests,
then deletes; a sync that reuses something which its HEAD does not hold first writes its manifest, then looks for
the mark, then makes sure that the reused values still exist. Whichever comes first is seen by the other.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from amlctl.core.manifest import OBJECT, FileEntry, Place, object_key, pack_key, parse_head
from amlctl.core.sync_plan import Layout
from amlctl.errors import Conflict, IntegrityError, NotFound
from amlctl.localfs.sync_state import SyncState
from amlctl.stores.contract import Store
from amlctl.transfer.heads import list_datasets
from amlctl.transfer.manifests import read_manifest

GC_MARK = "gc/running"


class KnownContents:
    """Looks contents up outside of HEAD; remembers the sizes of the packs that it names."""

    def __init__(self, store: Store, state: SyncState, layout: Layout, *, has_head: bool, max_workers: int) -> None:
        self._store = store
        self._state = state
        self._layout = layout
        self._has_head = has_head
        self._max_workers = max_workers
        self._packed: dict[str, Place] | None = None
        self._damaged: Collection[str] = ()
        self.pack_sizes: dict[str, int] = {}

    def distrust(self, contents: Collection[str]) -> None:
        """These content ids are not to be reused wherever they are: what is there was found damaged."""
        self._damaged = contents

    def packed(self) -> Mapping[str, Place]:
        """Every content in a pack that is known and exists; read once."""
        if self._packed is None:
            self._packed = {}
            for known, places in self._state.packs(self._store.url):
                if all(content in self._packed for content in places):
                    continue
                if self._store.info(pack_key(known.pack)) is None:
                    self._state.forget_pack(self._store.url, known.pack)
                    continue
                self.pack_sizes[known.pack] = known.size_bytes
                for content, place in places.items():
                    self._packed.setdefault(content, place)
            if not self._has_head:
                self._learn_from_other_datasets(self._packed)
        return self._packed

    def __call__(self, entries: Sequence[FileEntry]) -> Mapping[str, Place]:
        packed = self.packed()
        entries = [entry for entry in entries if entry.content_id not in self._damaged]
        found = {entry.content_id: packed[entry.content_id] for entry in entries if entry.content_id in packed}
        large = [entry for entry in entries if entry.content_id not in found and not self._layout.is_small(entry)]
        if large:
            with ThreadPoolExecutor(min(self._max_workers, len(large))) as pool:
                infos = pool.map(lambda entry: self._store.info(object_key(entry.content_id)), large)
                for entry, info in zip(large, infos):
                    if info is not None and info.size_bytes == entry.size_bytes:
                        found[entry.content_id] = OBJECT
        return found

    def _learn_from_other_datasets(self, packed: dict[str, Place]) -> None:
        for folder in list_datasets(self._store):
            try:
                head = parse_head(self._store.get(f"{folder}/HEAD"))
                manifest = read_manifest(self._store, head.manifest_key)
            except (NotFound, IntegrityError):
                # What cannot be read cannot be reused; `store verify` reports it.
                continue
            for content, place in manifest.places.items():
                if place.kind != "mirror":
                    packed.setdefault(content, place)
            self.pack_sizes.update(manifest.pack_sizes)


def ensure_kept(store: Store, places: Mapping[str, Place], max_workers: int) -> None:
    """After the manifest was written, before HEAD moves: raises Conflict where gc may take what it reuses."""
    keys = {pack_key(p.pack) if p.kind == "pack" else object_key(c) for c, p in places.items() if p.kind != "mirror"}
    if not keys:
        return
    try:
        mark = json.loads(store.get(GC_MARK))
    except NotFound:
        mark = None
    if mark is not None:
        raise Conflict(
            f"a gc of the store is under way since {mark.get('started_at')}",
            hint="run the sync again when it has ended; if it was killed, `amlctl store gc --yes` after an hour",
        )
    with ThreadPoolExecutor(min(max_workers, len(keys))) as pool:
        if any(info is None for info in pool.map(store.info, keys)):
            raise Conflict("a gc has just deleted what this sync reuses", hint="run the same command again")
