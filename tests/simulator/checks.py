"""What must hold after every order, looked up in the bytes themselves. Each problem is a sentence."""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence

from amlctl.core.content_id import content_id
from amlctl.core.head import commit_of
from amlctl.core.manifest import FileEntry, Kind, Manifest, needs_no_bytes
from amlctl.core.store_keys import (
    code_index_key,
    code_prefix,
    dataset_of_key,
    head_key,
    is_head_key,
    mirror_key,
    object_key,
    pack_key,
)
from amlctl.errors import AmlctlError
from amlctl.runs.tree import TreeFile, read_index
from amlctl.snapshots.heads import find_head, list_manifests, read_head
from amlctl.snapshots.manifests import read_manifest
from tests.support.memory_store import MemoryStore
from tests.support.trees import Tree

_NOTHING: Mapping[str, Collection[bytes]] = {}


class Broken(AssertionError):
    """An order after which something is lost, or was not true."""


def datasets(store: MemoryStore) -> list[str]:
    """Those that have a HEAD."""
    return [dataset_of_key(key) for key in store.values if is_head_key(key)]


Underway = Mapping[str, Collection[bytes]]
"""By path, what a sync that has not come to its end may have made of the plain file of a mirror."""


def stored_tree(store: MemoryStore, manifest_key: str, what: str, underway: Underway = _NOTHING) -> Tree:
    """What a manifest names, byte for byte. Raises Broken."""
    try:
        manifest = read_manifest(store, manifest_key)
    except AmlctlError as error:
        raise Broken(f"{what}: its manifest {manifest_key} cannot be read: {error.message}") from error
    tree: Tree = {}
    for entry in manifest.entries:
        tree[entry.path] = _bytes(store, manifest, entry, what, underway)
    return tree


def head_tree(store: MemoryStore, dataset: str, underway: Underway = _NOTHING) -> Tree:
    what = f"HEAD of {dataset}"
    try:
        head = read_head(store, dataset)
    except AmlctlError as error:
        raise Broken(f"{what} cannot be read: {error.message}") from error
    if head is None:
        raise Broken(f"{what} names no snapshot")
    return stored_tree(store, head.manifest_key, what, underway)


def all_heads(store: MemoryStore, underway: Underway = _NOTHING) -> dict[str, Tree]:
    """By dataset. Raises Broken where one of them is not whole."""
    return {dataset: head_tree(store, dataset, underway) for dataset in committed(store)}


def committed(store: MemoryStore) -> list[str]:
    """The datasets that have a snapshot; what cannot be read is one of them."""
    return [dataset for dataset in datasets(store) if not _is_fence(store, dataset)]


def removed_tree(store: MemoryStore, dataset: str) -> Tree | None:
    """What the dataset held when it was removed; None where it is not removed, or a gc has deleted that."""
    head = find_head(store, dataset)
    if head is None or not head.removed_at:
        return None
    last = [entry.key for entry in list_manifests(store, dataset) if commit_of(entry.key) == head.before[0]]
    return stored_tree(store, last[0], f"{dataset}, which was removed") if last else None


def _is_fence(store: MemoryStore, dataset: str) -> bool:
    """Whether a gc has passed, but nothing was committed yet."""
    try:
        return bool(json.loads(store.values[head_key(dataset)].data).get("manifest") == "")
    except (ValueError, AttributeError):
        return False


def runs_whole(store: MemoryStore, runs: Iterable[str]) -> None:
    """All that the records of these runs name is there. Raises Broken."""
    for run in runs:
        key = f"runs/{run}/record.json"
        if key not in store.values:
            raise Broken(f"{key} is missing although the run was started")
        record = json.loads(store.values[key].data)
        for dataset, manifest_key in record["manifests"].items():
            stored_tree(store, manifest_key, f"dataset {dataset} of run {run}")
        code = record["code"]
        index = _index(store, code_index_key(code), f"code of run {run}")
        for file in index:
            _expect(store, code_prefix(code) + file.path, file.content_id, f"code of run {run}")


def differences(found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> str:
    """In words; empty where they are the same."""
    missing = sorted(expected.keys() - found.keys())
    more = sorted(found.keys() - expected.keys())
    other = sorted(path for path in found.keys() & expected.keys() if found[path] != expected[path])
    words = [("missing", missing), ("not gone", more), ("other bytes", other)]
    return "; ".join(f"{word}: {', '.join(paths)}" for word, paths in words if paths)


def _index(store: MemoryStore, key: str, what: str) -> Sequence[TreeFile]:
    try:
        index = read_index(store, key)
    except AmlctlError as error:
        raise Broken(f"{what}: {error.message}") from error
    if index is None:
        raise Broken(f"{what}: {key} is missing")
    return index


def _expect(store: MemoryStore, key: str, content: str, what: str) -> None:
    value = store.values.get(key)
    if value is None:
        raise Broken(f"{what}: {key} is missing")
    if content_id(value.data) != content:
        raise Broken(f"{what}: {key} has other bytes")


def _bytes(store: MemoryStore, manifest: Manifest, entry: FileEntry, what: str, underway: Underway) -> bytes:
    if needs_no_bytes(entry):
        return b""
    place = manifest.places.get(entry.content_id)
    if place is None:
        raise Broken(f"{what}: nothing says where {entry.path} is")
    key = mirror_key(manifest.dataset, entry.path)
    if place.kind is Kind.PACK:
        key = pack_key(place.pack)
    elif place.kind is Kind.OBJECT:
        key = object_key(entry.content_id)
    value = store.values.get(key)
    if value is None and place.kind is Kind.MIRROR and b"" in underway.get(entry.path, ()):
        return b""  # it had to make room
    if value is None:
        raise Broken(f"{what}: {entry.path} is missing in the store ({key})")
    data = value.data
    if place.kind is Kind.PACK:
        data = data[place.offset : place.offset + place.length]
        if place.is_deflated:
            try:
                data = zlib.decompress(data, -15)
            except zlib.error as error:
                raise Broken(f"{what}: {entry.path} is damaged in the store ({key})") from error
    if place.kind is Kind.MIRROR and data in underway.get(entry.path, ()):
        return data
    if content_id(data) != entry.content_id or len(data) != entry.size_bytes:
        raise Broken(f"{what}: {entry.path} has other bytes in the store ({key})")
    return data
