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
from amlctl.transfer.heads import read_head
from amlctl.transfer.known import ensure_kept
from amlctl.transfer.manifests import read_manifest, write_manifest
from amlctl.transfer.mirrors import mirrors_sharing_files
from amlctl.transfer.plain_files import unchanged_contents
from amlctl.transfer.send import pack_sender, send_plan


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
    plain_files: bool = True,
    sink: EventSink = null_sink,
) -> Published:
    """`base_key` names the manifest that HEAD named when the run was submitted (None: there was none); `layout` has
    the sizes, and the layout of a dataset that is new; `rules` say what is left out. Without `plain_files` those of a
    mirror are left to whoever moves HEAD (`make_newest`, with a source).

    Raises FileNotFoundError (no such folder), Conflict (files still change), RightsError.
    """
    head = read_head(store, dataset)
    before = empty_manifest(dataset) if head is None else read_manifest(store, head.manifest_key)
    layout = layout or Layout("auto")
    if before.layout == "mirror":
        layout = replace(layout, name="mirror")
    entries = identify(scan(root, rules), None, dataset, sink=sink, subject=dataset).entries
    plain: set[str] = set()
    is_mirror = layout.name == "mirror" and not mirrors_sharing_files(store, dataset, entries)
    has_moved = (None if head is None else head.manifest_key) != base_key
    if not is_mirror:
        layout = replace(layout, name="auto" if layout.name == "mirror" else layout.name)
    elif has_moved or not plain_files:
        # Where HEAD has moved, its plain files are somebody's newer ones by now. The next sync that
        # changes something writes there what the merge takes of ours.
        layout = replace(layout, name="auto")
        plain = unchanged_contents(entries, before)
    to_send = [entry for entry in entries if entry.content_id not in plain]
    plan = plan_sync(to_send, before, layout, _nothing_else_known)
    with pack_sender(store, None, layout.pack_size) as sender:
        sent, pack_sizes, was_there = send_plan(
            store, plan, root, before, sender, dataset=dataset, max_workers=store.concurrency, sink=sink
        )
    places = {**sent, **dict.fromkeys(plain, MIRROR)}
    manifest = Manifest(
        dataset, "mirror" if is_mirror else plan.layout, entries, places, pack_sizes, shards=before.shards
    )
    written = write_manifest(store, manifest)
    ensure_kept(store, {content: places[content] for content in was_there}, written.found)
    return Published(manifest.snapshot, written.key, len(entries), manifest.size_bytes)


def _nothing_else_known(entries: Sequence[FileEntry]) -> dict[str, Place]:
    return {}
