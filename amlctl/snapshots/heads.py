"""HEAD of a dataset: its one value that changes, and the only commit point."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Optional

from amlctl.core.head import Head, encode_head, parse_head
from amlctl.core.manifest import StoredLayout
from amlctl.core.message import Command, Message, below_data_blobs
from amlctl.core.store_keys import (
    DATASETS,
    dataset_folder,
    dataset_of_key,
    folder_of,
    folders_of,
    head_key,
    head_key_in,
    is_head_key,
    is_manifest_key,
    old_folder,
    snapshot_of,
)
from amlctl.errors import Conflict, IntegrityError, NotFound
from amlctl.snapshots.gc_mark import next_generation, restore_generation
from amlctl.snapshots.manifests import read_header
from amlctl.snapshots.store_format import ensure_format
from amlctl.stores.contract import Entry, Store


class HeadMoved(Conflict):
    """Another machine swapped HEAD after it was read. It is shown where planning again fails as well."""


def read_head(store: Store, dataset: str) -> Optional[Head]:
    """None where the dataset was never synced. Raises IntegrityError, SettingsError (newer format)."""
    found = find_head(store, dataset)
    return None if found is None or found.is_fence else found


def find_head(store: Store, dataset: str) -> Optional[Head]:
    """A fence too, and that of a dataset that was removed. Without a HEAD in the new spelling the old one counts; the
    next commit makes the new one."""
    found = store.get_versioned(head_key(dataset))
    if found is not None:
        return parse_head(found.data, dataset)._replace(version=found.version)
    if old_folder(dataset) != dataset_folder(dataset):
        found = store.get_versioned(head_key_in(old_folder(dataset)))
    return None if found is None else parse_head(found.data, dataset)


def has_snapshots(store: Store, dataset: str) -> bool:
    return bool(list_manifests(store, dataset))


def no_head(store: Store, dataset: str) -> IntegrityError:
    """The dataset has snapshots. Which one is its latest is not known, so committing what is here could undo what
    others have synced."""
    return IntegrityError(
        f"{dataset} has snapshots in the store {store.url}, but no HEAD: its first sync has not "
        "ended, or HEAD was lost",
        hint=Message(
            "where its files are: ",
            Command("sync", "--repair", below_data_blobs(dataset)),
            " takes the snapshot that was written last",
        ),
    )


def last_written(store: Store, dataset: str) -> Head:
    """Stands for a HEAD that is missing or unreadable: the manifest that was written last, of those that can be
    read. Raises IntegrityError."""
    found = store.get_versioned(head_key(dataset))
    newest_first = sorted(list_manifests(store, dataset), key=lambda entry: entry.modified_at, reverse=True)
    manifests = [entry.key for entry in newest_first]
    if not manifests:
        raise IntegrityError(
            f"HEAD of {dataset} cannot be read, and it has no snapshot",
            hint=Message(
                f"delete {head_key(dataset)} in {store.url}, then ", Command("sync", below_data_blobs(dataset))
            ),
        )
    layout: StoredLayout = "pack"
    key = manifests[0]
    for one in manifests:
        try:
            layout, key = read_header(store, one).layout, one
            break
        except (IntegrityError, NotFound):
            continue
    return Head(snapshot_of(key), key, layout, version="" if found is None else found.version)


def list_manifests(store: Store, dataset: str) -> list[Entry]:
    """Of all its snapshots, in no order."""
    folders = folders_of(dataset)
    found = [entry for folder in folders for entry in store.list(f"{folder}/")]
    return [entry for entry in found if is_manifest_key(entry.key) and folder_of(entry.key) in folders]


def swap_head(store: Store, dataset: str, value: Head, expected: Optional[Head], *, generation: int = 0) -> Head:
    """Commit `value` as the successor of `expected`. Raises Conflict where HEAD is not `expected` anymore.

    `generation` is that of the last gc which the writer knows of (`GcWatch`): the fence of that one does not stop the
    first commit of a dataset, a later one does.
    """
    value = next_head(store, value, expected)
    value = value._replace(gc=max(value.gc, generation))
    data = encode_head(value, dataset)
    try:
        version = store.swap(head_key(dataset), data, expected=(expected and expected.version) or None)
    except Conflict:
        present = find_head(store, dataset) if expected is None else None
        if present is None or not present.is_fence or present.removed_at:
            raise
        if present.gc > generation:
            restore_generation(store, present.gc)
            raise
        version = store.swap(head_key(dataset), data, expected=present.version)
    return value._replace(version=version)


def fence(store: Store, dataset: str, generation: int, store_id: str) -> None:
    """A gc of that generation has passed: every commit that was planned on the HEAD of before fails from now on."""
    while True:
        present = find_head(store, dataset)
        value = (present or Head("", ""))._replace(gc=generation, store_id=(present and present.store_id) or store_id)
        try:
            expected = (present and present.version) or None
            store.swap(head_key(dataset), encode_head(value, dataset), expected=expected)
        except Conflict:
            continue
        return


def fence_writer(store: Store, dataset: str) -> None:
    """The lease of a mirror was taken over: its former holder may still be about to swap the HEAD of before, although
    others write the plain files now. Before the first HEAD, the fence of a gc stops its first commit.
    """
    while True:
        present = find_head(store, dataset)
        if present is None or present.is_fence:
            generation = max(next_generation(store), 0 if present is None else present.gc + 1)
            fence(store, dataset, generation, ensure_format(store))
            restore_generation(store, generation)
            return
        value = present._replace(fences=present.fences + 1)
        with suppress(Conflict):
            store.swap(head_key(dataset), encode_head(value, dataset), expected=present.version or None)
            return


def next_head(store: Store, value: Head, expected: Optional[Head]) -> Head:
    """`value` as it would be committed after `expected`. Where neither of them names the store, its `format.json` is
    asked, and brought up to date."""
    before = expected or Head("", "")
    if not before.store_id:
        before = before._replace(store_id=value.store_id or ensure_format(store))
    return value.after(before)


def list_datasets(store: Store, below: str = DATASETS) -> list[str]:
    """All that have a HEAD, in order."""
    return datasets_with_head(entry.key for entry in store.list(below))


def datasets_with_head(keys: Iterable[str]) -> list[str]:
    """The same from what the store lists."""
    return sorted({dataset_of_key(key) for key in keys if is_head_key(key)})


def without_head(keys: Collection[str]) -> list[str]:
    """Datasets that have snapshots and no HEAD, in order; `keys` are what the store lists below `datasets/`."""
    with_snapshots = {dataset_of_key(key) for key in keys if is_manifest_key(key)}
    return sorted(with_snapshots.difference(datasets_with_head(keys)))


def datasets_inside(store: Store, dataset: str) -> list[str]:
    """Datasets below the folder of this one."""
    found = {one for at in folders_of(dataset) for one in list_datasets(store, f"{at}/")}
    return sorted(found - {dataset})
