"""Write entries of a manifest to this disk: packs in parallel, each content verified before it is seen.

A file appears under its own name only when it is whole and its content id is right, and no link below the target is
followed. Into a folder that is not in use yet (`is_private`: a working container) files are written under their own
names at once.
"""

from __future__ import annotations

import errno
import functools
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Optional, Union

from amlctl.core.events import EventSink, Stage, StageProgress
from amlctl.core.manifest import ONE_FILE, FileEntry, Kind, Manifest, StoredAt, needs_no_bytes
from amlctl.core.store_keys import FORMAT_KEY
from amlctl.errors import Conflict, Interrupted
from amlctl.localfs.atomic import remove_left_behind, temporary_name
from amlctl.localfs.disk_errors import disk_error, is_refusal
from amlctl.localfs.file_ops import link_to, move
from amlctl.localfs.identify import Written
from amlctl.localfs.read_file import file_content_id
from amlctl.localfs.stat_cache import RACY_NS
from amlctl.localfs.target import NotAFolder, TargetFolders
from amlctl.snapshots.contents import PackRange, checked, damaged, pack_ranges, place_key, read_range, told_if_gone
from amlctl.snapshots.partial import downloaded
from amlctl.stores.contract import Store

_POLL_S = 0.1
_MOST_STRETCHES = 8
"""Stretches of packs that are in memory at a time, however many files may travel."""
_BACKDATED_NS = 2 * RACY_NS
_MOST_NOTED = 300_000
"""Files whose state after writing is kept: some 300 bytes each."""


@dataclass
class Received:
    """Files and bytes written, absolute; safe to update from several threads. `written`, if wanted, has by path what
    each file was right after it was written; `displaced` are paths that were not, since their folder
    was moved, removed or replaced meanwhile."""

    files: int = 0
    size_bytes: int = 0
    written: dict[str, Written] | None = None
    displaced: set[str] = field(default_factory=set)
    is_waiting: bool = False
    """Whether threads wait for a disk or a network more than they work."""
    mtime_ns: int = field(default_factory=lambda: time.time_ns() - _BACKDATED_NS)
    _is_stopped: bool = field(default=False, repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def note(self, entry: FileEntry, name: str, folder: int) -> None:
        """It has that name in the folder now, dated back: with any other time it is somebody else's already."""
        if self.written is None:
            return
        try:
            found = os.lstat(name, dir_fd=folder)
        except OSError:  # removed again
            return
        if found.st_mtime_ns == self.mtime_ns:
            row = Written(found.st_size, found.st_mtime_ns, found.st_ino, found.st_ctime_ns, entry.content_id)
            self.written[entry.path] = row

    def date_back(self, file: Union[int, Path]) -> None:
        """An edit in the moment after a file has arrived changes its time, however coarse the clock of the disk is."""
        with suppress(OSError):  # some mounts refuse it: then the file is read again by the next command
            os.utime(file, ns=(self.mtime_ns, self.mtime_ns))

    def stop(self) -> None:
        """What is being received ends at its next part."""
        self._is_stopped = True

    def add(self, files: int, size_bytes: int) -> None:
        """Raises Interrupted once receiving has been stopped."""
        if self._is_stopped:
            raise Interrupted("receiving was stopped")
        with self._lock:
            self.files += files
            self.size_bytes += size_bytes


MayReplace = Callable[[FileEntry], bool]
"""Asked right before a file appears under its name; where it says no, what stands there is left alone."""


def _always(entry: FileEntry) -> bool:
    return True


def receive(
    store: Store,
    manifest: Manifest,
    entries: Sequence[FileEntry],
    target: Path,
    *,
    is_private: bool = False,
    may_replace: MayReplace = _always,
    link_objects: bool = False,
    max_workers: int = 4,
    file_workers: int = 4,
    is_noted: bool = False,
    sink: EventSink,
) -> Received:
    """Write `entries` below `target`. `link_objects`: large objects become symlinks into the store's folder, where
    nothing can be written through them.

    Memory is bounded by `max_workers` stretches of packs, at most eight; `file_workers` other files arrive at a time.
    `is_noted`: the result says what was written.

    Raises NotFound, IntegrityError, ServiceUnavailable (disk full).
    """
    done = Received(written={} if is_noted and len(entries) <= _MOST_NOTED else None)
    root = target.parent if len(entries) == 1 and entries[0].path == ONE_FILE else target
    folders = TargetFolders(root)
    receiver = _Receiver(store, manifest, target, root, folders, is_private, may_replace, link_objects, done)
    total_bytes = sum(entry.size_bytes for entry in entries)

    def tell(*, is_done: bool = False) -> None:
        progress = (done.files, done.size_bytes, len(entries), total_bytes)
        sink(StageProgress(Stage.RECEIVE, manifest.dataset, *progress, is_done=is_done))

    if not entries:
        return done
    root.mkdir(parents=True, exist_ok=True)
    ended: SimpleQueue[Future[None]] = SimpleQueue()
    with folders:
        _make_folders(folders, root, entries, is_private)
        tell()
        stretches, files = receiver.jobs(entries)
        done.is_waiting = not stretches or store.local_path(FORMAT_KEY) is None
        with (
            ThreadPoolExecutor(max(1, min(max_workers, _MOST_STRETCHES, len(stretches)))) as few,
            ThreadPoolExecutor(max(1, min(file_workers, len(files)))) as many,
        ):

            def begin(pool: ThreadPoolExecutor, job: Callable[[], None]) -> None:
                pool.submit(job).add_done_callback(ended.put)

            def begin_stretches(under_way: int) -> int:
                """One at a time where the disks answer at once: with more, threads wait for the interpreter (15 % more
                processor time). All of them where threads wait for a disk or a network. How many were begun."""
                begun = len(stretches) if done.is_waiting else min(len(stretches), max(0, 1 - under_way))
                for _ in range(begun):
                    begin(few, stretches.pop())
                return begun

            try:
                for job in files:
                    begin(many, job)
                _watch(ended, len(files), begin_stretches, tell)
            except BaseException:
                done.stop()
                few.shutdown(wait=False, cancel_futures=True)
                many.shutdown(wait=False, cancel_futures=True)
                raise
    tell(is_done=True)
    return done


def _watch(
    ended: SimpleQueue[Future[None]], under_way: int, begin_stretches: Callable[[int], int], tell: Callable[[], None]
) -> None:
    """Until all have ended; also while one large file takes all the time, `tell` is called."""
    while under_way := under_way + begin_stretches(under_way):
        with suppress(Empty):
            ended.get(timeout=_POLL_S).result()
            under_way -= 1
        tell()


@dataclass(frozen=True)
class _Receiver:
    """What all files of one call have in common."""

    store: Store
    manifest: Manifest
    target: Path
    root: Path
    folders: TargetFolders
    is_private: bool
    may_replace: MayReplace
    link_objects: bool
    done: Received

    def jobs(self, entries: Sequence[FileEntry]) -> tuple[list[Callable[[], None]], list[Callable[[], None]]]:
        """One for each stretch of a pack, and for each other file; files without bytes are written at once."""
        files: list[Callable[[], None]] = []
        packs: dict[str, list[tuple[FileEntry, StoredAt]]] = {}
        for entry in entries:
            place = self.manifest.places.get(entry.content_id)
            if needs_no_bytes(entry):
                if not entry.path.endswith("/"):
                    self._write(entry, b"")
                self.done.add(1, 0)
            elif place is None:
                raise damaged(self.manifest.dataset, entry.path, "the manifest names no place for it")
            elif place.kind is Kind.PACK:
                packs.setdefault(place.pack, []).append((entry, place))
            else:
                files.append(functools.partial(self._receive_large, entry, place))
        dataset = self.manifest.dataset
        stretches = [one for pack, wanted in packs.items() for one in pack_ranges(dataset, pack, wanted)]
        return [functools.partial(self._receive_range, stretch) for stretch in stretches], files

    def _receive_range(self, stretch: PackRange) -> None:
        files = size_bytes = 0
        begun_s, worked_s = time.monotonic(), time.thread_time()
        for entry, place, stored in read_range(self.store, stretch):
            self._write(entry, checked(stretch.dataset, entry, stored, place))
            files += 1
            size_bytes += entry.size_bytes
            if files == 256:
                self.done.add(files, size_bytes)
                files = size_bytes = 0
                if time.monotonic() - begun_s > 3 * (time.thread_time() - worked_s):
                    self.done.is_waiting = True
                begun_s, worked_s = time.monotonic(), time.thread_time()
        self.done.add(files, size_bytes)

    def _receive_large(self, entry: FileEntry, place: StoredAt) -> None:
        key = place_key(self.manifest, entry, place)
        path = Path(_path(self.target, entry))
        source = self.store.local_path(key) if self.link_objects and not entry.is_executable else None
        if source is not None and place.kind is Kind.OBJECT and not _is_writable(source):
            if path.is_symlink() or path.exists():
                path.unlink()
            if link_to(path, source):
                self.done.add(1, entry.size_bytes)
                return
        arriving = downloaded(
            self.store,
            key,
            entry.content_id,
            entry.size_bytes,
            self.root,
            mode=_mode(entry.is_executable),
            on_bytes=lambda size_bytes: self.done.add(0, size_bytes),
        )
        with _disk_errors(path), told_if_gone(self.manifest.dataset), arriving as temporary:
            if file_content_id(temporary) != entry.content_id:
                raise damaged(self.manifest.dataset, entry.path, key)
            if self.is_private:
                move(temporary, path)
            else:
                self.done.date_back(temporary)
                self._appear(entry, temporary)
        self.done.add(1, 0)

    def _write(self, entry: FileEntry, data: bytes | memoryview) -> None:
        """Raises ServiceUnavailable (disk full), OSError."""
        try:
            if self.is_private:
                _write_new(_path(self.target, entry), data, _mode(entry.is_executable))
            else:
                self._write_beside(entry, data)
        except OSError as error:
            told = disk_error(error, _path(self.target, entry))
            if told is None:
                raise
            raise told from error

    def _write_beside(self, entry: FileEntry, data: bytes | memoryview) -> None:
        """Under a temporary name first."""
        above, name = self._parts(entry)
        try:
            folder = self.folders.opened(above)
        except (NotAFolder, FileNotFoundError):
            self.done.displaced.add(entry.path)
            return
        temporary = temporary_name()
        try:
            _write_new(temporary, data, _mode(entry.is_executable), folder, self.done.date_back)
            if self._may_appear(entry, above):
                self._rename_within(folder, above, temporary, name)
                self.done.note(entry, name, folder)
            else:
                os.unlink(temporary, dir_fd=folder)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise

    def _rename_within(self, folder: int, above: str, temporary: str, name: str) -> None:
        try:
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError as error:
            if not (is_refusal(error) and self.folders.is_in_place(above)):
                raise
            move(self.root / above / temporary, self.root / above / name)

    def _appear(self, entry: FileEntry, temporary: Path) -> None:
        """A file that has arrived elsewhere takes its name, where that is allowed."""
        above, name = self._parts(entry)
        try:
            folder = self.folders.opened(above)
        except (NotAFolder, FileNotFoundError):
            self.done.displaced.add(entry.path)
            return
        if self._may_appear(entry, above):
            try:
                _rename(temporary, name, folder)
            except OSError as error:
                if not (is_refusal(error) and self.folders.is_in_place(above)):
                    raise
                move(temporary, self.root / above / name)
            self.done.note(entry, name, folder)

    def _may_appear(self, entry: FileEntry, above: str) -> bool:
        if self.folders.is_in_place(above):
            return self.may_replace(entry)
        self.done.displaced.add(entry.path)
        return False

    def _parts(self, entry: FileEntry) -> tuple[str, str]:
        """Its folder, relative to the root, and its name there."""
        if entry.path == ONE_FILE:
            return "", self.target.name
        folder, _, name = entry.path.rpartition("/")
        return folder, name


def _nothing(descriptor: int) -> None:
    """Nothing is left to do."""


def _write_new(
    path: str,
    data: bytes | memoryview,
    mode: int,
    folder: Optional[int] = None,
    before_closing: Callable[[int], None] = _nothing,
) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode, dir_fd=folder)
    try:
        at = os.write(descriptor, data)
        while at < len(data):
            at += os.write(descriptor, data[at:])
        before_closing(descriptor)
    finally:
        os.close(descriptor)


def _rename(temporary: Path, name: str, folder: int) -> None:
    try:
        os.rename(temporary, name, dst_dir_fd=folder)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # A folder further down is on another disk.
        beside = temporary_name()
        with open(temporary, "rb") as whole:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
            with os.fdopen(descriptor, "wb") as copy:
                shutil.copyfileobj(whole, copy, 1 << 20)
                seen = os.fstat(whole.fileno())
                os.fchmod(copy.fileno(), seen.st_mode & 0o777)
                copy.flush()
                os.utime(copy.fileno(), ns=(seen.st_atime_ns, seen.st_mtime_ns))
        os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
        temporary.unlink()


def _path(target: Path, entry: FileEntry) -> str:
    return os.fspath(target) if entry.path == ONE_FILE else f"{os.fspath(target)}/{entry.path}"


def _make_folders(folders: TargetFolders, root: Path, entries: Sequence[FileEntry], is_private: bool) -> None:
    """Raises Conflict."""
    for folder in sorted({entry.path.rpartition("/")[0] for entry in entries}):
        try:
            folders.opened(folder, make=True)
        except NotAFolder as error:
            what = "a link" if os.path.islink(str(error.filename)) else "a file"
            raise Conflict(
                f"{what} stands where the folder {error.filename} has to be", hint="run the same command again"
            ) from error
        if not is_private:
            remove_left_behind(root / folder)


def _is_writable(path: Path) -> bool:
    """True for root also where the mode says read-only; False for everybody below a read-only mount."""
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _mode(is_executable: bool) -> int:
    return 0o777 if is_executable else 0o666


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        told = disk_error(error, str(path))
        if told is None:
            raise
        raise told from error
