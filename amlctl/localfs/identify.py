"""From stat rows to content ids: only what the cache does not know is read.

The id of a file is that of the bytes that were really read, and its size and times are those of the open file
after the last byte. A file that changes while it is read is read again; one that does not hold still is a
Conflict. A file that vanished before it was read counts as deleted.

`on_content` is handed the bytes of each small file that had to be read and is not what the cache knew under its
name, in canonical order: a first sync packs them right there instead of reading everything twice.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Callable, NamedTuple, Optional

import xxhash

from amlctl.core.content_id import EMPTY
from amlctl.core.events import EventSink, Stage, StageProgress
from amlctl.core.manifest import ONE_FILE, FileEntry, entry_order, path_bytes, snapshot_id, total_bytes
from amlctl.errors import Conflict, RightsError
from amlctl.localfs.scan import FileRow, Folder, Scan, pack_rows, unpack_names, unpack_rows
from amlctl.localfs.stat_cache import RACY_NS, CachedFolder, CachedScan, StatCache

OnContent = Callable[[FileEntry, bytes], None]

READ_AT_ONCE = 1 << 20
"""Bytes up to which a file is read in one piece."""
_TRIES = 3
_TELL_EVERY_S = 0.1
_NO_ID = b"\0" * 16
_stat_fields = attrgetter("st_mode", "st_size", "st_mtime_ns", "st_ino", "st_ctime_ns")


@dataclass(frozen=True)
class Identified:
    """Entries in canonical order. `hashed_bytes` were read to get them."""

    entries: Sequence[FileEntry]
    hashed_bytes: int

    @cached_property
    def snapshot(self) -> str:
        return snapshot_id(self.entries)


class _Table(NamedTuple):
    """One folder: an id (or `_NO_ID`) for each row, whether anything is new, and what the cache has of it."""

    rows: list[FileRow]
    ids: list[bytes]
    is_fresh: bool
    cached: Optional[CachedFolder]


class _ToRead(NamedTuple):
    path: str
    folder: int
    position: int


def identify(
    scanned: Scan,
    cache: Optional[StatCache],
    cache_root: str,
    *,
    digest: bytes = b"",
    checksum: bool = False,
    on_content: Optional[OnContent] = None,
    sink: EventSink,
    subject: str = "",
) -> Identified:
    """`cache_root` names the scanned folder in the cache; `checksum` reads every file again.

    Raises RightsError (files or folders that cannot be read, all of them), Conflict (a file changes all the time).
    """
    trusted_before = time.time_ns() - RACY_NS
    unreadable = list(scanned.unreadable)
    tables: list[_Table] = []
    to_read: list[_ToRead] = []
    for number, folder in enumerate(scanned.folders):
        rows = unpack_rows(folder.rows)
        cached = None if cache is None else cache.folder(_cache_key(cache_root, folder.path))
        ids, is_fresh = _known_ids(folder, rows, None if checksum else cached)
        tables.append(_Table(rows, ids, is_fresh, cached))
        if is_fresh:
            prefix = f"{folder.path}/" if folder.path else ""
            to_read += (
                _ToRead(prefix + row.name, number, position)
                for position, row in enumerate(rows)
                if ids[position] is _NO_ID
            )
    to_read.sort(key=lambda item: path_bytes(item.path))
    vanished: set[tuple[int, int]] = set()
    total_bytes = sum(tables[item.folder].rows[item.position].size_bytes for item in to_read)
    hashed = 0
    shown = 0.0
    before: dict[int, Mapping[str, bytes]] = {}
    root = os.fspath(scanned.root)
    done = 0

    def tell(further_bytes: int) -> None:
        nonlocal shown
        if time.monotonic() - shown > _TELL_EVERY_S:
            shown = time.monotonic()
            sink(StageProgress(Stage.HASH, subject, done, hashed + further_bytes, len(to_read), total_bytes))

    for done, item in enumerate(to_read):  # noqa: B007 - `tell` reads it
        full = root if scanned.is_one_file else f"{root}/{item.path}"
        rows, ids, _, cached = tables[item.folder]
        try:
            row, identity, data = _read(full, rows[item.position], tell)
        except FileNotFoundError:
            vanished.add((item.folder, item.position))
            continue
        except OSError as error:
            unreadable.append(f"{item.path}: {error.strerror}")
            continue
        rows[item.position], ids[item.position] = row, identity
        hashed += row.size_bytes
        if on_content is not None and data:
            if item.folder not in before:
                before[item.folder] = _ids_by_name(cached)
            if before[item.folder].get(row.name) != identity:
                on_content(_entry(item.path, row, identity), data)
        tell(0)
    if to_read:
        sink(StageProgress(Stage.HASH, subject, len(to_read), hashed, len(to_read), hashed, is_done=True))
    if unreadable:
        raise RightsError(
            f"{len(unreadable)} of the files cannot be read",
            hint="mend their rights, or name them in .amlctlignore",
            details=sorted(unreadable),
        )
    found = Identified(_entries(scanned, tables, vanished), hashed)
    if cache is not None:
        _remember(cache, cache_root, scanned, tables, vanished, found, digest, trusted_before)
    return found


class Written(NamedTuple):
    """A file of known content right after it was written."""

    size_bytes: int
    mtime_ns: int
    inode: int
    content_id: str


def remember_written(
    scanned: Scan, cache: StatCache, cache_root: str, written: Mapping[str, Written], now_ns: int
) -> None:
    """Spare the next command reading what this one has written (by path), as far as it stands there untouched.

    What was written in the last two seconds is not trusted: a change in the same moment would not be seen.
    """
    trusted_before = now_ns - RACY_NS
    changed: list[tuple[str, CachedFolder]] = []
    for folder in scanned.folders:
        rows, key = unpack_rows(folder.rows), _cache_key(cache_root, folder.path)
        ids, is_fresh = _known_ids(folder, rows, cache.folder(key))
        if not is_fresh:
            continue
        prefix = f"{folder.path}/" if folder.path else ""
        kept: list[FileRow] = []
        identities: list[bytes] = []
        for row, identity in zip(rows, ids):
            one = written.get(prefix + row.name)
            if one is not None and one[:3] == (row.size_bytes, row.mtime_ns, row.inode):
                if max(row.mtime_ns, row.ctime_ns) < trusted_before:
                    kept.append(row)
                    identities.append(bytes.fromhex(one.content_id))
            elif identity is not _NO_ID:
                kept.append(row)
                identities.append(identity)
        changed.append((key, CachedFolder(pack_rows(kept), b"".join(identities))))
    cache.remember_folders(changed)


def _cache_key(cache_root: str, folder: str) -> str:
    return f"{cache_root}/{folder}" if folder else cache_root


def _known_ids(folder: Folder, rows: Sequence[FileRow], cached: Optional[CachedFolder]) -> tuple[list[bytes], bool]:
    """An id (or `_NO_ID`) for each row, and whether anything is new."""
    if cached is None:
        return [_NO_ID] * len(rows), True
    if cached.rows == folder.rows:
        return [cached.ids[at : at + 16] for at in range(0, len(cached.ids), 16)], False
    before = {row: cached.ids[16 * at : 16 * at + 16] for at, row in enumerate(unpack_rows(cached.rows))}
    return [before.get(row, _NO_ID) for row in rows], True


def _ids_by_name(cached: Optional[CachedFolder]) -> dict[str, bytes]:
    if cached is None:
        return {}
    ids = (cached.ids[at : at + 16] for at in range(0, len(cached.ids), 16))
    return dict(zip(unpack_names(cached.rows), ids))


def _read(path: str, seen: FileRow, on_bytes: Callable[[int], None]) -> tuple[FileRow, bytes, bytes]:
    """The row and id of what was read, and the bytes where the file is small. Raises OSError, Conflict.

    `on_bytes` is told how much of a large file has been read.
    """
    # Never wait for the other end of a pipe that took the place of a file.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if seen.size_bytes <= READ_AT_ONCE:
            data = os.read(descriptor, seen.size_bytes + 1)
            if len(data) == seen.size_bytes and _stat_fields(os.fstat(descriptor)) == seen[1:]:
                return seen, xxhash.xxh3_128_digest(data), data
            os.lseek(descriptor, 0, os.SEEK_SET)
        before = os.fstat(descriptor)
        for _ in range(_TRIES):
            if before.st_size <= READ_AT_ONCE:
                data = os.read(descriptor, before.st_size + 1)
                size, identity = len(data), xxhash.xxh3_128_digest(data)
            else:
                data = b""
                size, identity = _hash_large(descriptor, on_bytes)
            after = os.fstat(descriptor)
            if size == after.st_size and _same(before, after):
                return _row(seen.name, after), identity, data
            os.lseek(descriptor, 0, os.SEEK_SET)
            before = after
    finally:
        os.close(descriptor)
    raise Conflict(f"{path} changes while it is read", hint="stop what writes it, or name it in .amlctlignore")


def read_small(path: Path) -> bytes:
    """All bytes of a file that is a file; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        return file.readall()


def file_content_id(path: Path) -> str:
    """Content id of a whole file, read in parts; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return _hash_large(descriptor, lambda size_bytes: None)[1].hex()
    finally:
        os.close(descriptor)


def _row(name: str, at: os.stat_result) -> FileRow:
    return FileRow(name, *_stat_fields(at))


def _same(one: os.stat_result, two: os.stat_result) -> bool:
    return (one.st_size, one.st_mtime_ns, one.st_ctime_ns) == (two.st_size, two.st_mtime_ns, two.st_ctime_ns)


def _hash_large(descriptor: int, on_bytes: Callable[[int], None]) -> tuple[int, bytes]:
    state = xxhash.xxh3_128()
    size = 0
    while part := os.read(descriptor, 1 << 22):
        state.update(part)
        size += len(part)
        on_bytes(size)
    return size, state.digest()


def _entry(path: str, row: FileRow, identity: bytes) -> FileEntry:
    return FileEntry(path, row.size_bytes, bool(row.mode & 0o100), identity.hex())


def _entries(scanned: Scan, tables: Sequence[_Table], vanished: set[tuple[int, int]]) -> list[FileEntry]:
    if scanned.is_one_file:
        rows, ids = tables[0][:2]
        return [] if vanished else [_entry(ONE_FILE, rows[0], ids[0])]
    entries: list[FileEntry] = []
    new = tuple.__new__  # by name, half a million files cost half a second more
    for number, (folder, (rows, ids, _, _)) in enumerate(zip(scanned.folders, tables)):
        prefix = f"{folder.path}/" if folder.path else ""
        if vanished:
            kept = [at for at in range(len(rows)) if (number, at) not in vanished]
            rows, ids = [rows[at] for at in kept], [ids[at] for at in kept]
        entries += [
            new(FileEntry, (prefix + row[0], row[2], row[1] & 0o100 != 0, identity.hex()))
            for row, identity in zip(rows, ids)
        ]
        if folder.is_empty and folder.path:
            entries.append(FileEntry(prefix, 0, False, EMPTY))
    entries.sort(key=entry_order)
    return entries


def _remember(
    cache: StatCache,
    cache_root: str,
    scanned: Scan,
    tables: Sequence[_Table],
    vanished: set[tuple[int, int]],
    found: Identified,
    digest: bytes,
    trusted_before: int,
) -> None:
    """Store what was learned. The digest of the whole scan is kept only if every row of it can be trusted."""
    changed: list[tuple[str, CachedFolder]] = []
    is_settled = not vanished
    for number, (folder, (rows, ids, is_fresh, _)) in enumerate(zip(scanned.folders, tables)):
        if not is_fresh:
            continue
        kept = [at for at in range(len(rows)) if (number, at) not in vanished]
        stored = []
        for at in kept:
            row = rows[at]
            if max(row.mtime_ns, row.ctime_ns) >= trusted_before:
                row = row._replace(size_bytes=-1)
            stored.append(row)
        packed = pack_rows(stored)
        is_settled = is_settled and packed == folder.rows
        changed.append((_cache_key(cache_root, folder.path), CachedFolder(packed, b"".join(ids[at] for at in kept))))
    cache.remember_folders(changed)
    if is_settled and digest:
        files = len(found.entries)
        cache.remember_scan(cache_root, CachedScan(digest, found.snapshot, files, total_bytes(found.entries)))
