"""The bytes and the manifest of a folder into a store, without HEAD: what a run has produced.

Also runs on a node, where the store is a mounted folder and there is no local state. Whoever can swap HEAD
moves it afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from amlctl.core.events import EventSink, null_sink
from amlctl.core.manifest import MIRROR, FileEntry, Manifest, StoredAt, empty_manifest
from amlctl.core.sync_plan import Layout, plan_sync
from amlctl.localfs.identify import identify
from amlctl.localfs.ignore import IgnoreRules
from amlctl.localfs.scan import scan
from amlctl.mirror.nested import mirrors_sharing_files
from amlctl.mirror.plain_files import unchanged_contents
from amlctl.snapshots.gc_mark import GcWatch
from amlctl.snapshots.kept import ANY_SIZE, ValuesLost, ensure_kept, key_of, missing_values, values_named
from amlctl.snapshots.manifests import read_manifest, write_manifest
from amlctl.snapshots.pack_sender import pack_sender
from amlctl.snapshots.send import send_plan
from amlctl.stores.contract import Store

_TRIES = 4
"""Times that what a gc has deleted in the meantime is sent."""


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
    """Whether all of them are whole. Asked once the list that keeps them was written; `watch` has noted the gc
    before the first one."""
    if watch.was_quiet():
        return True
    watch.wait()
    return not missing_values(store, {key: size for one in published for key, size in one.values.items()})


def publish(
    store: Store,
    root: Path,
    dataset: str,
    *,
    base_key: Optional[str] = None,
    layout: Optional[Layout] = None,
    rules: Optional[IgnoreRules] = None,
    sink: EventSink = null_sink,
) -> Published:
    """`base_key` names the manifest that HEAD named when the run was submitted (None: there was none). HEAD itself is
    not asked: a mount may show an old one. `layout` has the sizes, and the layout of a dataset that is new; `rules`
    say what is left out. The plain files of a mirror are left to `make_newest`, which moves HEAD.

    Raises FileNotFoundError (no such folder), Conflict (files still change), RightsError, NotFound (`base_key`).
    """
    lost: set[str] = set()
    for _ in range(_TRIES):
        try:
            return _publish(store, root, dataset, base_key, layout or Layout("auto"), rules, lost, sink)
        except ValuesLost as error:
            told = error.told
            lost |= error.keys
    raise told


def _publish(
    store: Store,
    root: Path,
    dataset: str,
    base_key: Optional[str],
    layout: Layout,
    rules: Optional[IgnoreRules],
    lost: set[str],
    sink: EventSink,
) -> Published:
    """`lost` are keys that are written again, whatever the store seems to have. Raises ValuesLost."""
    watch = GcWatch(store, sink, may_take_over=False)
    watch.note()
    before = empty_manifest(dataset) if base_key is None else read_manifest(store, base_key)
    if lost:
        places = {c: p for c, p in before.places.items() if p == MIRROR or key_of(c, p) not in lost}
        before = replace(before, places=places, shards={})
    if before.layout == "mirror":
        layout = replace(layout, name="mirror")
    entries = identify(scan(root, rules), None, dataset, sink=sink, subject=dataset).entries
    is_mirror = layout.name == "mirror" and not mirrors_sharing_files(store, dataset, entries)
    if layout.name == "mirror":
        layout = replace(layout, name="auto")
    plain = unchanged_contents(entries, before) if is_mirror else set()
    to_send = [entry for entry in entries if entry.content_id not in plain]
    plan = plan_sync(to_send, before, layout, _nothing_else_known)
    with pack_sender(store, None, layout.pack_size, replace=bool(lost)) as sender:
        sent, pack_sizes, was_there = send_plan(
            store,
            plan,
            root,
            before,
            sender,
            dataset=dataset,
            max_workers=store.concurrency,
            replace=bool(lost),
            sink=sink,
        )
    places = {**sent, **dict.fromkeys(plain, MIRROR)}
    named = "mirror" if is_mirror else plan.layout
    manifest = Manifest(dataset, named, entries, places, pack_sizes, shards=before.shards)
    written = write_manifest(store, manifest)
    # What HEAD named at submit is kept by the run's record.
    new = [content for content, place in sent.items() if before.places.get(content) != place]
    ensure_kept(store, watch, manifest, written, reused=was_there, sent=new)
    values = {**values_named(manifest, new), **dict.fromkeys(written.files, ANY_SIZE)}
    return Published(manifest.snapshot, written.key, len(entries), manifest.size_bytes, values)


def _nothing_else_known(entries: Sequence[FileEntry]) -> dict[str, StoredAt]:
    return {}
