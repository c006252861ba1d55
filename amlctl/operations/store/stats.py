"""What a store holds: by kind, and by dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from amlctl.core.store_keys import dataset_of_folder, folder_of, is_manifest_key, snapshot_of
from amlctl.errors import NotFound
from amlctl.snapshots.heads import list_datasets, read_head_value
from amlctl.snapshots.manifests import read_header
from amlctl.stores.contract import Store


@dataclass(frozen=True)
class StoredKind:
    """Values below one top-level folder of the store."""

    kind: str
    values: int
    bytes: int


@dataclass(frozen=True)
class StoredSnapshot:
    """`written_at` in ISO 8601, UTC: when its newest manifest came."""

    snapshot: str
    written_at: str


@dataclass(frozen=True)
class StoredDataset:
    """A dataset at its HEAD, and all snapshots of it that the store still lists, newest first."""

    dataset: str
    snapshot: str
    layout: str
    files: int
    bytes: int
    snapshots: Sequence[StoredSnapshot]


@dataclass(frozen=True)
class StoreStats:
    store: str
    kinds: Sequence[StoredKind]
    datasets: Sequence[StoredDataset]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def stats(store: Store) -> StoreStats:
    """Lists the whole store. Raises IntegrityError where a HEAD or manifest cannot be read."""
    values: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    written: dict[str, dict[str, float]] = {}
    for entry in store.list(""):
        kind, _, _ = entry.key.partition("/")
        values[kind] += 1
        sizes[kind] += entry.size_bytes
        if is_manifest_key(entry.key):
            found = written.setdefault(folder_of(entry.key), {})
            snapshot = snapshot_of(entry.key)
            found[snapshot] = max(entry.modified_at, found.get(snapshot, 0.0))
    datasets = []
    for folder in list_datasets(store):
        try:
            head = read_head_value(store, folder)
        except NotFound:
            continue  # only a fence
        header = read_header(store, head.manifest_key)
        datasets.append(
            StoredDataset(
                dataset_of_folder(folder),
                head.snapshot,
                head.layout,
                header.files,
                header.size_bytes,
                _newest_first(written.get(folder, {})),
            )
        )
    kinds = [StoredKind(kind, values[kind], sizes[kind]) for kind in sorted(values) if "/" not in kind]
    return StoreStats(store.url, kinds, datasets)


def _newest_first(written: Mapping[str, float]) -> Sequence[StoredSnapshot]:
    times = sorted(((time, snapshot) for snapshot, time in written.items()), reverse=True)
    return [
        StoredSnapshot(snapshot, datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds"))
        for time, snapshot in times
    ]
