"""What a run has produced: bytes and manifest are published first, then HEAD moves to it.

`publish_produced` runs on a node once the script has succeeded; there the store is a mounted folder and local state
does not exist. The workspace, which can swap HEAD, calls `make_newest` afterwards, which merges with what others have
synced meanwhile.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, Optional

from amlctl.core.diff import merge
from amlctl.core.events import EventSink, Stage, null_sink
from amlctl.core.head import Head
from amlctl.core.manifest import MIRROR, Manifest, empty_manifest
from amlctl.core.message import Command, below_data_blobs, count, some
from amlctl.core.run import RunRecord
from amlctl.core.store_keys import folder_of, lease_key, published_key, shard_key
from amlctl.core.sync_plan import Layout, plan_sync
from amlctl.errors import Conflict, NotFound
from amlctl.localfs.identify import identify
from amlctl.localfs.ignore import DATASET_IGNORE_FILES, IgnoreRules
from amlctl.localfs.scan import scan
from amlctl.mirror.plain_files import (
    MirrorLease,
    mirrors_sharing_files,
    moved_since,
    unchanged_contents,
    with_plain_files,
)
from amlctl.runs.records import read_published
from amlctl.snapshots.gc_mark import GcWatch
from amlctl.snapshots.heads import fence_writer, find_head, swap_head
from amlctl.snapshots.known import ANY_SIZE, ValuesLost, ensure_kept, missing_values, repeated_if_lost, values_named
from amlctl.snapshots.manifests import Written, read_header, read_manifest, write_manifest
from amlctl.snapshots.send import PackSender, send_plan
from amlctl.snapshots.transfers import Transfers
from amlctl.stores.contract import Store

_Log = Callable[[str], None]
_AUTO = Layout("auto")
_TRIES = 4
"""Attempts, where a gc deletes some of it meanwhile."""


@dataclass(frozen=True)
class Published:
    """A snapshot that the store holds; `files` counts entries, `size_bytes` their content."""

    snapshot: str
    manifest_key: str
    files: int
    size_bytes: int
    values: Mapping[str, int]
    """Keys of all that it consists of beyond what the run's record keeps, with the size in bytes of each."""


def are_kept(store: Store, watch: GcWatch, published: Sequence[Published]) -> bool:
    """Whether all of them are complete, after the list that keeps them was written; `watch` noted the gc before the
    first one.
    """
    if watch.was_quiet():
        return True
    watch.wait()
    return not missing_values(store, {key: size for one in published for key, size in one.values.items()})


@dataclass(frozen=True)
class Publisher:
    """Of the folder `root` as a snapshot of a dataset.

    `base_key` is the manifest that HEAD named when the run was submitted (None: no HEAD). HEAD itself is not read: a
    mount may show an old one. `layout` has the sizes, and the layout of a new dataset; `rules` say what is left out,
    `made_by` which run it is.
    """

    store: Store
    root: Path
    dataset: str
    base_key: Optional[str] = None
    layout: Layout = _AUTO
    rules: Optional[IgnoreRules] = None
    made_by: str = ""

    def publish(self) -> Published:
        """The plain files of a mirror are left to `make_newest`, which moves HEAD.

        Raises FileNotFoundError (no such folder), Conflict (files still change), RightsError, NotFound (`base_key`).
        """
        return repeated_if_lost(self._publish)

    def _publish(self, lost: Optional[Set[str]]) -> Published:
        """`lost`, where this is not the first try, are contents that are sent again in any case. Raises ValuesLost."""
        store, dataset, layout = self.store, self.dataset, self.layout
        watch = GcWatch(store, null_sink, may_take_over=False)
        watch.note()
        before = empty_manifest(dataset) if self.base_key is None else read_manifest(store, self.base_key)
        if lost is not None:
            places = {c: p for c, p in before.places.items() if c not in lost}
            before = replace(before, places=places, shards={})
        if before.layout == "mirror":
            layout = replace(layout, name="mirror")
        entries = identify(scan(self.root, self.rules), None, sink=null_sink, subject=dataset).entries
        is_mirror = layout.name == "mirror" and not mirrors_sharing_files(store, dataset, entries)
        if layout.name == "mirror":
            layout = replace(layout, name="auto")
        plain = unchanged_contents(entries, before) if is_mirror else set()
        to_send = [entry for entry in entries if entry.content_id not in plain]
        plan = plan_sync(to_send, before, layout, lambda entries: {})
        transfers = Transfers(Stage.SEND, dataset, null_sink)
        with PackSender(store, None, layout.pack_size, transfers, replace=lost is not None) as sender:
            sent, pack_sizes, was_there = send_plan(plan, self.root, before, sender, max_workers=store.concurrency)
        places = {**sent, **dict.fromkeys(plain, MIRROR)}
        named = "mirror" if is_mirror else plan.layout
        manifest = Manifest(dataset, named, entries, places, pack_sizes, created_by=self.made_by, shards=before.shards)
        written = write_manifest(store, manifest)
        # What HEAD named at submit is kept by the run's record.
        new = [content for content, place in sent.items() if before.places.get(content) != place]
        ensure_kept(store, watch, manifest, written, reused=was_there, sent=new)
        values = {**values_named(manifest, new), **dict.fromkeys(written.files, ANY_SIZE)}
        return Published(manifest.snapshot, written.key, len(entries), manifest.size_bytes, values)


def publish_produced(store: Store, record: RunRecord, data_blobs: Path, log: _Log) -> None:
    """Bytes and manifest of every dataset that the run was to produce, from the node's `data_blobs` folder.

    Raises NotFound, Conflict, RightsError.
    """
    _place_ignore_files(record, data_blobs)
    for _ in range(_TRIES):
        watch = GcWatch(store, null_sink, may_take_over=False)
        watch.note()
        results = {dataset: _publish_one(store, record, data_blobs, dataset, log) for dataset in record.spec.produces}
        published = {
            dataset: {"snapshot": result.snapshot, "manifest_key": result.manifest_key}
            for dataset, result in results.items()
        }
        store.put(published_key(record.run), (json.dumps(published) + "\n").encode(), replace=True)
        if are_kept(store, watch, list(results.values())):
            return
        log("a gc of the store deleted some of what was published; sending it again")
    raise Conflict("each attempt to publish lost data to a gc of the store", hint="run the script again")


def copy_registered(store: Store, record: RunRecord, data_blobs: Path, places: Mapping[str, str]) -> None:
    """The files of produced datasets that become data assets (`--register`) to the folders that Azure ML keeps for
    them. `places` has their paths, such as `outputs.images`. Raises NotFound, IntegrityError, OSError.
    """
    for name, place in record.spec.output_places.items():
        target, dataset = places.get(f"outputs.{name}"), place.get("dataset")
        if target is None or dataset is None:
            continue
        key = read_published(store, record.run)[dataset]["manifest_key"]
        for entry in read_manifest(store, key).entries:
            source = data_blobs / dataset / entry.path
            copy = Path(target, entry.path or source.name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)


def _publish_one(store: Store, record: RunRecord, data_blobs: Path, dataset: str, log: _Log) -> Published:
    source = data_blobs / dataset
    if not source.exists():
        raise NotFound(
            f"the script has not produced the dataset {dataset}: data_blobs/{dataset} does not exist",
            hint="write below data_blobs_dir() of file_paths, or remove --produces",
        )
    publisher = Publisher(
        store,
        source,
        dataset,
        base_key=record.spec.heads.get(dataset),
        layout=_layout(record),
        rules=_rules(record, data_blobs, source),
        made_by=f"run {record.run}",
    )
    result = publisher.publish()
    log(f"produced {dataset}: {count(result.files, 'file')}, snapshot {result.snapshot}")
    return result


def _place_ignore_files(record: RunRecord, data_blobs: Path) -> None:
    """Ignore files above the datasets apply here as on the machine that submitted the run."""
    for name, text in record.spec.sync.get("ignore_files", {}).items():
        path = data_blobs / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(str(text).encode("utf-8", "surrogateescape"))


def _layout(record: RunRecord) -> Layout:
    sizes = {name: int(record.spec.sync[name]) for name in ("pack_below", "pack_size") if name in record.spec.sync}
    return Layout(record.spec.sync.get("layout", "auto"), **sizes)


def _rules(record: RunRecord, data_blobs: Path, source: Path) -> IgnoreRules:
    patterns = [str(pattern) for pattern in record.spec.sync.get("ignore", ())]
    return IgnoreRules(data_blobs, DATASET_IGNORE_FILES, patterns, top=source)


def make_all_newest(
    store: Store,
    record: RunRecord,
    published: Mapping[str, Mapping[str, str]],
    *,
    source: Optional[Store] = None,
    sink: EventSink = null_sink,
) -> dict[str, str]:
    """`make_newest` for each dataset that the run has produced; the record gets the snapshots. Returns the run's error
    where some could not become the latest, by which nothing is lost; else empty."""
    conflicts = []
    for dataset, place in published.items():
        key, base = place["manifest_key"], record.spec.heads.get(dataset)
        try:
            record.published[dataset] = make_newest(store, dataset, key, base, source=source, sink=sink).snapshot
        except Conflict as error:
            conflicts.append(error)
    if not conflicts:
        return {}
    message, hint = ("; ".join(texts) for texts in zip(*((one.message, one.hint) for one in conflicts)))
    return {"kind": conflicts[-1].kind, "message": message, "hint": hint}


def make_newest(
    store: Store,
    dataset: str,
    manifest_key: str,
    base_key: Optional[str],
    *,
    source: Optional[Store] = None,
    sink: EventSink = null_sink,
) -> Head:
    """Move HEAD to the manifest, or to its merge with a HEAD that moved; returns what HEAD names then.

    `base_key` is the manifest that HEAD named when the run was submitted (None: no HEAD). The plain files of a mirror
    are written from `source`, a folder with what the run has written; without it they stay as they are. Raises Conflict
    where the run and another writer have changed the same file: HEAD does not move, and the snapshot is kept.
    """
    header = read_header(store, manifest_key)
    produced = Head(header.snapshot, manifest_key, header.layout)
    with MirrorLease(store, lease_key(dataset), sink) as lease:
        newest = _Newest(store, dataset, produced, base_key, source, lease, GcWatch(store, sink))
        while (value := newest.try_to_commit()) is None:
            pass  # HEAD has moved, or may have moved: merge with the new one
        return value


@dataclass(frozen=True)
class _Newest:
    """The arguments of `make_newest`, with the lease of the dataset's plain files."""

    store: Store
    dataset: str
    produced: Head
    base_key: Optional[str]
    source: Optional[Store]
    lease: MirrorLease
    watch: GcWatch

    def try_to_commit(self) -> Optional[Head]:
        """What HEAD names then; None where it has to be done again with another HEAD."""
        self.watch.note()
        head = find_head(self.store, self.dataset)
        if head is not None and head.removed_at:
            raise _not_newest(self.dataset, self.produced.snapshot, "it was removed from the store meanwhile")
        if head is not None and head.is_fence:
            head = None
        if head is not None and head.snapshot == self.produced.snapshot:
            return head
        has_moved = head is not None and head.manifest_key != self.base_key
        layout = head.layout if head is not None and has_moved else self.produced.layout
        if layout == "mirror" and self.source is not None and not self.lease.is_held:
            self.lease.take()
            if self.lease.was_taken_over:
                fence_writer(self.store, self.dataset)
            return None
        value = self._written(head, is_merged=has_moved)
        if head is not None and value.manifest_key == head.manifest_key:
            return head  # it was done before
        try:
            return swap_head(self.store, self.dataset, value, head, generation=self.watch.generation)
        except Conflict:
            return None

    def _written(self, head: Optional[Head], *, is_merged: bool) -> Head:
        """What HEAD is to name: its manifest and bytes are in the store, and plain files where the lease is held."""
        store, produced, source, lease = self.store, self.produced, self.source, self.lease
        newest = read_manifest(store, produced.manifest_key)
        dataset = self.dataset
        present = empty_manifest(dataset) if head is None else read_manifest(store, head.manifest_key)
        if is_merged:
            newest = self._merged(newest, present)
        try:
            if source is not None and lease.is_held and not mirrors_sharing_files(store, dataset, newest.entries):
                newest = with_plain_files(store, source, newest, present, lease)
            if head is not None and (newest.snapshot, newest.places) == (head.snapshot, present.places):
                return head
            if is_merged or lease.is_held:
                written = write_manifest(store, newest)
            else:
                shards = (shard_key(folder_of(produced.manifest_key), name) for name in newest.shards)
                written = Written(produced.manifest_key, (), (produced.manifest_key, *shards))
            # Theirs are kept by HEAD; the run's node may not have noticed a gc that deleted some of ours.
            ours = [c for c, place in newest.places.items() if place != MIRROR and present.places.get(c) != place]
            ensure_kept(store, self.watch, newest, written, reused=ours)
            lease.confirm()
        except ValuesLost as error:
            raise Conflict(
                f"{dataset}: a gc deleted what the run has produced before it was committed ({error.message})",
                hint="run the script again",
            ) from error
        except Conflict as error:
            raise _not_newest(dataset, produced.snapshot, error.message) from error
        return Head(newest.snapshot, written.key, newest.layout)

    def _merged(self, ours: Manifest, theirs: Manifest) -> Manifest:
        try:
            base = empty_manifest(ours.dataset) if self.base_key is None else read_manifest(self.store, self.base_key)
        except NotFound:  # deleted by a gc: then nothing counts as deleted by the run
            base = empty_manifest(ours.dataset)
        merged = merge(base.entries, ours.entries, theirs.entries)
        if merged.conflicts:
            raise _overtaken(ours, merged.conflicts)
        sent = {content: place for content, place in ours.places.items() if place != MIRROR}
        places = {**ours.places, **theirs.places, **sent}
        live = {entry.content_id for entry in merged.entries}
        places = {content: place for content, place in places.items() if content in live}
        newest = Manifest(
            ours.dataset,
            theirs.layout,
            merged.entries,
            places,
            {**theirs.pack_sizes, **ours.pack_sizes},
            created_by=ours.created_by,
            shards=theirs.shards,
        )
        if replaced := moved_since(newest, theirs):
            raise _overtaken(ours, replaced)
        return newest


def _overtaken(ours: Manifest, paths: Sequence[str]) -> Conflict:
    what = f"{count(len(paths), 'file')} produced by the run"
    why = f"{what} were changed by another writer meanwhile ({some(paths, 3)})"
    return _not_newest(ours.dataset, ours.snapshot, why, paths)


def _not_newest(dataset: str, snapshot: str, why: str, details: Sequence[str] = ()) -> Conflict:
    return Conflict(
        f"{dataset}: {why}; snapshot {snapshot} is kept, but is not the latest",
        hint=Command("sync", "--pull", "--snapshot", snapshot[:12], below_data_blobs(dataset)),
        details=details,
    )
