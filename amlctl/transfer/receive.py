"""Write entries of a manifest to this disk: packs in parallel, each content verified before it is seen.

A file appears under its own name only when it is whole and its content id is right. Into a folder that nobody
sees yet (`is_private`: a working container) files are written under their own names at once.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from amlctl.core.events import EventSink, Stage, StageProgress
from amlctl.core.manifest import ONE_FILE, FileEntry, Manifest, Place, needs_no_bytes
from amlctl.errors import RightsError, ServiceUnavailable
from amlctl.localfs.atomic import temporary_beside, temporary_name
from amlctl.localfs.identify import file_content_id
from amlctl.stores.contract import Store
from amlctl.transfer.contents import PackRange, checked, damaged, pack_ranges, place_key, read_range


@dataclass
class Received:
    """Files and bytes written, absolute; safe to update from several threads."""

    files: int = 0
    size_bytes: int = 0
    _lock: Lock = field(default_factory=Lock, repr=False)

    def add(self, files: int, size_bytes: int) -> None:
        with self._lock:
            self.files += files
            self.size_bytes += size_bytes


def receive(
    store: Store,
    manifest: Manifest,
    entries: Sequence[FileEntry],
    target: Path,
    *,
    is_private: bool = False,
    link_objects: bool = False,
    max_workers: int = 4,
    sink: EventSink,
) -> Received:
    """Write `entries` below `target`. `link_objects`: large objects become symlinks into the store's folder.

    Memory is bounded by `max_workers` stretches of packs. Raises NotFound, IntegrityError, ServiceUnavailable (disk
    full).
    """
    done = Received()
    total_bytes = sum(entry.size_bytes for entry in entries)
    _make_folders(target, entries)
    jobs: list[Callable[[], None]] = []
    packs: dict[str, list[tuple[FileEntry, Place]]] = {}
    for entry in entries:
        place = manifest.places.get(entry.content_id)
        if needs_no_bytes(entry):
            if not entry.path.endswith("/"):
                _write_file(_path(target, entry), b"", entry.is_executable, is_private)
            done.add(1, 0)
        elif place is None:
            raise damaged(entry.path, "the manifest names no place for it")
        elif place.kind == "pack":
            packs.setdefault(place.pack, []).append((entry, place))
        else:
            jobs.append(
                lambda entry=entry, place=place: _receive_large(  # type: ignore[misc]
                    store, manifest, entry, place, target, link_objects, is_private, done
                )
            )
    for pack, wanted in packs.items():
        for stretch in pack_ranges(pack, wanted):
            jobs.append(
                lambda stretch=stretch: _receive_range(store, stretch, target, is_private, done)  # type: ignore[misc]
            )
    shown = 0.0
    if entries:
        sink(StageProgress(Stage.RECEIVE, manifest.dataset, 0, 0, len(entries), total_bytes))
    with ThreadPoolExecutor(max(1, min(max_workers, len(jobs)))) as pool:
        waiting = [pool.submit(job) for job in jobs]
        try:
            for future in as_completed(waiting):
                future.result()
                if time.monotonic() - shown > 0.1:
                    shown = time.monotonic()
                    sink(
                        StageProgress(
                            Stage.RECEIVE, manifest.dataset, done.files, done.size_bytes, len(entries), total_bytes
                        )
                    )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if entries:
        sink(
            StageProgress(
                Stage.RECEIVE, manifest.dataset, done.files, done.size_bytes, len(entries), total_bytes, is_done=True
            )
        )
    return done


def _path(target: Path, entry: FileEntry) -> str:
    return os.fspath(target) if entry.path == ONE_FILE else f"{os.fspath(target)}/{entry.path}"


def _make_folders(target: Path, entries: Sequence[FileEntry]) -> None:
    folders = {entry.path.rpartition("/")[0] for entry in entries if entry.path != ONE_FILE}
    is_one_file = len(entries) == 1 and entries[0].path == ONE_FILE
    (target.parent if is_one_file else target).mkdir(parents=True, exist_ok=True)
    for folder in sorted(folders):
        path = target / folder
        if path.is_file():
            path.unlink()
        path.mkdir(parents=True, exist_ok=True)


def _receive_range(store: Store, stretch: PackRange, target: Path, is_private: bool, done: Received) -> None:
    files = size_bytes = 0
    for entry, place, stored in read_range(store, stretch):
        _write_file(_path(target, entry), checked(entry, stored, place), entry.is_executable, is_private)
        files += 1
        size_bytes += entry.size_bytes
        if files == 256:
            done.add(files, size_bytes)
            files = size_bytes = 0
    done.add(files, size_bytes)


def _receive_large(
    store: Store,
    manifest: Manifest,
    entry: FileEntry,
    place: Place,
    target: Path,
    link_objects: bool,
    is_private: bool,
    done: Received,
) -> None:
    key = place_key(manifest, entry, place)
    path = Path(_path(target, entry))
    source = store.local_path(key)
    if link_objects and source is not None and place.kind == "object" and not entry.is_executable:
        if path.is_symlink() or path.exists():
            path.unlink()
        path.symlink_to(source)
        done.add(1, entry.size_bytes)
        return
    temporary = temporary_beside(path)
    try:
        with _disk_errors(path):
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _mode(entry.is_executable)))
            store.download(key, temporary)
            if file_content_id(temporary) != entry.content_id:
                raise damaged(entry.path, key)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    done.add(1, entry.size_bytes)


def _mode(is_executable: bool) -> int:
    return 0o777 if is_executable else 0o666


def _write_file(path: str, data: bytes | memoryview, is_executable: bool, is_private: bool) -> None:
    """Raises ServiceUnavailable (disk full), OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    written_to = path if is_private else f"{path[: path.rfind('/') + 1]}{temporary_name()}"
    try:
        descriptor = os.open(written_to, flags, _mode(is_executable))
        try:
            at = os.write(descriptor, data)
            while at < len(data):
                at += os.write(descriptor, data[at:])
        finally:
            os.close(descriptor)
        if not is_private:
            os.rename(written_to, path)
    except OSError as error:
        if not is_private and os.path.lexists(written_to):
            os.unlink(written_to)
        raise _disk_error(error, path) from error


def _disk_error(error: OSError, path: str) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ServiceUnavailable(
            f"the disk is full: {path} was not written", hint="free some space and run it again; nothing is lost"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return RightsError(f"{path} cannot be written: {error.strerror}", hint="check the rights of its folder")
    return error


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _disk_error(error, str(path)) from error
