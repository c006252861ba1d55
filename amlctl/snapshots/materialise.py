"""A dataset's snapshot as files in a fresh folder: what a script sees under `data_blobs_dir()`."""

from __future__ import annotations

from pathlib import Path

from amlctl.core.events import EventSink, null_sink
from amlctl.snapshots.manifests import read_manifest
from amlctl.snapshots.receive import receive
from amlctl.stores.contract import Store


def materialise(
    store: Store,
    manifest_key: str,
    target: Path,
    *,
    mode: str,
    sink: EventSink = null_sink,
) -> None:
    """The snapshot appears at `target`, which nobody else sees yet and which is empty or missing.

    `mode`: with `mount` large objects are links into the store's folder, unless this user could write through them
    (root may write what is read-only); with `download` everything is copied.
    Raises NotFound, IntegrityError, ServiceUnavailable (disk full).
    """
    manifest = read_manifest(store, manifest_key)
    receive(
        store,
        manifest,
        manifest.entries,
        target,
        is_private=True,
        link_objects=mode == "mount",
        file_workers=store.concurrency,
        sink=sink,
    )
