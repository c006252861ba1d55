"""The data of a local run, in its container before the runtime starts.

In order: a copy that an earlier run has given back, brought to the run's snapshot; for a container store the files of
`data_blobs/` that have just the bytes of the snapshot; the store. The runtime finds what it would have unpacked itself,
and unpacks the rest: a dataset that is one file, and those inside others.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import xxhash

from amlctl.core.manifest import ONE_FILE, FileEntry, Manifest, needs_no_bytes
from amlctl.core.message import count, size
from amlctl.core.run import RunRecord
from amlctl.core.store_keys import area_of
from amlctl.errors import NotFound
from amlctl.localfs.atomic import set_mtime
from amlctl.localfs.folders import make_folders
from amlctl.localfs.project import Project
from amlctl.localfs.read_file import file_content_id
from amlctl.parallel import alongside, in_parallel
from amlctl.runs.copies import copy_manifest, copy_value
from amlctl.runs.records import save_record
from amlctl.runtime.data import PlacingLog, mark_placed, unreadable
from amlctl.snapshots.contents import Value, values_of
from amlctl.snapshots.manifests import read_manifest
from amlctl.snapshots.receive import Received, ReceiveOptions, receive
from amlctl.stores.contract import Store
from amlctl.stores.directory import DirectoryStore
from amlctl.workspaces.local.data_copies import DataCopies, DataCopy, repaired, rows_of
from amlctl.workspaces.local.run_paths import RunPaths

_DOWNLOADS = 4
"""Values at a time; large ones come in parallel parts besides."""
_REPORT_EVERY_S = 5.0
_POLL_S = 0.1
_PART_BYTES = 1 << 20
_FICLONE = 0x40049409
"""ioctl_ficlone(2): two files share their blocks until one is written to."""


@dataclass(frozen=True)
class Placer:
    """`node` is the folder that stands for the `store` (see `node_files`). `check` is called often; what it raises
    stops the placing."""

    store: Store
    node: DirectoryStore
    paths: RunPaths
    record: RunRecord
    log: Callable[[str], None]
    check: Callable[[], None]

    def bring_manifests(self) -> None:
        """What the runtime reads of a container store besides data. Raises NotFound, ServiceUnavailable."""
        for key in (*self.record.spec.manifests.values(), *self.record.spec.heads.values()):
            if key is not None:  # heads: so that a produced dataset adds only what is new
                copy_manifest(self.store, self.node, key)
        save_record(self.node, self.record)

    def place(self) -> list[DataCopy]:
        """Every dataset, in every container. Raises NotFound, IntegrityError, ServiceUnavailable, OSError."""
        if self.store.folder is None:
            self.bring_manifests()
        found: list[DataCopy] = []
        for dataset, key in self.record.spec.manifests.items():
            try:
                self._place_dataset(dataset, key, found)
            except NotFound as error:
                raise unreadable(dataset, error) from error
        return found

    def _place_dataset(self, dataset: str, key: str, found: list[DataCopy]) -> None:
        spec = self.record.spec
        manifest = read_manifest(self.node, key)
        is_alone = not any(one.startswith(f"{dataset}/") or dataset.startswith(f"{one}/") for one in spec.manifests)
        if not is_alone or any(entry.path == ONE_FILE for entry in manifest.entries):
            self._download(manifest)
            return
        copies = DataCopies(self.paths.state_dir, self.store.url, dataset, spec.mode)
        copies.make_room()
        for node in range(spec.instances):
            folders = self.paths.node_folders(node)
            copy = copies.take(self.paths.data_copy(len(found)))
            self._place(copy, manifest, folders.data_blobs_dir / dataset)
            found.append(copy)
            mark_placed(folders, dataset, key)

    def _place(self, copy: DataCopy, manifest: Manifest, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        wanted: Sequence[FileEntry] = manifest.entries
        if copy.rows:
            try:
                copy.tree.rename(target)
                wanted = repaired(target, copy.rows, manifest.entries)
            except OSError:  # files of another user, say, which cannot be removed
                target.rename(copy.folder / "unusable")
                wanted, copy.rows = manifest.entries, {}
        target.mkdir(exist_ok=True)
        written = wanted
        if self.store.folder is None:
            wanted = self._from_data_blobs(manifest, wanted, target)
            self._download(replace(manifest, entries=wanted))
        self._receive(replace(manifest, entries=wanted), target)
        kept = {entry.path for entry in manifest.entries}
        rows = {path: row for path, row in copy.rows.items() if path in kept}
        copy.note({**rows, **rows_of(target, written)})
        copy.is_now_at(target)

    def _download(self, manifest: Manifest) -> None:
        """The values of the manifest's entries, into the node's folder, where that is not the store itself.

        Raises NotFound (a snapshot has gone), IntegrityError (damaged in the store), ServiceUnavailable.
        """
        if self.store.folder is not None:
            return
        wanted = values_of(manifest)
        values = {key: value for key, value in wanted.items() if not _has(self.node, key, value)}
        for key in wanted.keys() - values.keys():
            if (path := self.node.local_path(key)) is not None:
                with suppress(OSError):
                    set_mtime(path, time.time_ns())  # what was used least recently is evicted first
        if not values:
            return
        self.log(f"downloading {manifest.dataset} ({count(len(values), 'object')})")
        received, reported_at = 0, time.monotonic()
        folder = Path(self.node.url)
        make_folders(folder)

        def download(key: str) -> int:
            copy_value(self.store, self.node, key, values[key], folder)
            return values[key].size_bytes

        for done, size_bytes in enumerate(in_parallel(download, values, _DOWNLOADS), 1):
            received += size_bytes
            self.check()
            if time.monotonic() - reported_at > _REPORT_EVERY_S:
                reported_at = time.monotonic()
                self.log(f"downloading {manifest.dataset}: {done} of {len(values)} objects, {size(received)}")
        self.log(f"downloaded {manifest.dataset}: {size(received)}")

    def _receive(self, manifest: Manifest, target: Path) -> None:
        done = Received()
        is_mount = self.record.spec.mode == "mount"
        options = ReceiveOptions(is_private=True, link_objects=is_mount, workers=self.node.concurrency)
        sink = PlacingLog(self.log)
        with alongside(lambda: receive(self.node, manifest, target, options, done, sink), done.stop) as unpacked:
            while wait([unpacked], timeout=_POLL_S).not_done:
                self.check()

    def _from_data_blobs(self, manifest: Manifest, wanted: Sequence[FileEntry], target: Path) -> list[FileEntry]:
        """Copy what the project itself has, as far as it still has these bytes; the entries that are left."""
        source = Project(self.paths.state_dir.parent).dataset_path(manifest.dataset)
        if not source.is_dir():
            return list(wanted)
        left = []
        for number, entry in enumerate(wanted):
            if number % 256 == 0:
                self.check()
            if needs_no_bytes(entry) or not _copied(source / entry.path, target / entry.path, entry, self.check):
                left.append(entry)
        return left


def _has(node: DirectoryStore, key: str, value: Value) -> bool:
    path = node.local_path(key)
    if path is None:
        return False
    # Packs and objects never change; a mirrored file is that of the latest snapshot.
    return not area_of(key).is_plain or file_content_id(path) == value.content_id


def _copied(source: Path, target: Path, entry: FileEntry, check: Callable[[], None]) -> bool:
    """The bytes that are written are those that are identified, even if the source changes meanwhile."""
    try:
        with open(source, "rb", opener=_without_waiting) as file:
            if os.fstat(file.fileno()).st_size != entry.size_bytes:
                return False
            target.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o777 if entry.is_executable else 0o666)
            with open(descriptor, "wb", buffering=0) as copy:
                if entry.size_bytes >= _PART_BYTES and _cloned(file.fileno(), descriptor):
                    found = file_content_id(target)
                else:
                    digest = xxhash.xxh3_128()
                    while part := file.read(_PART_BYTES):
                        check()
                        digest.update(part)
                        copy.write(part)
                    found = digest.hexdigest()
    except OSError:
        found = ""
    if found != entry.content_id:
        target.unlink(missing_ok=True)
        return False
    return True


def _cloned(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe may have taken the place of a file
