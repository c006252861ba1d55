"""The end of a dataset that was removed: its plain files go, and nothing is left to restore."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from amlctl.core.events import EventSink, Note
from amlctl.core.head import HeadValue, encode_head
from amlctl.core.store_keys import head_key, lease_key
from amlctl.errors import Conflict
from amlctl.mirror.plain_files import MirrorLease
from amlctl.snapshots.gc_mark import GcLease
from amlctl.snapshots.heads import fence_writer, find_head, has_snapshots
from amlctl.snapshots.lease import delete_all
from amlctl.stores.contract import Store


def forget(
    store: Store, dataset: str, plain_files: Sequence[str], sink: EventSink, gc: GcLease, *, clock: Callable[[], float]
) -> bool:
    """False where the dataset is in use again, or its plain files are being written. Raises Conflict where the lease of
    the gc was lost."""
    try:
        with _Impatient(store, lease_key(dataset), sink, clock=clock) as lease:
            if plain_files:
                lease.take()
                if lease.was_taken_over:
                    fence_writer(store, dataset)
            head = find_head(store, dataset)
            if head is None or not head.value.removed_at:
                return False
            guard = lease.guard

            def check() -> None:
                gc.check()
                lease.check()

            delete_all(store, plain_files, guard=guard._replace(check=check))
    except _Busy as busy:
        sink(Note(busy.message))
        return False
    if not has_snapshots(store, dataset):
        value = HeadValue("", "", store_id=head.value.store_id, gc=head.value.gc)
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
        raise _Busy(f"{self._dataset}: {holder} writes its plain files; keeping them")
