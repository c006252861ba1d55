"""Delete from a store what nothing needs any more.

Kept: everything that HEAD or one of the last ten snapshots of a dataset names, what existing runs name, and
everything younger than a day (an upload may be under way). The order keeps out of the way of a sync that is
reusing old content (see `transfer/known.py`): mark, then list what lives, then delete.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from amlctl.core.events import EventSink, Note
from amlctl.core.manifest import dataset_of_folder, object_key, pack_key, repair_command
from amlctl.core.message import Message
from amlctl.errors import Conflict, IntegrityError, NotFound
from amlctl.operations.mirror import delete_all
from amlctl.stores.contract import Entry, Store
from amlctl.transfer.code import code_index_key, code_prefix
from amlctl.transfer.heads import read_head_value
from amlctl.transfer.interrupt import ended_by_interrupt
from amlctl.transfer.known import GC_MARK
from amlctl.transfer.manifests import read_header, read_manifest

KEPT_SNAPSHOTS = 10
"""Snapshots of a dataset, HEAD included, that stay restorable."""
STALE_MARK_S = 3600
"""Seconds after which the mark of a gc that was killed counts for nothing."""
YOUNG_S = 24 * 3600
"""Seconds for which nothing is deleted: longer than any sync takes from its first byte to its HEAD."""


@dataclass(frozen=True)
class GcResult:
    """`keys` are dead; they were deleted if `is_deleted`."""

    keys: Sequence[str]
    bytes: int
    is_deleted: bool

    def to_json(self) -> dict[str, Any]:
        return {"keys": list(self.keys), "bytes": self.bytes, "deleted": self.is_deleted}


def gc(store: Store, *, delete: bool, now: datetime, sink: EventSink, young_s: float = YOUNG_S) -> GcResult:
    """Raises IntegrityError where a manifest that must be kept cannot be read: then nothing is deleted."""
    if not delete:
        with ended_by_interrupt(store):
            return _dead(store, now, young_s, sink, is_deleted=False)
    mark = {"started_at": now.astimezone(UTC).isoformat(timespec="seconds")}
    data = (json.dumps(mark) + "\n").encode()
    if not store.put(GC_MARK, data):
        present = store.info(GC_MARK)
        if present is not None and now.timestamp() - present.modified_at < STALE_MARK_S:
            raise Conflict("another gc of this store is under way", hint="run it again when that one has ended")
        store.put(GC_MARK, data, replace=True)
    try:
        with ended_by_interrupt(store):
            result = _dead(store, now, young_s, sink, is_deleted=True)
            delete_all(store, [key for key in result.keys if _is_code_index(key)])
            delete_all(store, [key for key in result.keys if not _is_code_index(key)])
            store.sweep(young_s)
    finally:
        store.delete(GC_MARK)
    return result


def _dead(store: Store, now: datetime, young_s: float, sink: EventSink, *, is_deleted: bool) -> GcResult:
    entries = [entry for entry in store.list("") if entry.key != GC_MARK]
    live = _live_keys(store, entries, now.timestamp() - young_s)
    dead = [
        entry
        for entry in entries
        if _is_collectable(entry.key)
        and entry.key not in live
        and not any(entry.key.startswith(prefix) for prefix in _code_folders(entry.key) if prefix in live)
        and entry.modified_at < now.timestamp() - young_s
    ]
    sink(Note(f"{len(entries)} values looked at, {len(dead)} of them dead"))
    return GcResult([entry.key for entry in dead], sum(entry.size_bytes for entry in dead), is_deleted)


def _is_collectable(key: str) -> bool:
    if key.startswith(("packs/", "objects/", "code/")):
        return True
    return key.startswith("datasets/") and not key.endswith("/HEAD")


def _is_code_index(key: str) -> bool:
    """Those go first: an index that is there has its files."""
    return key.startswith("code/") and key.count("/") == 1


def _code_folders(key: str) -> Iterable[str]:
    if key.startswith("code/") and key.count("/") >= 2:
        yield key[: key.index("/", len("code/")) + 1]


def _live_keys(store: Store, entries: Sequence[Entry], young_after: float) -> set[str]:
    live: set[str] = set()
    heads: set[str] = set()
    kept: set[str] = set()
    present = {entry.key for entry in entries}
    manifests: dict[str, list[Entry]] = {}
    for entry in entries:
        folder, _, name = entry.key.rpartition("/")
        if _is_code_index(entry.key) and entry.modified_at >= young_after:
            live.add(entry.key.removesuffix(".json") + "/")  # sent again not long ago: what it names is older
        elif entry.key.startswith("datasets/") and name == "HEAD":
            heads.add(read_head_value(store, folder).manifest_key)
        elif entry.key.startswith("datasets/") and name.endswith(".gz") and not folder.endswith("/shards"):
            manifests.setdefault(folder, []).append(entry)
        elif entry.key.startswith("runs/") and name == "record.json":
            run_manifests, code = _named_by_run(store, entry.key)
            kept.update(run_manifests)
            live.update((code_prefix(code), code_index_key(code)))
        elif entry.key.startswith("runs/") and name == "published.json":
            kept.update(_published(store, entry.key))
    for found in manifests.values():
        newest: list[str] = []
        for entry in sorted(found, key=lambda entry: entry.modified_at, reverse=True):
            snapshot = entry.key.rpartition("/")[2].partition("-")[0]
            if snapshot not in newest:
                newest.append(snapshot)
            if snapshot in newest[:KEPT_SNAPSHOTS] or entry.modified_at >= young_after:
                kept.add(entry.key)
    for key in heads | kept:
        live.add(key)
        if key not in present and key not in heads:
            # A run may name a snapshot that was lost before; nothing of it is left to keep.
            continue
        try:
            live.update(_named_by_manifest(store, key))
        except (NotFound, IntegrityError) as error:
            what = f"a part of {key} is missing: {error.message}" if isinstance(error, NotFound) else error.message
            mend = repair_command(dataset_of_folder(key.rpartition("/")[0]))
            hint = mend if key in heads else f"that older snapshot is lost: delete {key} in {store.url}"
            raise IntegrityError(what, hint=Message(hint, ", then gc again")) from error
    return live


def _named_by_run(store: Store, key: str) -> tuple[list[str], str]:
    try:
        record = json.loads(store.get(key))
        named = [*record["manifests"].values(), *record.get("heads", {}).values()]
        return [str(name) for name in named if name], str(record["code"])
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise IntegrityError(f"{key} cannot be read: {error}", hint="delete that run, or mend its record") from error


def _published(store: Store, key: str) -> list[str]:
    try:
        return [str(value["manifest_key"]) for value in json.loads(store.get(key)).values()]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise IntegrityError(f"{key} cannot be read: {error}", hint="delete that run") from error


def _named_by_manifest(store: Store, key: str) -> set[str]:
    manifest = read_manifest(store, key)
    folder = key.rpartition("/")[0]
    named = {f"{folder}/shards/{name}" for name in read_header(store, key).shards}
    for content, place in manifest.places.items():
        if place.kind == "pack":
            named.add(pack_key(place.pack))
        elif place.kind == "object":
            named.add(object_key(content))
    return named
