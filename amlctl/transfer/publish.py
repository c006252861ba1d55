"""The bytes and the manifest of a folder into a store, without HEAD: what a run has produced.

Also runs on a node, where the store is a mounted folder and there is no local state. Whoever can swap HEAD
moves it afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from amlctl.core.events import EventSink, null_sink
from amlctl.core.manifest import MIRROR, FileEntry, Manifest, Place, empty_manifest
from amlctl.core.sync_plan import Layout, plan_sync
from amlctl.localfs.identify import identify
from amlctl.localfs.ignore import IgnoreRules
from amlctl.localfs.scan import scan
from amlctl.stores.contract import Store
from amlctl.transfer.known import ensure_kept
from amlctl.transfer.manifests import read_manifest, write_manifest
from amlctl.transfer.mirrors import mirrors_sharing_files
from amlctl.transfer.pack_sender import pack_sender
from amlctl.transfer.plain_files import unchanged_contents
from amlctl.transfer.send import send_plan


@dataclass(frozen=True)
class Published:
    """A snapshot that the store holds; `files` counts entries, `size_bytes` their content."""

    snapshot: str
    manifest_key: str
    files: int
    size_bytes: int


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
    say what is left out. The plain files of a mirror are left to whoever moves HEAD (`make_newest`).

    Raises FileNotFoundError (no such folder), Conflict (files still change), RightsError, NotFound (`base_key`).
    """
    before = empty_manifest(dataset) if base_key is None else read_manifest(store, base_key)
    layout = layout or Layout("auto")
    if before.layout == "mirror":
        layout = replace(layout, name="mirror")
    entries = identify(scan(root, rules), None, dataset, sink=sink, subject=dataset).entries
    is_mirror = layout.name == "mirror" and not mirrors_sharing_files(store, dataset, entries)
    if layout.name == "mirror":
        layout = replace(layout, name="auto")
    plain = unchanged_contents(entries, before) if is_mirror else set()
    to_send = [entry for entry in entries if entry.content_id not in plain]
    plan = plan_sync(to_send, before, layout, _nothing_else_known)
    with pack_sender(store, None, layout.pack_size) as sender:
        sent, pack_sizes, was_there = send_plan(
            store, plan, root, before, sender, dataset=dataset, max_workers=store.concurrency, sink=sink
        )
    places = {**sent, **dict.fromkeys(plain, MIRROR)}
    named = "mirror" if is_mirror else plan.layout
    manifest = Manifest(dataset, named, entries, places, pack_sizes, shards=before.shards)
    written = write_manifest(store, manifest)
    ensure_kept(store, {content: places[content] for content in was_there}, written.found)
    return Published(manifest.snapshot, written.key, len(entries), manifest.size_bytes)


def _nothing_else_known(entries: Sequence[FileEntry]) -> dict[str, Place]:
    return {}
