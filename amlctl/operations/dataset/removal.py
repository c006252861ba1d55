"""Remove a dataset from a store, and bring it back.

A removal moves HEAD to one without a snapshot, by a swap as every commit: a sync that is under way loses it, and says
so. Nothing is deleted then. `store gc` deletes the snapshots 30 days later, but those that runs still name.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from amlctl.core.events import EventSink
from amlctl.core.head import Head, commit_of
from amlctl.core.manifest import Kind, Manifest
from amlctl.core.message import AGAIN, Command, Message, below_data_blobs, count, if_intended, size
from amlctl.core.store_keys import folder_of, head_key, mirror_key, shard_key
from amlctl.errors import Conflict, NeedsConfirmation, NotFound
from amlctl.localfs.machine import user_at_host
from amlctl.operations.context import Document, iso_time
from amlctl.operations.dataset.listing import not_stored, runs_in, stored_head
from amlctl.snapshots.gc_mark import GcWatch
from amlctl.snapshots.heads import find_head, list_manifests, swap_head
from amlctl.snapshots.known import ValuesLost, ensure_kept, missing_values
from amlctl.snapshots.manifests import Written, read_header, read_manifest
from amlctl.stores.contract import Store

_TRIES = 8
_CLOCK_LIMIT_S = 60.0
"""Less decides nothing about 30 days."""


@dataclass(frozen=True)
class RemovalResult(Document):
    """`snapshot` is the one that `restore` brings back."""

    dataset: str
    snapshot: str
    files: int
    bytes: int


def remove(store: Store, dataset: str, *, now: datetime, is_sure: bool) -> RemovalResult:
    """Raises NotFound, NeedsConfirmation (with the runs that use it), IntegrityError."""
    for _ in range(_TRIES):
        head = stored_head(store, dataset)
        header = read_header(store, head.manifest_key)
        if not is_sure:
            raise NeedsConfirmation(
                f"dataset {dataset} ({count(header.files, 'file')}, {size(header.size_bytes)}) would be removed from "
                f"{store.url}",
                hint=if_intended("dataset", "remove", dataset),
                details=_uses(store, dataset),
            )
        value = Head("", "", removed_at=now.isoformat(timespec="seconds"), removed_by=user_at_host())
        try:
            removed = swap_head(store, dataset, value, head)
        except Conflict:
            continue  # synced at the same time
        _date_by_store(store, dataset, removed, now)
        return RemovalResult(dataset, head.snapshot, header.files, header.size_bytes)
    raise Conflict(f"{dataset} is being synced all the time", hint=AGAIN)


def _date_by_store(store: Store, dataset: str, removed: Head, now: datetime) -> None:
    """Where this machine's clock is behind the store's, a gc would take the removal for an older one."""
    entry = store.info(head_key(dataset))
    if entry is None or entry.modified_at - now.timestamp() <= _CLOCK_LIMIT_S:
        return
    at = iso_time(entry.modified_at)
    with suppress(Conflict):  # it was restored or synced meanwhile
        swap_head(store, dataset, removed._replace(removed_at=at), removed)


def _uses(store: Store, dataset: str) -> Sequence[str]:
    lines, readers = list[str](), list[str]()
    for use in runs_in(store):
        if use.is_active and dataset in use.produces:
            lines.append(f"run {use.run} is active and will produce it")
        elif use.is_active and dataset in use.datasets:
            lines.append(f"run {use.run} is active and reads it; it keeps what it reads")
        elif dataset in use.datasets:
            readers.append(use.run)
    if readers[1:]:
        lines.append(f"{len(readers):,} runs have read it; those snapshots are kept as long as the runs")
    elif readers:
        lines.append(f"run {readers[0]} has read it; that snapshot is kept as long as the run")
    return lines


def restore(store: Store, dataset: str, sink: EventSink) -> RemovalResult:
    """Raises NotFound (it was not removed, or its files are gone), IntegrityError, Conflict."""
    watch = GcWatch(store, sink)
    for _ in range(_TRIES):
        watch.note()
        head = find_head(store, dataset)
        if head is None or (head.is_fence and not head.removed_at):
            raise not_stored(store, dataset)
        if not head.removed_at:
            raise NotFound(f"{dataset} is not removed", hint=Command("dataset", "show", dataset))
        key = _last_manifest(store, dataset, head)
        manifest = read_manifest(store, key)
        _ensure_whole(store, watch, manifest, key)
        try:
            value = Head(manifest.snapshot, key, manifest.layout)
            swap_head(store, dataset, value, head, generation=watch.generation)
        except Conflict:
            continue  # a gc has passed, or someone has restored or synced it
        return RemovalResult(dataset, manifest.snapshot, len(manifest.entries), manifest.size_bytes)
    raise Conflict(f"{dataset} is in use by others", hint=AGAIN)


def _last_manifest(store: Store, dataset: str, head: Head) -> str:
    last = head.before[:1]
    for entry in list_manifests(store, dataset):
        if commit_of(entry.key) in last:
            return entry.key
    raise _is_gone(dataset)


def _ensure_whole(store: Store, watch: GcWatch, manifest: Manifest, key: str) -> None:
    """All that HEAD is about to name is there, and no gc deletes it. Raises NotFound."""
    files = (key, *(shard_key(folder_of(key), name) for name in manifest.shards))
    plain = {
        mirror_key(manifest.dataset, entry.path): entry.size_bytes
        for entry in manifest.entries
        if manifest.places.get(entry.content_id, (None,))[0] is Kind.MIRROR
    }
    try:
        ensure_kept(store, watch, manifest, Written(key, files, files), reused=manifest.places)
    except ValuesLost as error:
        raise _is_gone(manifest.dataset) from error
    if missing_values(store, plain):
        raise _is_gone(manifest.dataset)


def _is_gone(dataset: str) -> NotFound:
    return NotFound(
        f"{dataset} cannot be restored: a gc has deleted its files",
        hint=Message("where a copy is: ", Command("sync", "--force", below_data_blobs(dataset))),
    )
