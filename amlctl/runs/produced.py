"""Make what a run has produced the newest snapshot of its dataset, beside what others have synced meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from amlctl.core.diff import merge
from amlctl.core.events import EventSink, null_sink
from amlctl.core.head import HeadValue
from amlctl.core.manifest import MIRROR, Kind, Manifest, empty_manifest
from amlctl.core.message import Command
from amlctl.core.store_keys import dataset_folder, shard_key
from amlctl.core.wording import below_data_blobs, count
from amlctl.errors import Conflict, NotFound
from amlctl.mirror.nested import mirrors_sharing_files
from amlctl.mirror.plain_files import misplaced, with_plain_files
from amlctl.snapshots.gc_mark import GcWatch
from amlctl.snapshots.heads import Head, fence_writer, read_head, swap_head
from amlctl.snapshots.kept import ValuesLost, ensure_kept
from amlctl.snapshots.lease import MirrorLease
from amlctl.snapshots.manifests import Written, read_header, read_manifest, write_manifest
from amlctl.stores.contract import Store


def make_newest(
    store: Store,
    dataset: str,
    manifest_key: str,
    base_key: Optional[str],
    *,
    source: Optional[Store] = None,
    sink: EventSink = null_sink,
) -> HeadValue:
    """Move HEAD to the manifest, or to its merge with a HEAD that moved; what HEAD names then.

    `base_key` names the manifest that HEAD named when the run was submitted (None: there was none). `source`, a folder
    with what the run has written, is where the plain files of a mirror come from; without it they stay as they are.
    Raises Conflict where the run and somebody else have changed the same file: HEAD stays as it is, and the snapshot
    is kept.
    """
    header = read_header(store, manifest_key)
    produced = HeadValue(header.snapshot, manifest_key, header.layout)
    with MirrorLease(store, dataset, sink) as lease:
        watch = GcWatch(store, sink)
        while True:
            watch.note()
            head = read_head(store, dataset)
            if head is not None and head.snapshot == produced.snapshot:
                return head.value
            has_moved = head is not None and head.manifest_key != base_key
            layout = head.layout if head is not None and has_moved else produced.layout
            if layout == "mirror" and source is not None and not lease.is_held:
                lease.take()
                if lease.was_taken_over:
                    fence_writer(store, dataset)
                continue  # HEAD may have moved while we waited
            value = _beside(store, produced, head, base_key, source, lease, watch, is_merged=has_moved)
            if head is not None and value.manifest_key == head.manifest_key:
                return head.value  # it was done before
            try:
                return swap_head(store, dataset, value, head, generation=watch.generation).value
            except Conflict:
                continue  # somebody was faster: look again at what HEAD is now


def _beside(
    store: Store,
    produced: HeadValue,
    head: Optional[Head],
    base_key: Optional[str],
    source: Optional[Store],
    lease: MirrorLease,
    watch: GcWatch,
    *,
    is_merged: bool,
) -> HeadValue:
    """What HEAD shall name: its manifest is written, its bytes are there, and so are its plain files where the lease is
    held."""
    newest = read_manifest(store, produced.manifest_key)
    dataset = newest.dataset
    present = empty_manifest(dataset) if head is None else read_manifest(store, head.manifest_key)
    if is_merged:
        newest = _merged(store, newest, present, base_key)
    try:
        if source is not None and lease.is_held and not mirrors_sharing_files(store, dataset, newest.entries):
            newest = with_plain_files(store, source, newest, present, lease)
        if head is not None and (newest.snapshot, newest.places) == (head.snapshot, present.places):
            return head.value
        if is_merged or lease.is_held:
            written = write_manifest(store, newest)
        else:
            shards = (shard_key(dataset_folder(dataset), name) for name in newest.shards)
            written = Written(produced.manifest_key, (), (produced.manifest_key, *shards))
        # Theirs are kept by HEAD; of ours the run's node may not have seen a gc that was under way.
        ours = [c for c, place in newest.places.items() if place != MIRROR and present.places.get(c) != place]
        ensure_kept(store, watch, newest, written, reused=ours)
        lease.confirm()
    except ValuesLost as error:
        raise Conflict(
            f"{dataset}: a gc has deleted what the run has produced before it was committed ({error.told.message})",
            hint="run the script again",
        ) from error
    except Conflict as error:
        raise _not_newest(dataset, produced.snapshot, error.message) from error
    return HeadValue(newest.snapshot, written.key, newest.layout)


def _merged(store: Store, ours: Manifest, theirs: Manifest, base_key: Optional[str]) -> Manifest:
    try:
        base = empty_manifest(ours.dataset) if base_key is None else read_manifest(store, base_key)
    except NotFound:  # gc has taken it: then nothing counts as deleted
        base = empty_manifest(ours.dataset)
    merged = merge(base.entries, ours.entries, theirs.entries)
    if merged.conflicts:
        raise _overtaken(ours, merged.conflicts)
    sent = {content: place for content, place in ours.places.items() if place != MIRROR}
    places = {**ours.places, **theirs.places, **sent}
    live = {entry.content_id for entry in merged.entries}
    places = {content: place for content, place in places.items() if content in live}
    sizes = {**theirs.pack_sizes, **ours.pack_sizes}
    packs = {place.pack for place in places.values() if place.kind is Kind.PACK}
    newest = Manifest(
        ours.dataset,
        theirs.layout,
        merged.entries,
        places,
        {pack: sizes[pack] for pack in packs},
        shards=theirs.shards,
    )
    if replaced := misplaced(newest, theirs):
        raise _overtaken(ours, replaced)
    return newest


def _overtaken(ours: Manifest, paths: Sequence[str]) -> Conflict:
    named = ", ".join(paths[:3]) + (", …" if len(paths) > 3 else "")
    why = f"{count(len(paths), 'file')} produced here, and changed by somebody else meanwhile ({named})"
    return _not_newest(ours.dataset, ours.snapshot, why, paths)


def _not_newest(dataset: str, snapshot: str, why: str, details: Sequence[str] = ()) -> Conflict:
    return Conflict(
        f"{dataset}: {why}; snapshot {snapshot} is kept, but is not the newest",
        hint=Command("sync", "--pull", "--snapshot", snapshot[:12], below_data_blobs(dataset)),
        details=details,
    )
