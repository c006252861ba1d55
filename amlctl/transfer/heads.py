"""HEAD of a dataset: the one mutable value of the store, and the only commit point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from amlctl.core.manifest import HeadValue, dataset_folder, encode_head, parse_head
from amlctl.stores.contract import Store


@dataclass(frozen=True)
class Head:
    """What HEAD names; `version` is the tag that a swap compares."""

    value: HeadValue
    version: str

    @property
    def snapshot(self) -> str:
        return self.value.snapshot

    @property
    def manifest_key(self) -> str:
        return self.value.manifest_key

    @property
    def layout(self) -> str:
        return self.value.layout


def head_key(dataset: str) -> str:
    return f"{dataset_folder(dataset)}/HEAD"


def read_head(store: Store, dataset: str) -> Optional[Head]:
    """None where the dataset was never synced. Raises IntegrityError, SettingsError (newer format)."""
    found = store.get_versioned(head_key(dataset))
    if found is None:
        return None
    return Head(parse_head(found.data), found.version)


def swap_head(store: Store, dataset: str, value: HeadValue, expected: Optional[Head]) -> Head:
    """Raises Conflict where HEAD is not `expected` any more."""
    version = store.swap(head_key(dataset), encode_head(value), expected=None if expected is None else expected.version)
    return Head(value, version)


def list_datasets(store: Store, below: str = "datasets/") -> list[str]:
    """Keys of the folders of all datasets that have a HEAD, as `datasets/<escaped name>`."""
    return sorted(entry.key[: -len("/HEAD")] for entry in store.list(below) if entry.key.endswith("/HEAD"))
