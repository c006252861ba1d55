"""Delete from a store what nothing needs any more.

Kept: everything that HEAD or one of the last ten snapshots of a dataset names, what existing runs name, and
everything younger than a day; of a dataset that was removed, its snapshots for 30 days (`KeepRules`). What keeps
uploads under way safe is not their age but the protocol of `snapshots/gc_mark.py`: lease, fence, list, delete.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amlctl.core.events import EventSink, Note
from amlctl.core.head import Head, encode_head
from amlctl.core.message import count
from amlctl.core.store_keys import (
    CODE,
    DATASETS,
    GC_KEY,
    area_of,
    code_of,
    code_prefix,
    dataset_of_key,
    head_key,
    is_code_index_key,
    is_head_key,
    is_lease_key,
    is_manifest_key,
    lease_key,
)
from amlctl.errors import Conflict
from amlctl.localfs.machine import passed_s
from amlctl.mirror.plain_files import MirrorLease
from amlctl.operations.store.needed import KeepRules, Needed, needed
from amlctl.parallel import ended_by_interrupt, for_each, in_parallel
from amlctl.snapshots.gc_mark import GcLease
from amlctl.snapshots.heads import fence, fence_writer, find_head, has_snapshots, read_head
from amlctl.snapshots.lease import delete_all
from amlctl.snapshots.store_format import ensure_format
from amlctl.stores.contract import Entry, Store


@dataclass(frozen=True)
class GcResult:
    """`keys` are dead; they were deleted if `is_deleted`."""

    keys: Sequence[str]
    bytes: int
    is_deleted: bool

    def to_json(self) -> dict[str, Any]:
        return {"keys": list(self.keys), "bytes": self.bytes, "deleted": self.is_deleted}


def gc(
    store: Store, rules: KeepRules, *, delete: bool, sink: EventSink, clock: Callable[[], float] = passed_s
) -> GcResult:
    """By `clock`, in seconds, the lease of this gc runs out.

    Raises IntegrityError where a manifest that must be kept cannot be read: then nothing is deleted; Conflict where
    another gc is running, or another command has continued without this one.
    """
    if not delete:
        with ended_by_interrupt(store):
            return _result(_dead(store, rules, sink)[0], is_deleted=False)
    with GcLease(store, GC_KEY, sink, clock=clock) as lease, ended_by_interrupt(store):
        lease.take()
        _fence(store, lease)
        dead, forgotten = _dead(store, rules, sink)
        for rank in range(_RANKS):
            keys = [entry.key for entry in dead if _rank(entry.key) == rank]
            delete_all(store, keys, guard=lease.guard)
        kept: set[str] = set()
        for dataset, plain in forgotten.items():
            kept.update(() if forget(store, dataset, plain, sink, lease, clock=clock) else plain)
        store.sweep(rules.young_s)
    return _result([entry for entry in dead if entry.key not in kept], is_deleted=True)


def _fence(store: Store, lease: GcLease) -> None:
    """Before what is needed is listed: see `snapshots/gc_mark.py`. Raises IntegrityError (a HEAD cannot be read)."""
    keys = [entry.key for entry in store.list(DATASETS)]
    datasets = sorted({dataset_of_key(key) for key in keys if is_head_key(key) or is_manifest_key(key)})
    heads = list(in_parallel(lambda dataset: read_head(store, dataset), datasets, store.concurrency))
    lease.raise_above(max((head.gc for head in heads if head is not None), default=0))
    store_id = ensure_format(store)
    for_each(lambda dataset: fence(store, dataset, lease.generation, store_id), datasets, store.concurrency)


def _dead(store: Store, rules: KeepRules, sink: EventSink) -> tuple[Sequence[Entry], Mapping[str, Sequence[str]]]:
    """What is not needed; and of which datasets nothing is to be remembered, with their plain files among it."""
    entries = [entry for entry in store.list("") if entry.key != GC_KEY]
    found = needed(store, entries, rules)
    plain = {key for keys in found.forgotten.values() for key in keys}
    dead = [entry for entry in entries if entry.modified_at < rules.young_after and _is_dead(entry.key, found, plain)]
    forgotten = {dataset: [e.key for e in dead if e.key in keys] for dataset, keys in found.forgotten.items()}
    sink(Note(f"Checked {count(len(entries), 'object')}"))
    return dead, forgotten


def _is_dead(key: str, found: Needed, plain: Container[str]) -> bool:
    is_code = key.startswith(CODE) and not is_code_index_key(key)
    is_needed = key in found.keys or (is_code and code_prefix(code_of(key)) in found.keys)
    is_collectable = area_of(key).name in ("packs", "objects", "code", "datasets") and not is_lease_key(key)
    return key in plain or (is_collectable and not is_needed)


def _result(dead: Sequence[Entry], *, is_deleted: bool) -> GcResult:
    return GcResult([entry.key for entry in dead], sum(entry.size_bytes for entry in dead), is_deleted)


_RANKS = 3


def _rank(key: str) -> int:
    """Order of deletion: what names others goes before them, so that an index or a manifest which is there is whole.
    Plain files have none: they go last, under the lease of their mirror."""
    if area_of(key).is_plain:
        return _RANKS
    if is_code_index_key(key) or is_manifest_key(key):
        return 0
    return 1 if key.startswith(DATASETS) else 2


def forget(
    store: Store,
    dataset: str,
    plain_files: Sequence[str],
    sink: EventSink,
    running: GcLease,
    *,
    clock: Callable[[], float],
) -> bool:
    """The end of a dataset that was removed: its plain files go, and nothing is left to restore. False where it is in
    use again, or its plain files are being written. Raises Conflict where the lease of the `running` gc was lost."""
    try:
        with _Impatient(store, lease_key(dataset), sink, clock=clock) as lease:
            if plain_files:
                lease.take()
                if lease.was_taken_over:
                    fence_writer(store, dataset)
            head = find_head(store, dataset)
            if head is None or not head.removed_at:
                return False
            guard = lease.guard

            def check() -> None:
                running.check()
                lease.check()

            delete_all(store, plain_files, guard=guard._replace(check=check))
    except _Busy as busy:
        sink(Note(busy.message))
        return False
    if not has_snapshots(store, dataset):
        value = Head("", "", store_id=head.store_id, gc=head.gc)
        try:
            store.swap(head_key(dataset), encode_head(value, dataset), expected=head.version or None)
        except Conflict:
            return True  # it was restored or synced again: that looks for what it needs by itself
    return True


class _Busy(Conflict):
    pass


class _Impatient(MirrorLease):
    """A writer of plain files may wait for this gc to end, so this one does not wait for it."""

    def _refuse(self, holder: str) -> None:
        raise _Busy(f"{self.dataset}: {holder} writes its plain files; keeping them")
