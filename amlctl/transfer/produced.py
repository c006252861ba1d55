"""Make what a run has produced the newest snapshot of its dataset, beside what others have synced meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from amlctl.core.diff import merge
from amlctl.core.manifest import HeadValue, Manifest, empty_manifest
from amlctl.core.wording import count, typed_dataset
from amlctl.errors import Conflict, NotFound
from amlctl.stores.contract import Store
from amlctl.transfer.heads import Head, read_head, swap_head
from amlctl.transfer.known import ensure_kept
from amlctl.transfer.manifests import read_header, read_manifest, write_manifest


def make_newest(store: Store, dataset: str, manifest_key: str, base_key: Optional[str]) -> str:
    """Move HEAD to the manifest, or to its merge with a HEAD that moved; the snapshot that HEAD names then.

    `base_key` names the manifest that HEAD named when the run was submitted (None: there was none). Raises Conflict
    where the run and somebody else have changed the same file: HEAD stays as it is, and the snapshot is kept.
    """
    header = read_header(store, manifest_key)
    produced = HeadValue(header.snapshot, manifest_key, header.layout)
    while True:
        head = read_head(store, dataset)
        if head is not None and head.snapshot == produced.snapshot:
            return produced.snapshot
        is_ours = (None if head is None else head.manifest_key) == base_key
        value = produced if head is None or is_ours else _merged(store, dataset, manifest_key, base_key, head)
        try:
            return swap_head(store, dataset, value, head).snapshot
        except Conflict:
            continue  # somebody was faster: look again at what HEAD is now


def _merged(store: Store, dataset: str, manifest_key: str, base_key: Optional[str], head: Head) -> HeadValue:
    ours, theirs = read_manifest(store, manifest_key), read_manifest(store, head.manifest_key)
    try:
        base = empty_manifest(dataset) if base_key is None else read_manifest(store, base_key)
    except NotFound:  # gc has taken it: then nothing counts as deleted
        base = empty_manifest(dataset)
    merged = merge(base.entries, ours.entries, theirs.entries)
    if merged.conflicts:
        named = ", ".join(merged.conflicts[:3]) + (", …" if len(merged.conflicts) > 3 else "")
        why = f"{count(len(merged.conflicts), 'file')} produced here, and changed by somebody else meanwhile ({named})"
        raise _not_newest(dataset, ours.snapshot, why, merged.conflicts)
    places = {**theirs.places, **ours.places}
    live = {entry.content_id for entry in merged.entries}
    places = {content: place for content, place in places.items() if content in live}
    sizes = {**theirs.pack_sizes, **ours.pack_sizes}
    packs = {place.pack for place in places.values() if place.kind == "pack"}
    manifest = Manifest(
        dataset,
        theirs.layout,
        merged.entries,
        places,
        {pack: sizes[pack] for pack in packs},
        shards=theirs.shards,
    )
    written = write_manifest(store, manifest)
    try:
        # Their bytes are kept by HEAD, ours by the list of what the run has published.
        ensure_kept(store, {}, written.found, 4)
    except Conflict as error:
        raise _not_newest(dataset, ours.snapshot, error.message) from error
    return HeadValue(manifest.snapshot, written.key, manifest.layout)


def _not_newest(dataset: str, snapshot: str, why: str, details: Sequence[str] = ()) -> Conflict:
    return Conflict(
        f"{dataset}: {why}; snapshot {snapshot} is kept, but is not the newest",
        hint=f"amlctl sync --pull --snapshot {snapshot[:12]} {typed_dataset(dataset)}",
        details=details,
    )
