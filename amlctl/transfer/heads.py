"""HEAD of a dataset: the one mutable value of the store, and the only commit point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from amlctl.core.manifest import dataset_folder, encode_head, parse_head
from amlctl.errors import Conflict
from amlctl.stores.contract import Store


@dataclass(frozen=True)
class Head:
    """What HEAD names; `version` is the tag that a swap compares."""

    snapshot: str
    manifest_key: str
    version: str


def head_key(dataset: str) -> str:
    return f"{dataset_folder(dataset)}/HEAD"


def read_head(store: Store, dataset: str) -> Optional[Head]:
    """None where the dataset was never synced. Raises IntegrityError, SettingsError (newer format)."""
    found = store.get_versioned(head_key(dataset))
    if found is None:
        return None
    return Head(*parse_head(found.data), found.version)


def swap_head(store: Store, dataset: str, snapshot: str, manifest_key: str, expected: Optional[Head]) -> Head:
    """Raises Conflict where HEAD is not `expected` any more."""
    version = store.swap(
        head_key(dataset),
        encode_head(snapshot, manifest_key),
        expected=None if expected is None else expected.version,
    )
    return Head(snapshot, manifest_key, version)


def move_head(store: Store, dataset: str, snapshot: str, manifest_key: str) -> None:
    """Make HEAD name this snapshot whatever it names now: what a run has produced is the new state."""
    while True:
        head = read_head(store, dataset)
        if head is not None and head.snapshot == snapshot:
            return
        try:
            swap_head(store, dataset, snapshot, manifest_key, head)
            return
        except Conflict:
            continue


def list_datasets(store: Store) -> list[str]:
    """Keys of the folders of all datasets that have a HEAD, as `datasets/<escaped name>`."""
    return sorted(entry.key[: -len("/HEAD")] for entry in store.list("datasets/") if entry.key.endswith("/HEAD"))
