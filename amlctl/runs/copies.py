"""Copies between stores: a snapshot, or a code snapshot, with all of its bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from amlctl.core.document import MOST_BYTES
from amlctl.core.events import null_sink
from amlctl.core.manifest import OBJECT, Kind
from amlctl.core.message import Command
from amlctl.core.store_keys import (
    area_of,
    code_index_key,
    code_prefix,
    folder_of,
    object_key,
    published_key,
    shard_key,
)
from amlctl.errors import IntegrityError, NotFound
from amlctl.localfs.atomic import scratch_folder
from amlctl.localfs.read_file import file_content_id
from amlctl.parallel import for_each
from amlctl.runs.tree import read_index
from amlctl.snapshots.contents import Value, downloaded, values_of
from amlctl.snapshots.gc_mark import GcWatch
from amlctl.snapshots.known import ensure_kept, repeated_if_lost
from amlctl.snapshots.manifests import Written, read_header, read_manifest, write_manifest
from amlctl.snapshots.store_format import ensure_format
from amlctl.stores.contract import FileBody, Store

_TRIES = 4
"""Attempts, where a gc deletes some of the copy meanwhile."""
_AT_A_TIME = 4
"""Values of a snapshot, which are large, and shards of a manifest."""


def copy_manifest(source: Store, target: Store, key: str) -> None:
    """Its shards first: an existing manifest is complete. Raises NotFound."""
    if target.info(key) is not None:
        return
    keys = [shard_key(folder_of(key), name) for name in read_header(source, key).shards]
    for_each(lambda shard: target.put(shard, source.get(shard, length=MOST_BYTES)), keys, _AT_A_TIME)
    try:
        target.put(key, source.get(key, length=MOST_BYTES))
    except NotFound as error:
        raise NotFound(f"a snapshot that the run needs was deleted: {error.message}", hint="submit again") from error


def copy_snapshot(source: Store, target: Store, manifest_key: str, *, scratch: Path) -> str:
    """Returns the key of its manifest in `target`, whose HEAD does not move. Existing values are not sent again.

    `scratch` is a folder with room for a few of its values, which are copied through this disk. The plain files of a
    mirror, which are those of its HEAD, become objects. Raises NotFound (deleted, or a mirror of older files),
    IntegrityError (damaged), Conflict (a gc is under way), ServiceUnavailable.
    """
    if target.info(manifest_key) is not None:
        return manifest_key
    ensure_format(target)
    return repeated_if_lost(lambda lost: _copy_snapshot(source, target, manifest_key, scratch))


def _copy_snapshot(source: Store, target: Store, manifest_key: str, scratch: Path) -> str:
    """Raises ValuesLost where a gc of `target` has deleted some of it meanwhile."""
    watch = GcWatch(target, null_sink)
    watch.note()
    manifest = read_manifest(source, manifest_key)
    with scratch_folder(scratch) as folder:

        def copy(item: tuple[str, Value]) -> None:
            key, value = item
            is_plain = area_of(key).is_plain
            to = object_key(value.content_id) if is_plain else key
            there = target.info(to)
            if there is None or there.size_bytes != value.size_bytes:
                copy_value(source, target, key, value, folder, to=to)

        for_each(copy, values_of(manifest).items(), _AT_A_TIME)
    if any(place.kind is Kind.MIRROR for place in manifest.places.values()):
        places = {content: OBJECT if place.kind is Kind.MIRROR else place for content, place in manifest.places.items()}
        manifest = replace(manifest, places=places, shards={})
        written = write_manifest(target, manifest)
    else:
        copy_manifest(source, target, manifest_key)
        written = Written(manifest_key, (), (manifest_key,))
    ensure_kept(target, watch, manifest, written, reused=manifest.places)
    return written.key


def copy_code(source: Store, target: Store, code: str) -> None:
    """Raises NotFound."""
    index_key = code_index_key(code)
    if target.info(index_key) is not None:
        return
    files = read_index(source, index_key)
    if files is None:
        raise NotFound(f"the code {code} is not in the store {source.url}", hint="submit it again")
    ensure_format(target)
    prefix = code_prefix(code)

    def copy(path: str) -> None:
        target.put(prefix + path, source.get(prefix + path))

    for_each(copy, [file.path for file in files if not file.path.endswith("/")], target.concurrency)
    target.put(index_key, source.get(index_key), replace=True)


def upload_produced(node: Store, store: Store, run: str, published: Mapping[str, Mapping[str, Any]]) -> None:
    """What the run has produced: bytes, manifests, then the list that keeps them from gc. HEADs are left to the caller.

    Raises ServiceUnavailable.
    """
    watch = GcWatch(store, null_sink)
    for _ in range(_TRIES if published else 0):
        watch.note()
        for place in published.values():
            _upload_produced(node, store, str(place["manifest_key"]))
        store.put(published_key(run), (json.dumps(published) + "\n").encode(), replace=True)
        if watch.was_quiet():
            return
        watch.wait()  # then send again what a gc deleted before it saw the list


def _upload_produced(node: Store, store: Store, manifest_key: str) -> None:
    manifest = read_manifest(node, manifest_key)
    for key, value in values_of(manifest).items():
        path = None if area_of(key).is_plain else node.local_path(key)
        if path is not None:  # else an old value, which the store has
            store.put(key, FileBody(path, path.stat().st_size, value.content_id))
    copy_manifest(node, store, manifest_key)


def copy_value(source: Store, target: Store, key: str, value: Value, folder: Path, *, to: str = "") -> None:
    """`to` is its key in `target`, if another one; `folder` is for values that have to be downloaded on the way.

    Raises NotFound, IntegrityError, ServiceUnavailable.
    """
    to = to or key
    path = source.local_path(key)
    if path is not None:
        _put(source, target, key, to, value, path)
        return
    with downloaded(source, key, value, folder, mode=0o600) as arrived:
        _put(source, target, key, to, value, arrived)


def _put(source: Store, target: Store, key: str, to: str, value: Value, path: Path) -> None:
    if file_content_id(path) != value.content_id:
        if area_of(key).is_plain:
            raise NotFound(
                f"{key} in {source.url} has newer bytes: a mirror keeps only the latest",
                hint="use the present data with --dataset",
            )
        raise IntegrityError(f"{key} in {source.url} is damaged", hint=Command("sync", "--repair", "DATASET"))
    # An existing value of that key is damaged.
    target.put(to, FileBody(path, value.size_bytes, value.content_id), replace=True)
