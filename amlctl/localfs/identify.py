"""From stat rows to content ids: only what the cache does not know is read.

The id of a file is that of the bytes that were really read, and its size and times are those of the open file
after the last byte. A file that changes while it is read is read again; one that does not hold still is a
Conflict. A file that vanished before it was read counts as deleted.

A `Taker` is handed the bytes of each small file that had to be read and is not what the cache knew under its name, in
canonical order, and says where they are to be read to: a first sync packs them right there instead of reading
everything twice.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Callable, NamedTuple, Optional, Protocol

import xxhash

from amlctl.core.content_id import EMPTY
from amlctl.core.events import EventSink, Stage, StageProgress
from amlctl.core.manifest import ONE_FILE, FileEntry, entry_order, path_bytes, snapshot_id, total_bytes
from amlctl.errors import Conflict, RightsError
from amlctl.localfs.scan import FileRow, Folder, Scan, pack_rows, unpack_names, unpack_rows
from amlctl.localfs.stat_cache import RACY_NS, CachedFolder, CachedScan, StatCache

READ_AT_ONCE = 1 << 20
"""Bytes up to which a file is read in one piece."""
_TRIES = 3
_FILES_BETWEEN_TELLING = 16
_TELL_EVERY_S = 0.1
_NO_ID = b"\0" * 16
_NOTHING = memoryview(b"")
_stat_fields = attrgetter("st_mode", "st_size", "st_mtime_ns", "st_ino", "st_ctime_ns")


class Taker(Protocol):
    """Wants the bytes of new files of up to `READ_AT_ONCE`."""

    def room(self, path: str, size_bytes: int) -> Optional[memoryview]:
        """Where the file of that path is to be read to; None: anywhere. Good until the next call."""
        ...

    def take(self, entry: FileEntry, data: memoryview) -> None:
        """`data` is the beginning of the last room, and good until the next call."""
        ...


class _Nobody:
    """Satisfies `Taker`."""

    def room(self, path: str, size_bytes: int) -> Optional[memoryview]:
        return None

    def take(self, entry: FileEntry, data: memoryview) -> None:
        """Nobody wants it."""


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


def identify(
    scanned: Scan,
    cache: Optional[StatCache],
    cache_root: str,
    *,
    digest: bytes = b"",
    checksum: bool = False,
    taker: Optional[Taker] = None,
    sink: EventSink,
    subject: str = "",
) -> Identified:
    """`cache_root` names the scanned folder in the cache; `checksum` reads every file again.

    Raises RightsError (files or folders that cannot be read, all of them), Conflict (a file changes all the time).
    """
    trusted_before = time.time_ns() - RACY_NS
    unreadable = list(scanned.unreadable)
    tables: list[_Table] = []
    to_read: list[tuple[str, int, int]] = []
    for number, folder in enumerate(scanned.folders):
        rows = unpack_rows(folder.rows)
        cached = None if cache is None else cache.folder(_cache_key(cache_root, folder.path))
        ids, is_fresh = _known_ids(folder, rows, None if checksum else cached)
        tables.append(_Table(rows, ids, is_fresh, cached))
        if is_fresh:
            prefix = f"{folder.path}/" if folder.path else ""
            to_read += [
                (prefix + row[0], number, position)
                for position, (row, identity) in enumerate(zip(rows, ids))
                if identity is _NO_ID
            ]
    to_read.sort(key=lambda item: path_bytes(item[0]))
    vanished: set[tuple[int, int]] = set()
    total_bytes = sum(tables[folder].rows[position].size_bytes for _, folder, position in to_read)
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

    reader = _Reader(taker or _Nobody(), tell)
    for done, (path, folder_number, position) in enumerate(to_read):
        rows, ids, _, cached = tables[folder_number]
        try:
            row, identity, data = reader.read(root if scanned.is_one_file else f"{root}/{path}", path, rows[position])
        except FileNotFoundError:
            vanished.add((folder_number, position))
            continue
        except OSError as error:
            unreadable.append(f"{path}: {error.strerror}")
            continue
        rows[position], ids[position] = row, identity
        hashed += row[2]
        if taker is not None and data:
            if folder_number not in before:
                before[folder_number] = _ids_by_name(cached)
            if before[folder_number].get(row[0]) != identity:
                taker.take(_entry(path, row, identity), data)
        if not done % _FILES_BETWEEN_TELLING:
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


class _Reader:
    """Reads files, small ones to where their taker wants them, else to memory that is used again."""

    def __init__(self, taker: Taker, on_bytes: Callable[[int], None]) -> None:
        """`on_bytes` is told how much of a large file has been read."""
        self._taker = taker
        self._on_bytes = on_bytes
        self._memory = memoryview(bytearray(64 << 10))

    def read(self, full: str, path: str, seen: FileRow) -> tuple[FileRow, bytes, memoryview]:
        """The row and id of what was read, and the bytes where the file is small. Raises OSError, Conflict."""
        # Never wait for the other end of a pipe that took the place of a file.
        descriptor = os.open(full, os.O_RDONLY | os.O_NONBLOCK)
        try:
            if seen[2] <= READ_AT_ONCE:
                data = self._read_small(descriptor, path, seen[2])
                if len(data) == seen[2] and _stat_fields(os.fstat(descriptor)) == seen[1:]:
                    return seen, xxhash.xxh3_128_digest(data), data
                os.lseek(descriptor, 0, os.SEEK_SET)
            before = os.fstat(descriptor)
            for _ in range(_TRIES):
                if before.st_size <= READ_AT_ONCE:
                    data = self._read_small(descriptor, path, before.st_size)
                    size, identity = len(data), xxhash.xxh3_128_digest(data)
                else:
                    data = _NOTHING
                    size, identity = _hash_large(descriptor, self._on_bytes)
                after = os.fstat(descriptor)
                if size == after.st_size and _same(before, after):
                    return _row(seen.name, after), identity, data
                os.lseek(descriptor, 0, os.SEEK_SET)
                before = after
        finally:
            os.close(descriptor)
        raise Conflict(f"{full} changes while it is read", hint="stop what writes it, or name it in .amlctlignore")

    def _read_small(self, descriptor: int, path: str, size_bytes: int) -> memoryview:
        """One byte more than the file should have shows that it has grown."""
        room = self._taker.room(path, size_bytes + 1)
        if room is None:
            if size_bytes >= len(self._memory):
                self._memory = memoryview(bytearray(READ_AT_ONCE + 1))
            room = self._memory[: size_bytes + 1]
        return room[: os.readv(descriptor, (room,))]


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
    # By its own name the tuple takes three times as long.
    return tuple.__new__(FileEntry, (path, row[2], row[1] & 0o100 != 0, identity.hex()))


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
