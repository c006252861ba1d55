"""Delete from a store what nothing needs any more.

Kept: everything that HEAD or one of the last ten snapshots of a dataset names, what existing runs name, and
everything younger than a day. The day is a courtesy to uploads that were cut off and will be resumed; what keeps those
under way safe is the protocol of `snapshots/gc_mark.py`: lease, fence, list, delete.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from amlctl.core.events import EventSink, Note
from amlctl.core.head import commit_of
from amlctl.core.manifest import Kind, repair_command
from amlctl.core.message import Command, Message
from amlctl.core.store_keys import (
    CODE,
    DATASETS,
    GC_KEY,
    area_of,
    code_index_key,
    code_of,
    code_prefix,
    dataset_of_key,
    folder_of,
    is_code_index_key,
    is_head_key,
    is_lease_key,
    is_manifest_key,
    object_key,
    pack_key,
    published_key,
    record_key,
    shard_key,
    snapshot_of,
)
from amlctl.errors import IntegrityError, NotFound
from amlctl.localfs.machine import passed_s
from amlctl.parallel import ended_by_interrupt, for_each, in_parallel
from amlctl.runs.records import heads_of_record, manifests_of_record, read_fields, read_published
from amlctl.snapshots.gc_mark import GcLease
from amlctl.snapshots.heads import fence, is_superseded, read_head, read_head_value
from amlctl.snapshots.lease import delete_all
from amlctl.snapshots.manifests import read_header, read_manifest
from amlctl.snapshots.store_format import ensure_format
from amlctl.stores.contract import Entry, Store

KEPT_SNAPSHOTS = 10
"""Snapshots of a dataset, HEAD included, that stay restorable."""
YOUNG_S = 24 * 3600
"""Seconds for which nothing is deleted, so that an upload that was cut off need not be sent again."""


@dataclass(frozen=True)
class GcResult:
    """`keys` are dead; they were deleted if `is_deleted`."""

    keys: Sequence[str]
    bytes: int
    is_deleted: bool

    def to_json(self) -> dict[str, Any]:
        return {"keys": list(self.keys), "bytes": self.bytes, "deleted": self.is_deleted}


def gc(
    store: Store,
    *,
    delete: bool,
    now: datetime,
    sink: EventSink,
    young_s: float = YOUNG_S,
    clock: Callable[[], float] = passed_s,
) -> GcResult:
    """`clock`, in seconds, tells how long the lease of this gc still holds.

    Raises IntegrityError where a manifest that must be kept cannot be read: then nothing is deleted; Conflict where
    another gc is running, or another command has continued without this one.
    """
    if not delete:
        with ended_by_interrupt(store):
            return _dead(store, now, young_s, sink, is_deleted=False)
    with GcLease(store, GC_KEY, sink, clock=clock) as lease, ended_by_interrupt(store):
        lease.take()
        _fence(store, lease)
        result = _dead(store, now, young_s, sink, is_deleted=True)
        for rank in range(_RANKS):
            keys = [key for key in result.keys if _rank(key) == rank]
            delete_all(store, keys, guard=lease.guard)
        store.sweep(young_s)
    return result


def _fence(store: Store, lease: GcLease) -> None:
    """Before what is needed is listed: see `snapshots/gc_mark.py`. Raises IntegrityError (a HEAD cannot be read)."""
    keys = [entry.key for entry in store.list(DATASETS)]
    datasets = sorted({dataset_of_key(key) for key in keys if is_head_key(key) or is_manifest_key(key)})
    heads = list(in_parallel(lambda dataset: read_head(store, dataset), datasets, store.concurrency))
    lease.raise_above(max((head.value.gc for head in heads if head is not None), default=0))
    store_id = ensure_format(store)
    for_each(lambda dataset: fence(store, dataset, lease.generation, store_id), datasets, store.concurrency)


def _dead(store: Store, now: datetime, young_s: float, sink: EventSink, *, is_deleted: bool) -> GcResult:
    entries = [entry for entry in store.list("") if entry.key != GC_KEY]
    live = _live_keys(store, entries, now.timestamp() - young_s)
    dead = [
        entry
        for entry in entries
        if _is_collectable(entry.key)
        and entry.key not in live
        and not _is_of_live_code(entry.key, live)
        and entry.modified_at < now.timestamp() - young_s
    ]
    sink(Note(f"{len(entries)} values looked at, {len(dead)} of them dead"))
    return GcResult([entry.key for entry in dead], sum(entry.size_bytes for entry in dead), is_deleted)


def _is_collectable(key: str) -> bool:
    return area_of(key).name in ("packs", "objects", "code", "datasets") and not is_lease_key(key)


def _is_of_live_code(key: str, live: Container[str]) -> bool:
    return key.startswith(CODE) and not is_code_index_key(key) and code_prefix(code_of(key)) in live


_RANKS = 3


def _rank(key: str) -> int:
    """Order of deletion: what names others goes before them, so that an index or a manifest which is there is whole."""
    if is_code_index_key(key) or is_manifest_key(key):
        return 0
    return 1 if key.startswith(DATASETS) else 2


def _live_keys(store: Store, entries: Sequence[Entry], young_after: float) -> set[str]:
    live: set[str] = set()
    heads: set[str] = set()
    kept: set[str] = set()
    present = {entry.key for entry in entries}
    folders_with_head = {folder_of(key) for key in present if is_head_key(key)}
    manifests: dict[str, list[Entry]] = {}
    commits: dict[str, Sequence[str]] = {}
    for entry in entries:
        folder, _, name = entry.key.rpartition("/")
        if is_code_index_key(entry.key) and entry.modified_at >= young_after:
            live.add(code_prefix(code_of(entry.key)))  # sent again not long ago: what it names is older
        elif is_head_key(entry.key):
            if is_superseded(folder, folders_with_head):
                continue
            live.add(entry.key)
            with suppress(NotFound):  # only a fence
                head = read_head_value(store, folder)
                heads.add(head.manifest_key)
                commits[dataset_of_key(entry.key)] = (head.commit, *head.before)
        elif is_manifest_key(entry.key):
            manifests.setdefault(dataset_of_key(entry.key), []).append(entry)
        elif entry.key.startswith("runs/") and name == "record.json":
            run_manifests, code = _named_by_run(store, folder.removeprefix("runs/"))
            kept.update(run_manifests)
            live.update((code_prefix(code), code_index_key(code)) if code else ())
        elif entry.key.startswith("runs/") and name == "published.json":
            kept.update(_published(store, folder.removeprefix("runs/")))
    for dataset, found in manifests.items():
        newest: list[str] = []
        for entry in _newest_first(found, commits.get(dataset, ())):
            snapshot = snapshot_of(entry.key)
            if snapshot not in newest:
                newest.append(snapshot)
            if snapshot in newest[:KEPT_SNAPSHOTS] or entry.modified_at >= young_after:
                kept.add(entry.key)
    for key in heads | kept:
        live.add(key)
        if key not in present and key not in heads:
            # A run may name a snapshot that was lost before; nothing of it is left to keep.
            continue
        try:
            live.update(_named_by_manifest(store, key))
        except (NotFound, IntegrityError) as error:
            what = f"a part of {key} is missing: {error.message}" if isinstance(error, NotFound) else error.message
            repair = repair_command(dataset_of_key(key))
            hint = repair if key in heads else f"that older snapshot is lost: delete {key} in {store.url}"
            raise IntegrityError(what, hint=Message(hint, ", then gc again")) from error
    return live


def _newest_first(manifests: Sequence[Entry], commits: Sequence[str]) -> list[Entry]:
    """As HEAD tells, as far as it goes back; then by their times, which are equal in a copied store, say."""
    order = {commit: number for number, commit in enumerate(commits)}

    def place(entry: Entry) -> tuple[int, float]:
        return order.get(commit_of(entry.key), len(order)), -entry.modified_at

    return sorted(manifests, key=place)


def _named_by_run(store: Store, run: str) -> tuple[list[str], str]:
    try:
        record = read_fields(store, run)
        return [*manifests_of_record(record), *heads_of_record(record)], record.text("code")
    except NotFound:
        return [], ""  # deleted in the meantime
    except ValueError as error:
        raise _unreadable(record_key(run), error, run) from error


def _published(store: Store, run: str) -> list[str]:
    try:
        return [named["manifest_key"] for named in read_published(store, run).values()]
    except IntegrityError as error:
        raise _unreadable(published_key(run), error.message, run) from error


def _unreadable(key: str, why: object, run: str) -> IntegrityError:
    """What it keeps is not known, so nothing may be deleted."""
    return IntegrityError(
        f"{key} cannot be read: {why}", hint=Message(Command("runs", "delete", run), ", then gc again")
    )


def _named_by_manifest(store: Store, key: str) -> set[str]:
    manifest = read_manifest(store, key)
    named = {shard_key(folder_of(key), name) for name in read_header(store, key).shards}
    for content, place in manifest.places.items():
        if place.kind is Kind.PACK:
            named.add(pack_key(place.pack))
        elif place.kind is Kind.OBJECT:
            named.add(object_key(content))
    return named
