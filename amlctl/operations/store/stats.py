"""What a store holds: by kind, and by dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from amlctl.core.store_keys import DATASETS
from amlctl.operations.dataset.listing import StoredDataset, list_stored
from amlctl.stores.contract import Entry, Store


@dataclass(frozen=True)
class StoredKind:
    """Values below one top-level folder of the store."""

    kind: str
    values: int
    bytes: int


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
    of_datasets: list[Entry] = []
    for entry in store.list(""):
        kind, _, _ = entry.key.partition("/")
        values[kind] += 1
        sizes[kind] += entry.size_bytes
        if entry.key.startswith(DATASETS):
            of_datasets.append(entry)
    kinds = [StoredKind(kind, values[kind], sizes[kind]) for kind in sorted(values) if "/" not in kind]
    return StoreStats(store.url, kinds, list_stored(store, of_datasets).datasets)
