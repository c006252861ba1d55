"""Before a commit: what it names is in the store, with its size (see `gc_mark.py` for the protocol)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from amlctl.core.manifest import Kind, Manifest, StoredAt, needs_no_bytes
from amlctl.core.store_keys import object_key, pack_key
from amlctl.errors import Conflict
from amlctl.parallel import in_parallel
from amlctl.snapshots.gc_mark import GcWatch
from amlctl.snapshots.manifests import Written
from amlctl.stores.contract import Store

ANY_SIZE = -1
_FEW = 64
"""Up to so many values are asked for one by one; of more the folders are listed."""


class ValuesLost(Exception):
    """Values that a commit would have named are missing, or cut short. `told` is for the user, where sending them again
    does not help."""

    def __init__(self, keys: Collection[str]) -> None:
        self.keys = frozenset(keys)
        some = ", ".join(sorted(keys)[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
        self.told = Conflict(
            f"the store has lost what was about to be committed: {some}", hint="run the same command again"
        )
        super().__init__(self.told)

    def contents(self, places: Mapping[str, StoredAt]) -> set[str]:
        """Content ids whose bytes are lost."""
        return {c for c, place in places.items() if place.kind is not Kind.MIRROR and key_of(c, place) in self.keys}


def key_of(content: str, place: StoredAt) -> str:
    """Of a content in a pack or an object."""
    return pack_key(place.pack) if place.kind is Kind.PACK else object_key(content)


def values_named(manifest: Manifest, contents: Collection[str]) -> dict[str, int]:
    """Packs and objects that hold `contents`, with the size in bytes of each. The plain files of a mirror are not
    looked at: gc does not delete them."""
    named: dict[str, int] = {}
    wanted = set(contents)
    for entry in manifest.entries if wanted else ():
        content = entry.content_id
        if content not in wanted or needs_no_bytes(entry):
            continue
        place = manifest.places[content]
        if place.kind is Kind.PACK:
            named[pack_key(place.pack)] = manifest.pack_sizes[place.pack]
        elif place.kind is Kind.OBJECT:
            named[object_key(content)] = entry.size_bytes
    return named


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
        raise ValuesLost(lost)


def missing_values(store: Store, wanted: Mapping[str, int]) -> set[str]:
    """Keys that are not in the store with that size in bytes."""
    if len(wanted) <= _FEW:
        found = in_parallel(store.info, wanted, store.concurrency)
        there = {entry.key: entry.size_bytes for entry in found if entry is not None}
    else:
        folders = {_folder_to_list(key) for key in wanted}
        there = {entry.key: entry.size_bytes for folder in folders for entry in store.list(folder)}
    return {key for key, size in wanted.items() if key not in there or size not in (ANY_SIZE, there[key])}


def _folder_to_list(key: str) -> str:
    """All packs or objects at once, since their folders are many; for others the one that the value is in."""
    top = key.partition("/")[0]
    return f"{top}/" if top in ("packs", "objects") else key.rpartition("/")[0] + "/"
