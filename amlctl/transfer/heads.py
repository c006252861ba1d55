"""HEAD of a dataset: the one mutable value of the store, and the only commit point."""

from __future__ import annotations

from typing import NamedTuple, Optional

from amlctl.core.head import HeadValue, encode_head, parse_head
from amlctl.core.manifest import dataset_folder, dataset_of_folder
from amlctl.core.wording import typed_dataset
from amlctl.errors import Conflict, IntegrityError, NotFound
from amlctl.stores.contract import Store
from amlctl.transfer.gc_mark import restore_generation
from amlctl.transfer.manifests import read_header
from amlctl.transfer.store_format import ensure_format


class Head(NamedTuple):
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
    found = _read(store, dataset)
    return None if found is None or found.value.is_fence else found


def _read(store: Store, dataset: str) -> Optional[Head]:
    """Also a fence."""
    found = store.get_versioned(head_key(dataset))
    if found is None:
        return None
    return Head(parse_head(found.data, dataset, dataset_folder(dataset)), found.version)


def last_written(store: Store, dataset: str) -> Head:
    """What stands for a HEAD that cannot be read: the manifest that was written last. Raises IntegrityError."""
    folder = dataset_folder(dataset) + "/"
    found = store.get_versioned(head_key(dataset))
    manifests = [e for e in store.list(folder) if e.key.endswith(".gz") and "/" not in e.key[len(folder) :]]
    if found is None or not manifests:
        raise IntegrityError(
            f"HEAD of {dataset} cannot be read, and there is no snapshot of it",
            hint=f"delete {head_key(dataset)} in {store.url}, then amlctl sync {typed_dataset(dataset)}",
        )
    key = max(manifests, key=lambda entry: entry.modified_at).key
    try:
        layout = read_header(store, key).layout
    except IntegrityError:
        layout = "pack"
    return Head(HeadValue(key[len(folder) :].partition("-")[0], key, layout), found.version)


def swap_head(store: Store, dataset: str, value: HeadValue, expected: Optional[Head], *, generation: int = 0) -> Head:
    """Commit `value` as the successor of `expected`. Raises Conflict where HEAD is not `expected` anymore.

    `generation` is that of the last gc which the writer knows of (`GcWatch`): the fence of that one does not stop the
    first commit of a dataset, a later one does.
    """
    value = next_head(store, value, expected)
    value = value._replace(gc=max(value.gc, generation))
    data = encode_head(value, dataset)
    try:
        version = store.swap(head_key(dataset), data, expected=None if expected is None else expected.version)
    except Conflict:
        present = _read(store, dataset) if expected is None else None
        if present is None or not present.value.is_fence:
            raise
        if present.value.gc > generation:
            restore_generation(store, present.value.gc)
            raise
        version = store.swap(head_key(dataset), data, expected=present.version)
    return Head(value, version)


def fence(store: Store, dataset: str, generation: int, store_id: str) -> None:
    """A gc of that generation has passed: every commit that was planned on the HEAD of before fails from now on."""
    while True:
        present = _read(store, dataset)
        value = HeadValue("", "", "") if present is None else present.value
        value = value._replace(gc=generation, store_id=value.store_id or store_id)
        try:
            expected = None if present is None else present.version
            store.swap(head_key(dataset), encode_head(value, dataset), expected=expected)
        except Conflict:
            continue
        return


def next_head(store: Store, value: HeadValue, expected: Optional[Head]) -> HeadValue:
    """`value` as it would be committed after `expected`. A HEAD of format 1 does not name the store: its `format.json`
    is asked, and brought up to date."""
    before = HeadValue("", "", "") if expected is None else expected.value
    if not before.store_id:
        before = before._replace(store_id=ensure_format(store))
    return value.after(before)


def read_head_value(store: Store, folder: str) -> HeadValue:
    """HEAD of a dataset that `list_datasets` has named. Raises NotFound (it has only a fence), IntegrityError,
    SettingsError."""
    value = parse_head(store.get(f"{folder}/HEAD"), dataset_of_folder(folder), folder)
    if value.is_fence:
        raise NotFound(f"{dataset_of_folder(folder)} has no snapshot in {store.url}")
    return value


def list_datasets(store: Store, below: str = "datasets/") -> list[str]:
    """Keys of the folders of all datasets that have a HEAD, as `datasets/<escaped name>`."""
    return sorted(entry.key[: -len("/HEAD")] for entry in store.list(below) if entry.key.endswith("/HEAD"))
