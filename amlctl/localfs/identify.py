"""From stat rows to content ids: only what the cache does not know is read.

A file that vanished before it was read counts as deleted.

A `Taker` is handed the bytes of each small file that had to be read and is not what the cache knew under its name, in
canonical order, and says where they are to be read to: a first sync packs them right there instead of reading
everything twice.

The cache is SQLite: stat data and content ids of whole folders. A row is trusted while its stat data (name, mode, size,
mtime, inode, ctime) is the same to the nanosecond. A file that changed less than two seconds before it was hashed may
change again within the clock tick of its file system: such a row is stored in a form that never matches, and the file
is read again next time. The cache may be deleted at any time; a damaged one is created again. One writer at a time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Callable, NamedTuple, Optional

from amlctl.core.content_id import EMPTY
from amlctl.core.events import EventSink, Stage, StageProgress
from amlctl.core.manifest import FileEntry, entry_order, path_bytes, snapshot_id, total_bytes
from amlctl.errors import RightsError
from amlctl.localfs.database import Database, check_of
from amlctl.localfs.disk_errors import failing_disk
from amlctl.localfs.read_file import FileReader, Taker
from amlctl.localfs.scan import FileRow, Scan, pack_rows, unpack_names, unpack_rows

_VERSION = 3
_SCHEMA = """
    CREATE TABLE folder (path BLOB PRIMARY KEY, rows BLOB NOT NULL, ids BLOB NOT NULL,
                         row_check BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE scan (path BLOB PRIMARY KEY, digest BLOB NOT NULL, snapshot TEXT NOT NULL,
                       files INTEGER NOT NULL, size_bytes INTEGER NOT NULL, row_check BLOB NOT NULL) WITHOUT ROWID;
"""
RACY_NS = 2_000_000_000


class CachedFolder(NamedTuple):
    """`rows` as in `scan.Folder`; `ids` are 16 bytes for each row, in the same order."""

    rows: bytes
    ids: bytes


class CachedScan(NamedTuple):
    """What a whole scan came to, by its digest."""

    digest: bytes
    snapshot: str
    files: int
    size_bytes: int


class StatCache:
    """Keys are folders as bytes, relative to the project. Not thread-safe."""

    def __init__(self, path: Path, on_damage: Callable[[str], None]) -> None:
        # Losing the cache in a power cut costs one more reading, so no command waits for the disk.
        self._database = Database(
            path,
            version=_VERSION,
            schema=_SCHEMA,
            synchronous="OFF",
            on_damage=lambda message: on_damage(f"{message}; files are read again once"),
        )

    def close(self) -> None:
        self._database.close()

    def folder(self, path: str) -> Optional[CachedFolder]:
        rows = self._database.rows("SELECT * FROM folder WHERE path = ?", [os.fsencode(path)], key=1)
        return CachedFolder(*rows[0]) if rows else None

    def last_scan(self, path: str) -> Optional[CachedScan]:
        rows = self._database.rows("SELECT * FROM scan WHERE path = ?", [os.fsencode(path)], key=1)
        return CachedScan(*rows[0]) if rows else None

    def remember_folders(self, folders: Iterable[tuple[str, CachedFolder]]) -> None:
        rows = [(os.fsencode(path), *cached) for path, cached in folders]
        if rows:
            self._database.write(
                "INSERT OR REPLACE INTO folder VALUES (?, ?, ?, ?)", [(*row, check_of(row)) for row in rows]
            )

    def remember_scan(self, path: str, scan: CachedScan) -> None:
        row = (os.fsencode(path), *scan)
        self._database.write("INSERT OR REPLACE INTO scan VALUES (?, ?, ?, ?, ?, ?)", [(*row, check_of(row))])


_FILES_BETWEEN_EVENTS = 16


@dataclass(frozen=True)
class Identified:
    """Entries in canonical order. `hashed_bytes` were read to get them."""

    entries: Sequence[FileEntry]
    hashed_bytes: int

    @cached_property
    def snapshot(self) -> str:
        return snapshot_id(self.entries)


class _Table(NamedTuple):
    """A folder in which something is new: its rows, the entry of each as far as it is known, what the cache has."""

    rows: list[FileRow]
    entries: list[Optional[FileEntry]]
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
    entries: list[FileEntry] = []
    tables: dict[int, _Table] = {}
    to_read: list[tuple[str, int, int]] = []
    for number, folder in enumerate(scanned.folders):
        prefix = f"{folder.path}/" if folder.path else ""
        if folder.is_empty and folder.path:
            entries.append(FileEntry(prefix, 0, False, EMPTY))
        cached = None if cache is None else cache.folder(_cache_key(cache_root, folder.path))
        rows = unpack_rows(folder.rows)
        if cached is not None and cached.rows == folder.rows and not checksum:
            entries += map(_entry, (prefix + row[0] for row in rows), rows, _each_id(cached))
            continue
        known = {} if cached is None or checksum else dict(zip(unpack_rows(cached.rows), _each_id(cached)))
        found = [_entry(prefix + row[0], row, known[row]) if row in known else None for row in rows]
        to_read += [(prefix + rows[at][0], number, at) for at, entry in enumerate(found) if entry is None]
        tables[number] = _Table(rows, found, cached)
    to_read.sort(key=lambda item: path_bytes(item[0]))
    total_bytes = sum(tables[folder].rows[position][2] for _, folder, position in to_read)
    hashed = 0
    before: dict[int, Mapping[str, str]] = {}
    root = os.fspath(scanned.root)
    done = 0

    def report(further_bytes: int) -> None:
        sink(StageProgress(Stage.HASH, subject, done, hashed + further_bytes, len(to_read), total_bytes))

    reader = FileReader(taker, report)
    written_to: set[tuple[int, int]] = set()
    for number, (path, folder_number, position) in enumerate(to_read):
        done = number
        table = tables[folder_number]
        try:
            full = root if scanned.is_one_file else f"{root}/{path}"
            row, identity, data = reader.read(full, path, table.rows[position])
        except FileNotFoundError:
            continue
        except OSError as error:
            if (failure := failing_disk(error, full)) is not None:
                raise failure from error
            unreadable.append(f"{path}: {error.strerror}")
            continue
        if reader.is_written_to:
            written_to.add((folder_number, position))
        entry = _entry(path, row, identity.hex())
        table.rows[position], table.entries[position] = row, entry
        hashed += row[2]
        if taker is not None and data:
            if folder_number not in before:
                before[folder_number] = _ids_by_name(table.cached)
            if before[folder_number].get(row[0]) != entry[3]:
                taker.take(entry, data)
        if not done % _FILES_BETWEEN_EVENTS:
            report(0)
    if to_read:
        sink(StageProgress(Stage.HASH, subject, len(to_read), hashed, len(to_read), hashed, is_done=True))
    if unreadable:
        raise RightsError(
            f"{len(unreadable)} of the files cannot be read",
            hint="fix their permissions, or name them in .amlctlignore",
            details=sorted(unreadable),
        )
    for table in tables.values():
        entries += filter(None, table.entries)
    entries.sort(key=entry_order)
    identified = Identified(entries, hashed)
    if cache is not None:
        for folder_number, position in written_to:
            rows = tables[folder_number].rows
            rows[position] = _distrusted(rows[position])
        _remember(cache, cache_root, scanned, tables, identified, digest, trusted_before)
    return identified


class Written(NamedTuple):
    """A file of known content right after it was written."""

    size_bytes: int
    mtime_ns: int
    inode: int
    ctime_ns: int
    content_id: str


def remember_written(
    scanned: Scan, cache: StatCache, cache_root: str, written: Mapping[str, Written], now_ns: int
) -> None:
    """Spare the next command reading what this one has written (by path), as far as it stands there untouched.

    Its modification time has to be older than the clock of a file system is coarse, so that any write since shows.
    """
    trusted_before = now_ns - RACY_NS
    changed: list[tuple[str, CachedFolder]] = []
    for folder in scanned.folders:
        key = _cache_key(cache_root, folder.path)
        cached = cache.folder(key)
        if cached is not None and cached.rows == folder.rows:
            continue
        known = {} if cached is None else dict(zip(unpack_rows(cached.rows), _each_id(cached)))
        prefix = f"{folder.path}/" if folder.path else ""
        kept: list[FileRow] = []
        ids: list[str] = []
        for row in unpack_rows(folder.rows):
            one = written.get(prefix + row.name)
            if one is not None and one[:4] == (row.size_bytes, row.mtime_ns, row.inode, row.ctime_ns):
                if row.mtime_ns < trusted_before:
                    kept.append(row)
                    ids.append(one.content_id)
            elif row in known:
                kept.append(row)
                ids.append(known[row])
        changed.append((key, CachedFolder(pack_rows(kept), bytes.fromhex("".join(ids)))))
    cache.remember_folders(changed)


def _cache_key(cache_root: str, folder: str) -> str:
    return f"{cache_root}/{folder}" if folder else cache_root


def _each_id(cached: CachedFolder) -> Iterator[str]:
    """Content id of each row."""
    digits = cached.ids.hex()
    return (digits[at : at + 32] for at in range(0, len(digits), 32))


def _ids_by_name(cached: Optional[CachedFolder]) -> dict[str, str]:
    return {} if cached is None else dict(zip(unpack_names(cached.rows), _each_id(cached)))


def _entry(path: str, row: FileRow, content_id: str) -> FileEntry:
    # By its own name the tuple takes three times as long.
    return tuple.__new__(FileEntry, (path, row[2], row[1] & 0o100 != 0, content_id))


def _remember(
    cache: StatCache,
    cache_root: str,
    scanned: Scan,
    tables: Mapping[int, _Table],
    found: Identified,
    digest: bytes,
    trusted_before: int,
) -> None:
    """Store what was learned. The digest of the whole scan is kept only if every row of it can be trusted."""
    changed: list[tuple[str, CachedFolder]] = []
    is_settled = True
    for number, table in tables.items():
        folder = scanned.folders[number]
        kept = [(row, entry) for row, entry in zip(table.rows, table.entries) if entry is not None]
        packed = pack_rows([row if max(row[3], row[5]) < trusted_before else _distrusted(row) for row, _ in kept])
        is_settled = is_settled and packed == folder.rows
        ids = bytes.fromhex("".join(entry[3] for _, entry in kept))
        changed.append((_cache_key(cache_root, folder.path), CachedFolder(packed, ids)))
    cache.remember_folders(changed)
    if is_settled and digest:
        files = len(found.entries)
        cache.remember_scan(cache_root, CachedScan(digest, found.snapshot, files, total_bytes(found.entries)))


def _distrusted(row: FileRow) -> FileRow:
    """A row that is that of no file."""
    return row._replace(size_bytes=-1)
