"""Write entries of a manifest to this disk: packs in parallel, each content verified before it is seen.

A file appears under its own name only when it is whole and its content id is right, and no link below the target is
followed. Into a folder that is not in use yet (`is_private`: a working container) files are written under their own
names at once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Union

from amlctl.core.content_id import content_id
from amlctl.core.events import EventSink, Stage, null_sink
from amlctl.core.manifest import ONE_FILE, FileEntry, Kind, Manifest, StoredAt, needs_no_bytes
from amlctl.core.message import AGAIN
from amlctl.errors import Conflict
from amlctl.localfs.atomic import link_to, move, remove_left_behind, temporary_name
from amlctl.localfs.disk_errors import disk_error
from amlctl.localfs.read_file import file_content_id
from amlctl.localfs.scan import RACY_NS, StatFields, stat_fields
from amlctl.localfs.target import NotAFolder, TargetFolders
from amlctl.parallel import Stop, Turns, alongside, for_each
from amlctl.snapshots.contents import (
    PackRange,
    Value,
    checked,
    damaged,
    downloaded,
    explained_if_gone,
    pack_ranges,
    place_key,
    read_range,
)
from amlctl.snapshots.manifests import read_manifest
from amlctl.snapshots.transfers import Transfers, taking_turns
from amlctl.stores.contract import OnBytes, Store

_MOST_STRETCHES = 8
"""Stretches of packs that are in memory at a time, however many files may travel."""
_LOCAL_STRETCHES = 1
"""Of a folder. With two, pulling 20,000 files took 1.6 times the processor time and 1.2 times as long."""
_WRITERS = 2
"""Stretches that are written at a time. Eight took a ninth more processor time, and a seventh longer."""
_IN_MEMORY_BYTES = 256 << 10
"""A file outside of packs that is larger goes through the disk before its content id is known: 3,000 files of a mirror
took a fifth more processor time in that way."""
_FILES_BETWEEN_CHECKS = 256
_BACKDATED_NS = 2 * RACY_NS


@dataclass
class Received:
    """What became of the files; safe to update from several threads. `written`, if wanted, has by path the stat
    fields of each file right after it was written, and its content id; `displaced` are paths whose folder was moved,
    removed or replaced meanwhile."""

    written: dict[str, tuple[StatFields, str]] | None = None
    displaced: set[str] = field(default_factory=set)
    mtime_ns: int = field(default_factory=lambda: time.time_ns() - _BACKDATED_NS)
    stop: Stop = field(default_factory=Stop)

    def note(self, entry: FileEntry, name: str, folder: int) -> None:
        """It has that name in the folder now, dated back: with any other time it is somebody else's already."""
        if self.written is None:
            return
        try:
            found = os.lstat(name, dir_fd=folder)
        except OSError:  # removed again
            return
        if found.st_mtime_ns == self.mtime_ns:
            self.written[entry.path] = stat_fields(found), entry.content_id

    def date_back(self, file: Union[int, Path]) -> None:
        """An edit in the moment after a file has arrived changes its time, however coarse the clock of the disk is."""
        with suppress(OSError):  # some mounts refuse it: then the file is read again by the next command
            os.utime(file, ns=(self.mtime_ns, self.mtime_ns))


@dataclass(frozen=True)
class ReceiveOptions:
    """`link_objects`: large objects become symlinks into the store's folder, where nothing can be written through
    them. `may_replace` is asked right before a file appears under its name; if not, what is there is left alone.
    `workers` files arrive at a time, and of stretches of packs at most eight, which bounds memory.
    """

    is_private: bool = False
    link_objects: bool = False
    may_replace: Callable[[FileEntry], bool] = lambda entry: True
    workers: int = 4


def receive(
    store: Store, manifest: Manifest, target: Path, options: ReceiveOptions, done: Received, sink: EventSink
) -> None:
    """Write the entries of the manifest below `target`. `done` notes what became of them; another thread may stop it.

    Raises NotFound, IntegrityError, ServiceUnavailable (disk full).
    """
    entries = manifest.entries
    if not entries:
        return
    root = target.parent if len(entries) == 1 and entries[0].path == ONE_FILE else target
    folders = TargetFolders(root)
    total_bytes = sum(entry.size_bytes for entry in entries)
    transfers = Transfers(Stage.RECEIVE, manifest.dataset, sink)
    transfers.expect(len(entries), total_bytes)
    receiver = _Receiver(store, manifest, target, root, folders, options, done, transfers)
    root.mkdir(parents=True, exist_ok=True)
    with folders:
        _make_folders(folders, root, entries, options.is_private)
        transfers.begin()
        stretches, files = receiver.jobs()
        transfers.expect(len(entries), total_bytes, len(stretches) + len(files))
        at_a_time = min(options.workers, _MOST_STRETCHES if store.folder is None else _LOCAL_STRETCHES)
        with alongside(lambda: for_each(receiver.receive_file, files, options.workers, stop=done.stop), done.stop):
            for_each(receiver.receive_range, stretches, at_a_time, stop=done.stop)
    transfers.finish()


@dataclass(frozen=True)
class _Receiver:
    """What all files of one call have in common."""

    store: Store
    manifest: Manifest
    target: Path
    root: Path
    folders: TargetFolders
    options: ReceiveOptions
    done: Received
    transfers: Transfers
    writing: Turns = field(default_factory=lambda: Turns(_WRITERS))

    def jobs(self) -> tuple[list[PackRange], list[tuple[FileEntry, StoredAt]]]:
        """Stretches of packs, and other files; files without bytes are written at once."""
        files: list[tuple[FileEntry, StoredAt]] = []
        packs: dict[str, list[tuple[FileEntry, StoredAt]]] = {}
        for entry in self.manifest.entries:
            place = self.manifest.places.get(entry.content_id)
            if needs_no_bytes(entry):
                if not entry.path.endswith("/"):
                    self._write(entry, b"")
                self.transfers.add(1, 0)
            elif place is None:
                raise damaged(self.manifest.dataset, entry.path, "the manifest names no place for it")
            elif place.kind is Kind.PACK:
                packs.setdefault(place.pack, []).append((entry, place))
            else:
                files.append((entry, place))
        dataset = self.manifest.dataset
        return [one for pack, wanted in packs.items() for one in pack_ranges(dataset, pack, wanted)], taking_turns(
            files, lambda wanted: wanted[0].size_bytes
        )

    def receive_range(self, stretch: PackRange) -> None:
        size_bytes = sum(entry.size_bytes for entry, _ in stretch.members)
        transfer = self.transfers.transfer(len(stretch.members), size_bytes, stretch.length)
        members = read_range(self.store, stretch, transfer.moved)
        with self.writing.turn():
            for number, (entry, place, stored) in enumerate(members):
                if number % _FILES_BETWEEN_CHECKS == 0:
                    self.done.stop.check()
                self._write(entry, checked(stretch.dataset, entry, stored, place))
        transfer.done()

    def receive_file(self, wanted: tuple[FileEntry, StoredAt]) -> None:
        entry, place = wanted
        self.done.stop.check()
        transfer = self.transfers.transfer(1, entry.size_bytes, entry.size_bytes)
        key = place_key(self.manifest, entry, place)
        path = Path(_path(self.target, entry))
        source = self.store.local_path(key) if self.options.link_objects and not entry.is_executable else None
        if source is not None and place.kind is Kind.OBJECT and not _is_writable(source):
            if path.is_symlink() or path.exists():
                path.unlink()
            if link_to(path, source):
                transfer.done()
                return

        def moved(size_bytes: int) -> None:
            self.done.stop.check()
            transfer.moved(size_bytes)

        if entry.size_bytes <= _IN_MEMORY_BYTES:
            with explained_if_gone(self.manifest.dataset):
                data = self.store.get(key, length=entry.size_bytes + 1, on_bytes=moved)
            if content_id(data) != entry.content_id:
                raise damaged(self.manifest.dataset, entry.path, key)
            self._write(entry, data)
        else:
            self._download(entry, key, moved)
        transfer.done()

    def _download(self, entry: FileEntry, key: str, on_bytes: OnBytes) -> None:
        path, expected = Path(_path(self.target, entry)), Value(entry.content_id, entry.size_bytes)
        mode = _mode(entry.is_executable)
        arriving = downloaded(self.store, key, expected, self.root, mode=mode, on_bytes=on_bytes)
        with _DiskErrors(str(path)), explained_if_gone(self.manifest.dataset), arriving as temporary:
            if file_content_id(temporary) != entry.content_id:
                raise damaged(self.manifest.dataset, entry.path, key)
            if self.options.is_private:
                move(temporary, path)
            else:
                self.done.date_back(temporary)
                if (place := self._place(entry)) is not None:
                    self._appear(entry, temporary, place)

    def _write(self, entry: FileEntry, data: bytes | memoryview) -> None:
        """Raises ServiceUnavailable (disk full), OSError."""
        path = _path(self.target, entry)
        with _DiskErrors(path):
            if self.options.is_private:
                _write_new(path, data, _mode(entry.is_executable))
            else:
                self._write_beside(entry, data)

    def _write_beside(self, entry: FileEntry, data: bytes | memoryview) -> None:
        """Under a temporary name first."""
        place = self._place(entry)
        if place is None:
            return
        temporary = temporary_name()
        try:
            _write_new(temporary, data, _mode(entry.is_executable), place[2], self.done.date_back)
            if not self._appear(entry, temporary, place):
                os.unlink(temporary, dir_fd=place[2])
        except OSError:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=place[2])
            raise

    def _place(self, entry: FileEntry) -> Optional[tuple[str, str, int]]:
        """Its folder, relative to the root, its name there, and the open folder; None where that is not there."""
        above, _, name = ("", "", self.target.name) if entry.path == ONE_FILE else entry.path.rpartition("/")
        try:
            return above, name, self.folders.opened(above)
        except (NotAFolder, FileNotFoundError):
            self.done.displaced.add(entry.path)
            return None

    def _appear(self, entry: FileEntry, temporary: Union[str, Path], place: tuple[str, str, int]) -> bool:
        """The file takes its name, if that is allowed."""
        above, name, folder = place
        if not self.folders.is_in_place(above):
            self.done.displaced.add(entry.path)
        elif self.options.may_replace(entry):
            self.folders.adopt(temporary, above, name)
            self.done.note(entry, name, folder)
            return True
        return False


def _write_new(
    path: str,
    data: bytes | memoryview,
    mode: int,
    folder: Optional[int] = None,
    before_closing: Callable[[int], object] = lambda descriptor: None,
) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode, dir_fd=folder)
    try:
        at = os.write(descriptor, data)
        while at < len(data):
            at += os.write(descriptor, data[at:])
        before_closing(descriptor)
    finally:
        os.close(descriptor)


def _path(target: Path, entry: FileEntry) -> str:
    return os.fspath(target) if entry.path == ONE_FILE else f"{os.fspath(target)}/{entry.path}"


def _make_folders(folders: TargetFolders, root: Path, entries: Sequence[FileEntry], is_private: bool) -> None:
    """Raises Conflict."""
    for folder in sorted({entry.path.rpartition("/")[0] for entry in entries}):
        try:
            folders.opened(folder, make=True)
        except NotAFolder as error:
            what = "a link" if os.path.islink(str(error.filename)) else "a file"
            raise Conflict(f"{what} stands where the folder {error.filename} has to be", hint=AGAIN) from error
        if not is_private:
            remove_left_behind(root / folder)


def _is_writable(path: Path) -> bool:
    """True for root also where the mode says read-only; False for everybody below a read-only mount."""
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _mode(is_executable: bool) -> int:
    return 0o777 if is_executable else 0o666


class _DiskErrors:
    """Errors of the disk name the path. A class, since a generator costs each small file a microsecond more."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: Optional[BaseException], trace: object) -> None:
        if isinstance(error, OSError) and (found := disk_error(error, self._path)) is not None:
            raise found from error


def materialise(
    store: Store,
    manifest_key: str,
    target: Path,
    *,
    mode: str,
    sink: EventSink = null_sink,
) -> None:
    """The snapshot appears at `target`, which is not in use yet and which is empty or missing.

    `mode`: with `mount` large objects are links into the store's folder, unless this user could write through them
    (root may write what is read-only); with `download` everything is copied.
    Raises NotFound, IntegrityError, ServiceUnavailable (disk full).
    """
    options = ReceiveOptions(is_private=True, link_objects=mode == "mount", workers=store.concurrency)
    receive(store, read_manifest(store, manifest_key), target, options, Received(), sink)
