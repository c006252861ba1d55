"""What a store has: its datasets with their snapshots, what they hold, who wrote them, which runs use them; and how
much of each kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from itertools import compress
from typing import Any, NamedTuple

from amlctl.core.head import Head
from amlctl.core.manifest import ManifestHeader, StoredLayout
from amlctl.core.message import Command, Message, below_data_blobs, did_you_mean
from amlctl.core.run_state import is_final
from amlctl.core.store_keys import (
    DATASETS,
    RUNS,
    dataset_of_key,
    is_manifest_key,
    snapshot_of,
)
from amlctl.errors import AmlctlError, IntegrityError, NotFound, SettingsError
from amlctl.localfs.known_stores import remember_store
from amlctl.operations.context import Context, Document, iso_time
from amlctl.operations.store.needed import REMOVED_S
from amlctl.operations.sync.merge import was_removed
from amlctl.parallel import in_parallel
from amlctl.runs.records import manifests_of_record, read_fields
from amlctl.snapshots.heads import (
    datasets_with_head,
    find_head,
    list_manifests,
    no_head,
    read_head,
    without_head,
)
from amlctl.snapshots.manifests import read_header
from amlctl.stores.contract import Entry, Store


@dataclass(frozen=True)
class StoredSnapshot:
    """`written_at` in ISO 8601, UTC: when its newest manifest came."""

    snapshot: str
    written_at: str


@dataclass(frozen=True)
class SnapshotDetails(StoredSnapshot):
    """`runs` are ids of those that read it."""

    layout: StoredLayout
    files: int
    bytes: int
    written_by: str
    runs: Sequence[str]


@dataclass(frozen=True)
class StoredDataset:
    """A dataset at its HEAD. `written_by` is a person and a machine, or a run; empty from versions that did not record
    it. `snapshots` are all of it that the store still lists, newest first."""

    dataset: str
    snapshot: str
    layout: StoredLayout
    files: int
    bytes: int
    written_at: str
    written_by: str
    snapshots: Sequence[StoredSnapshot]


@dataclass(frozen=True)
class DatasetDetails(StoredDataset, Document):
    """`produced_by`: active runs that will write it."""

    snapshots: Sequence[SnapshotDetails]
    produced_by: Sequence[str]


@dataclass(frozen=True)
class RemovedDataset:
    """`restorable_until`: a later gc may delete it."""

    dataset: str
    removed_at: str
    removed_by: str
    restorable_until: str


@dataclass(frozen=True)
class DatasetList:
    """What a store has, and which of its datasets are on this machine (`here`)."""

    store: str
    datasets: Sequence[StoredDataset] = ()
    removed: Sequence[RemovedDataset] = ()
    without_head: Sequence[str] = ()
    here: Collection[str] = ()

    def to_json(self) -> dict[str, Any]:
        document = asdict(self)
        del document["here"]
        for one in document["datasets"]:
            one["here"] = one["dataset"] in self.here
        return document


def list_datasets(context: Context) -> DatasetList:
    """See `list_stored`. Completion knows the datasets from then on."""
    found, project = list_stored(context.store), context.project
    names = [one.dataset for one in found.datasets]
    remember_store(project.state_dir, found.store, datasets=names)
    return replace(found, here={name for name in names if project.dataset_path(name).exists()})


def list_stored(store: Store, entries: Iterable[Entry] | None = None) -> DatasetList:
    """`entries` are what the store lists below `datasets/`, if that is known. Raises IntegrityError where a HEAD or a
    manifest cannot be read."""
    listed = [*(store.list(DATASETS) if entries is None else entries)]
    written: dict[str, dict[str, float]] = {}
    for entry in listed:
        if is_manifest_key(entry.key):
            found = written.setdefault(dataset_of_key(entry.key), {})
            snapshot = snapshot_of(entry.key)
            found[snapshot] = max(entry.modified_at, found.get(snapshot, 0.0))
    keys = [entry.key for entry in listed]

    def read(dataset: str) -> StoredDataset | RemovedDataset | None:
        head = find_head(store, dataset)
        if head is None:
            return None  # deleted in the meantime
        if head.removed_at:
            until = datetime.fromisoformat(head.removed_at) + timedelta(seconds=REMOVED_S)
            return RemovedDataset(dataset, head.removed_at, head.removed_by, until.isoformat(timespec="seconds"))
        if head.is_fence:
            return None
        return StoredDataset(*_at_head(store, dataset, head), _newest_first(written.get(dataset, {})))

    found_ = [one for one in in_parallel(read, datasets_with_head(keys), store.concurrency) if one is not None]
    return DatasetList(
        store.url,
        [one for one in found_ if isinstance(one, StoredDataset)],
        [one for one in found_ if isinstance(one, RemovedDataset)],
        without_head(keys),
    )


def _at_head(store: Store, dataset: str, head: Head) -> tuple[str, str, StoredLayout, int, int, str, str]:
    """Fields of a StoredDataset, up to its snapshots."""
    header = read_header(store, head.manifest_key)
    of_header = (header.files, header.size_bytes, header.created_at, header.created_by)
    return (dataset, head.snapshot, head.layout, *of_header)


def _newest_first(written: dict[str, float]) -> Sequence[StoredSnapshot]:
    times = sorted(((time, snapshot) for snapshot, time in written.items()), reverse=True)
    return [StoredSnapshot(snapshot, iso_time(time)) for time, snapshot in times]


def show_stored(store: Store, dataset: str) -> DatasetDetails:
    """Reads the records of all runs. Raises NotFound, IntegrityError."""
    head = stored_head(store, dataset)
    runs = [*runs_in(store)]
    newest: dict[str, tuple[Entry, set[str]]] = {}
    for entry in sorted(list_manifests(store, dataset), key=lambda entry: entry.modified_at, reverse=True):
        keys = newest.setdefault(snapshot_of(entry.key), (entry, set()))[1]
        keys.add(entry.key)

    def details(snapshot: str) -> SnapshotDetails | None:
        entry, keys = newest[snapshot]
        try:
            header: ManifestHeader = read_header(store, entry.key)
        except (NotFound, IntegrityError):
            return None  # `store verify` reports it
        used = [use.run for use in runs if keys & set(use.manifests)]
        of_header = (header.layout, header.files, header.size_bytes, header.created_by)
        return SnapshotDetails(snapshot, iso_time(entry.modified_at), *of_header, used)

    found = [one for one in in_parallel(details, newest, store.concurrency) if one is not None]
    producers = [use.run for use in runs if dataset in use.produces and use.is_active]
    return DatasetDetails(*_at_head(store, dataset, head), found, producers)


class RunUse(NamedTuple):
    """What a run has to do with datasets: keys of the manifests that it reads, names of what it produces."""

    run: str
    is_active: bool
    datasets: Sequence[str]
    manifests: Sequence[str]
    produces: Sequence[str]


def runs_in(store: Store) -> Iterator[RunUse]:
    """Of every run that has a record in the store; one that cannot be read is left to `store verify`."""
    keys = [entry.key for entry in store.list(RUNS) if entry.key.endswith("/record.json") and entry.key.count("/") == 2]
    for use in in_parallel(lambda key: _use(store, key.split("/")[1]), keys, store.concurrency):
        if use is not None:
            yield use


def _use(store: Store, run: str) -> RunUse | None:
    try:
        record = read_fields(store, run)
        produces = [str(one) for one in (record.array("produces") if "produces" in record else ())]
        is_active = not is_final(record.text("status", ""))
        return RunUse(run, is_active, [*record.member("datasets")], manifests_of_record(record), produces)
    except (NotFound, ValueError):
        return None


class StoredNames(NamedTuple):
    """Of datasets that HEAD names a snapshot of, and of those that have snapshots and no HEAD; both in order. `heads`
    are those of the former that can be read."""

    datasets: list[str]
    without_head: list[str]
    heads: Mapping[str, Head]


def stored_names(store: Store) -> StoredNames:
    """Raises IntegrityError, and what the store raises."""
    heads: dict[str, Head] = {}

    def has_snapshot(dataset: str) -> bool:
        try:
            if (head := read_head(store, dataset)) is not None:
                heads[dataset] = head
            return head is not None
        except (IntegrityError, SettingsError):
            return True  # the command that uses it says what is wrong with it

    keys = [entry.key for entry in store.list(DATASETS)]
    names = datasets_with_head(keys)
    are_there = in_parallel(has_snapshot, names, store.concurrency)
    return StoredNames(list(compress(names, are_there)), without_head(keys), heads)


def stored_head(store: Store, dataset: str) -> Head:
    """Raises NotFound, also where the dataset was removed, IntegrityError."""
    head = find_head(store, dataset)
    if head is not None and head.removed_at:
        raise was_removed(dataset, head, NotFound)
    if head is None or head.is_fence:
        raise not_stored(store, dataset)
    return head


def not_stored(store: Store, dataset: str) -> AmlctlError:
    names = stored_names(store)
    if dataset in names.without_head:
        return no_head(store, dataset)
    if store.folder is not None and not store.folder.exists():
        return NotFound(
            f"the store {store.url} does not exist",
            hint=Message("check its path, or create it: ", Command("sync", below_data_blobs(dataset))),
        )
    hint = did_you_mean(dataset, [*names.datasets, *names.without_head])
    return NotFound(
        f"the store {store.url} has no dataset {dataset}",
        hint=hint or Message(Command("dataset", "list"), " lists them"),
    )


@dataclass(frozen=True)
class StoredKind:
    """Values below one top-level folder of the store."""

    kind: str
    values: int
    bytes: int


@dataclass(frozen=True)
class StoreStats(Document):
    store: str
    kinds: Sequence[StoredKind]
    datasets: Sequence[StoredDataset]


def stats(store: Store) -> StoreStats:
    """Lists the whole store. Raises IntegrityError where a HEAD or manifest cannot be read."""
    values: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    of_datasets: list[Entry] = []
    for entry in store.list(""):
        kind, _, _ = entry.key.partition("/")
        values[kind] += 1
        sizes[kind] += entry.size_bytes
        if entry.key.startswith(DATASETS):
            of_datasets.append(entry)
    kinds = [StoredKind(kind, values[kind], sizes[kind]) for kind in sorted(values) if "/" not in kind]
    return StoreStats(store.url, kinds, list_stored(store, of_datasets).datasets)
