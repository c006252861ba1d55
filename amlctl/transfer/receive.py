"""Write entries of a manifest to this disk: packs in parallel, each content verified before it is seen.

A file appears under its own name only when it is whole and its content id is right. Into a folder that nobody
sees yet (`is_private`: a working container) files are written under their own names at once.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Union

from amlctl.core.events import EventSink, Stage, StageProgress
from amlctl.core.manifest import ONE_FILE, FileEntry, Manifest, Place, needs_no_bytes
from amlctl.errors import Conflict, Interrupted
from amlctl.localfs.atomic import remove_left_behind, temporary_name
from amlctl.localfs.disk_errors import disk_error
from amlctl.localfs.dispensable import link_to, move
from amlctl.localfs.folders import make_folders
from amlctl.localfs.identify import Written
from amlctl.localfs.read_file import file_content_id
from amlctl.localfs.stat_cache import RACY_NS
from amlctl.stores.contract import Store
from amlctl.transfer.contents import PackRange, checked, damaged, pack_ranges, place_key, read_range, told_if_gone
from amlctl.transfer.partial import downloaded

_TELL_EVERY_S = 0.1
_MOST_STRETCHES = 8
"""Stretches of packs that are in memory at a time, however many files may travel."""
_BACKDATED_NS = 2 * RACY_NS
_MOST_NOTED = 300_000
"""Files whose state after writing is kept: some 300 bytes each."""


@dataclass
class Received:
    """Files and bytes written, absolute; safe to update from several threads. `written`, if wanted, has by path what
    each file was right after it was written."""

    files: int = 0
    size_bytes: int = 0
    written: dict[str, Written] | None = None
    mtime_ns: int = field(default_factory=lambda: time.time_ns() - _BACKDATED_NS)
    _is_stopped: bool = field(default=False, repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def note(self, entry: FileEntry, path: str) -> None:
        """It stands at `path` now, dated back: with any other time it is somebody else's already."""
        if self.written is None:
            return
        try:
            found = os.lstat(path)
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
    receiver = _Receiver(store, manifest, target, is_private, may_replace, link_objects, done)
    total_bytes = sum(entry.size_bytes for entry in entries)

    def tell(*, is_done: bool = False) -> None:
        progress = (done.files, done.size_bytes, len(entries), total_bytes)
        sink(StageProgress(Stage.RECEIVE, manifest.dataset, *progress, is_done=is_done))

    if not entries:
        return done
    _make_folders(target, entries, is_private)
    tell()
    stretches, files = receiver.jobs(entries)
    ended: SimpleQueue[Future[None]] = SimpleQueue()
    with (
        ThreadPoolExecutor(max(1, min(max_workers, _MOST_STRETCHES, len(stretches)))) as few,
        ThreadPoolExecutor(max(1, min(file_workers, len(files)))) as many,
    ):
        waiting = [few.submit(job) for job in stretches] + [many.submit(job) for job in files]
        for future in waiting:
            future.add_done_callback(ended.put)
        try:
            _watch(ended, len(waiting), tell)
        except BaseException:
            done.stop()
            few.shutdown(wait=False, cancel_futures=True)
            many.shutdown(wait=False, cancel_futures=True)
            raise
    tell(is_done=True)
    return done


def _watch(ended: SimpleQueue[Future[None]], count: int, tell: Callable[[], None]) -> None:
    """Until all have ended; also while one large file takes all the time, `tell` is called."""
    told_at = 0.0
    while count:
        with suppress(Empty):
            ended.get(timeout=_TELL_EVERY_S).result()
            count -= 1
        if time.monotonic() - told_at > _TELL_EVERY_S:
            told_at = time.monotonic()
            tell()


@dataclass(frozen=True)
class _Receiver:
    """What all files of one call have in common."""

    store: Store
    manifest: Manifest
    target: Path
    is_private: bool
    may_replace: MayReplace
    link_objects: bool
    done: Received

    def jobs(self, entries: Sequence[FileEntry]) -> tuple[list[Callable[[], None]], list[Callable[[], None]]]:
        """One for each stretch of a pack, and for each other file; files without bytes are written at once."""
        files: list[Callable[[], None]] = []
        packs: dict[str, list[tuple[FileEntry, Place]]] = {}
        for entry in entries:
            place = self.manifest.places.get(entry.content_id)
            if needs_no_bytes(entry):
                if not entry.path.endswith("/"):
                    self._write(entry, b"")
                self.done.add(1, 0)
            elif place is None:
                raise damaged(self.manifest.dataset, entry.path, "the manifest names no place for it")
            elif place.kind == "pack":
                packs.setdefault(place.pack, []).append((entry, place))
            else:
                files.append(functools.partial(self._receive_large, entry, place))
        dataset = self.manifest.dataset
        stretches = [one for pack, wanted in packs.items() for one in pack_ranges(dataset, pack, wanted)]
        return [functools.partial(self._receive_range, stretch) for stretch in stretches], files

    def _receive_range(self, stretch: PackRange) -> None:
        files = size_bytes = 0
        for entry, place, stored in read_range(self.store, stretch):
            self._write(entry, checked(stretch.dataset, entry, stored, place))
            files += 1
            size_bytes += entry.size_bytes
            if files == 256:
                self.done.add(files, size_bytes)
                files = size_bytes = 0
        self.done.add(files, size_bytes)

    def _receive_large(self, entry: FileEntry, place: Place) -> None:
        key = place_key(self.manifest, entry, place)
        path = Path(_path(self.target, entry))
        source = self.store.local_path(key) if self.link_objects and not entry.is_executable else None
        if source is not None and place.kind == "object" and not _is_writable(source):
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
            path,
            mode=_mode(entry.is_executable),
            on_bytes=lambda size_bytes: self.done.add(0, size_bytes),
        )
        with _disk_errors(path), told_if_gone(self.manifest.dataset), arriving as temporary:
            if file_content_id(temporary) != entry.content_id:
                raise damaged(self.manifest.dataset, entry.path, key)
            if self.may_replace(entry):
                self.done.date_back(temporary)
                move(temporary, path)
                self.done.note(entry, os.fspath(path))
        self.done.add(1, 0)

    def _write(self, entry: FileEntry, data: bytes | memoryview) -> None:
        """Raises ServiceUnavailable (disk full), OSError."""
        path = _path(self.target, entry)
        written_to = path if self.is_private else f"{path[: path.rfind('/') + 1]}{temporary_name()}"
        try:
            descriptor = os.open(written_to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _mode(entry.is_executable))
            try:
                at = os.write(descriptor, data)
                while at < len(data):
                    at += os.write(descriptor, data[at:])
                if not self.is_private:
                    self.done.date_back(descriptor)
            finally:
                os.close(descriptor)
            if not self.is_private:
                if self.may_replace(entry):
                    move(written_to, path)
                    self.done.note(entry, path)
                else:
                    os.unlink(written_to)
        except OSError as error:
            if not self.is_private and os.path.lexists(written_to):
                os.unlink(written_to)
            told = disk_error(error, path)
            if told is None:
                raise
            raise told from error


def _path(target: Path, entry: FileEntry) -> str:
    return os.fspath(target) if entry.path == ONE_FILE else f"{os.fspath(target)}/{entry.path}"


def _make_folders(target: Path, entries: Sequence[FileEntry], is_private: bool) -> None:
    folders = {entry.path.rpartition("/")[0] for entry in entries if entry.path != ONE_FILE}
    is_one_file = len(entries) == 1 and entries[0].path == ONE_FILE
    (target.parent if is_one_file else target).mkdir(parents=True, exist_ok=True)
    for folder in sorted(folders):
        path = target / folder
        try:
            make_folders(path)
        except (FileExistsError, NotADirectoryError) as error:
            raise Conflict(
                f"a file stands where the folder {path} has to be", hint="run the same command again"
            ) from error
        if not is_private:
            remove_left_behind(path)


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
