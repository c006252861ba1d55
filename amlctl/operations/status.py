"""What a sync would do, without doing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from amlctl.core.diff import diff
from amlctl.core.events import Warned
from amlctl.core.head import Head
from amlctl.errors import NotFound, StoreGone
from amlctl.localfs.known_stores import known_store, remember_store
from amlctl.operations.context import Context, Document
from amlctl.operations.dataset.listing import StoredNames, stored_names
from amlctl.operations.sync.dataset_state import DatasetState, LocalState, local_state, look_at
from amlctl.operations.sync.merge import agreed_entries, was_removed
from amlctl.operations.sync.result import SyncOptions
from amlctl.snapshots.heads import has_snapshots, no_head
from amlctl.snapshots.store_format import find_store_id


@dataclass(frozen=True)
class DatasetStatus(Document):
    """Paths that differ from the last sync; from HEAD where this machine never synced, and then none counts as deleted:
    a sync would delete none. `remote_moved`: HEAD is not where this machine left it. `snapshot` is HEAD's, or None.
    `here`: the dataset is on this machine; one that is not has no list of deleted files either. `removed`: when it was
    removed from the store (ISO 8601), if it was. `store_gone`: the store is not there, which says nothing of it."""

    dataset: str
    new: Sequence[str]
    modified: Sequence[str]
    deleted: Sequence[str]
    remote_moved: bool
    snapshot: str | None
    here: bool = True
    removed: str = ""
    store_gone: bool = False


def all_datasets(context: Context) -> Mapping[str, Head | None]:
    """What `status` shows where nothing is named: datasets of the store, and those that were synced from here and still
    exist here; the latter alone, with a warning, where the store is gone. With HEADs as far as they were read."""
    with local_state(context, "amlctl status", is_reading=True) as state:
        return known_datasets(context, state)


def status(context: Context, dataset: str, options: SyncOptions, *, head: Head | None = None) -> DatasetStatus:
    """`head`: if it was read already. Raises NotFound (neither here nor in the store), StoreGone (and not here)."""
    with local_state(context, "amlctl status", is_reading=True) as state:
        looked = look_at(context, dataset, options, state, is_local_enough=True, known_head=head)
        return _status(looked)


def _status(looked: DatasetState) -> DatasetStatus:
    store, dataset = looked.store, looked.dataset
    head, base = looked.head, looked.agreement.base
    removed = "" if looked.removed is None else looked.removed.removed_at
    if looked.removed is not None and looked.scanned is None:
        raise was_removed(dataset, looked.removed, NotFound)
    if looked.scanned is None and looked.store_gone is not None:
        raise looked.store_gone
    if looked.scanned is None and head is None:
        if has_snapshots(store, dataset):
            raise no_head(store, dataset)
        raise NotFound(f"dataset {dataset} not found, neither here nor in the store", hint="check the path")
    remote_moved = head is not None and (base is None or base.snapshot != head.snapshot)
    agreed = None if base is None else base.snapshot
    is_new = base is None and not looked.agreement.under_way
    snapshot = None if head is None else head.snapshot
    found = DatasetStatus(dataset, (), (), (), remote_moved, snapshot, here=looked.scanned is not None, removed=removed)
    if looked.scanned is None:
        return found
    found = replace(found, store_gone=looked.store_gone is not None)
    settled = None if looked.agreement.under_way else looked.settled
    if settled is not None and settled.snapshot == (agreed or snapshot):
        return found
    local = looked.identify().entries
    stored = looked.head_manifest()
    changes = diff(stored.entries if is_new else agreed_entries(looked, local, stored), local)
    deleted = () if is_new else changes.deleted  # what was never here was not deleted here
    return replace(found, new=changes.added, modified=changes.modified, deleted=deleted)


def known_datasets(context: Context, state: LocalState) -> Mapping[str, Head | None]:
    """See `all_datasets`."""
    project, store = context.project, context.store
    try:
        stored, store_id = all_stored(context), find_store_id(store)
    except StoreGone as gone:
        context.sink(Warned(gone.message))
        known = known_store(project.state_dir, store.url)
        stored, store_id = StoredNames([], [], {}), "" if known is None else known.id
    synced = {dataset for key in (store_id, store.url) for dataset in state.sync.datasets(key)}
    here = {dataset for dataset in synced if project.dataset_path(dataset).exists()}
    for name in stored.without_head:
        if name not in here:
            context.sink(Warned(no_head(store, name).message))
    return {name: stored.heads.get(name) for name in sorted(here | {*stored.datasets})}


def all_stored(context: Context) -> StoredNames:
    """Completion knows them from then on. Raises IntegrityError where none has a HEAD."""
    store = context.store
    names = stored_names(store)
    remember_store(context.project.state_dir, store.url, datasets=names.datasets)
    if names.without_head and not names.datasets:
        raise no_head(store, names.without_head[0])
    return names
