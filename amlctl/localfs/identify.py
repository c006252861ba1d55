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
import sqlite3
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
from amlctl.localfs.database import Change, Database, check_of
from amlctl.localfs.disk_errors import failing_disk
from amlctl.localfs.read_file import FileReader, Taker
from amlctl.localfs.scan import RACY_NS, FileRow, Scan, StatFields, pack_rows, unpack_names, unpack_rows

_VERSION = 4
# Paths have an index of their own: in a table without rowid, SQLite reads whole rows to compare their keys, and the row
# of a folder of 200,000 files has 20 MB.
_SCHEMA = """
    CREATE TABLE folder (path BLOB PRIMARY KEY, rows BLOB NOT NULL, ids BLOB NOT NULL, row_check BLOB NOT NULL);
    CREATE TABLE scan (path BLOB PRIMARY KEY, digest BLOB NOT NULL, snapshot TEXT NOT NULL,
                       files INTEGER NOT NULL, size_bytes INTEGER NOT NULL, row_check BLOB NOT NULL) WITHOUT ROWID;
"""


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
            upgrade=_from_version_3,
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


def _from_version_3(database: sqlite3.Connection, version: int) -> list[Change]:
    """It had the same rows."""
    if version != 3:
        return []
    folders, scans = (database.execute(f"SELECT * FROM {table}").fetchall() for table in ("folder", "scan"))
    return [("INSERT INTO folder VALUES (?, ?, ?, ?)", folders), ("INSERT INTO scan VALUES (?, ?, ?, ?, ?, ?)", scans)]


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


class KnownFolder(NamedTuple):
    """What the cache knows of a scanned folder. `root` names it there; `digest` is that of the scan, empty if it is not
    to be remembered as a whole."""

    cache: StatCache
    root: str
    digest: bytes = b""

    def folder(self, path: str) -> Optional[CachedFolder]:
        return self.cache.folder(_cache_key(self.root, path))


def identify(
    scanned: Scan,
    known: Optional[KnownFolder],
    *,
    checksum: bool = False,
    taker: Optional[Taker] = None,
    sink: EventSink,
    subject: str = "",
) -> Identified:
    """`checksum` reads every file again.

    Raises RightsError (files or folders that cannot be read, all of them), Conflict (a file changes all the time).
    """
    work = _Identification(scanned, known, sink, subject)
    work.look_up(checksum=checksum)
    work.read(taker)
    return work.finish()


class _Identification:
    def __init__(self, scanned: Scan, known: Optional[KnownFolder], sink: EventSink, subject: str) -> None:
        self._scanned = scanned
        self._root = os.fspath(scanned.root)
        self._known = known
        self._sink = sink
        self._subject = subject
        self._trusted_before_ns = time.time_ns() - RACY_NS
        self._entries: list[FileEntry] = []
        self._tables: dict[int, _Table] = {}
        self._to_read: list[tuple[str, int, int]] = []
        """Path, number of the folder, and position in it."""
        self._total_bytes = 0
        self._done = self._hashed_bytes = 0
        self._unreadable = list(scanned.unreadable)
        self._written_to: list[tuple[int, int]] = []

    def look_up(self, *, checksum: bool) -> None:
        """Take from the cache what it has, and note what has to be read."""
        for number, folder in enumerate(self._scanned.folders):
            prefix = f"{folder.path}/" if folder.path else ""
            if folder.is_empty and folder.path:
                self._entries.append(FileEntry(prefix, 0, False, EMPTY))
            cached = None if self._known is None else self._known.folder(folder.path)
            rows = unpack_rows(folder.rows)
            if cached is not None and cached.rows == folder.rows and not checksum:
                self._entries += map(_entry, (prefix + row[0] for row in rows), rows, _each_id(cached))
                continue
            known = {} if cached is None or checksum else dict(zip(unpack_rows(cached.rows), _each_id(cached)))
            found = [_entry(prefix + row[0], row, known[row]) if row in known else None for row in rows]
            self._to_read += [(prefix + rows[at][0], number, at) for at, entry in enumerate(found) if entry is None]
            self._tables[number] = _Table(rows, found, cached)
        self._to_read.sort(key=lambda item: path_bytes(item[0]))
        self._total_bytes = sum(self._tables[folder].rows[position][2] for _, folder, position in self._to_read)

    def read(self, taker: Optional[Taker]) -> None:
        reader = FileReader(taker, self._report)
        before: dict[int, Mapping[str, str]] = {}
        for number, (path, folder, position) in enumerate(self._to_read):
            self._done = number
            data = self._read_one(reader, path, folder, position)
            entry = self._tables[folder].entries[position]
            if taker is not None and data and entry is not None:
                if folder not in before:
                    before[folder] = _ids_by_name(self._tables[folder].cached)
                if before[folder].get(self._tables[folder].rows[position][0]) != entry[3]:
                    taker.take(entry, data)
            if not number % _FILES_BETWEEN_EVENTS:
                self._report(0)
        if self._to_read:
            files, size_bytes = len(self._to_read), self._hashed_bytes
            self._sink(StageProgress(Stage.HASH, self._subject, files, size_bytes, files, size_bytes, is_done=True))

    def _read_one(self, reader: FileReader, path: str, folder: int, position: int) -> Optional[memoryview]:
        """The bytes of a small file; None where it is gone or cannot be read."""
        table = self._tables[folder]
        full = self._root if self._scanned.is_one_file else f"{self._root}/{path}"
        try:
            row, identity, data = reader.read(full, path, table.rows[position])
        except FileNotFoundError:
            return None
        except OSError as error:
            if (failure := failing_disk(error, full)) is not None:
                raise failure from error
            self._unreadable.append(f"{path}: {error.strerror}")
            return None
        if reader.is_written_to:
            self._written_to.append((folder, position))
        table.rows[position], table.entries[position] = row, _entry(path, row, identity.hex())
        self._hashed_bytes += row[2]
        return data

    def finish(self) -> Identified:
        if self._unreadable:
            raise RightsError(
                f"{len(self._unreadable)} of the files cannot be read",
                hint="fix their permissions, or name them in .amlctlignore",
                details=sorted(self._unreadable),
            )
        for table in self._tables.values():
            self._entries += filter(None, table.entries)
        self._entries.sort(key=entry_order)
        identified = Identified(self._entries, self._hashed_bytes)
        if self._known is not None:
            self._remember(self._known, identified)
        return identified

    def _remember(self, known: KnownFolder, found: Identified) -> None:
        """Store what was learned. The digest of the whole scan is kept only if every row of it can be trusted."""
        for number, position in self._written_to:
            rows = self._tables[number].rows
            rows[position] = _distrusted(rows[position])
        changed: list[tuple[str, CachedFolder]] = []
        is_settled, trusted_before = True, self._trusted_before_ns
        for number, table in self._tables.items():
            folder = self._scanned.folders[number]
            kept = [(row, entry) for row, entry in zip(table.rows, table.entries) if entry is not None]
            packed = pack_rows([row if max(row[3], row[5]) < trusted_before else _distrusted(row) for row, _ in kept])
            is_settled = is_settled and packed == folder.rows
            ids = bytes.fromhex("".join(entry[3] for _, entry in kept))
            changed.append((_cache_key(known.root, folder.path), CachedFolder(packed, ids)))
        known.cache.remember_folders(changed)
        if is_settled and known.digest:
            files, size_bytes = len(found.entries), total_bytes(found.entries)
            known.cache.remember_scan(known.root, CachedScan(known.digest, found.snapshot, files, size_bytes))

    def _report(self, further_bytes: int) -> None:
        done_bytes = self._hashed_bytes + further_bytes
        files = len(self._to_read)
        self._sink(StageProgress(Stage.HASH, self._subject, self._done, done_bytes, files, self._total_bytes))


def remember_written(
    scanned: Scan, cache: StatCache, cache_root: str, written: Mapping[str, tuple[StatFields, str]], now_ns: int
) -> None:
    """Spare the next command reading what this one has written, as far as it stands there untouched: by path the stat
    fields of each file right after that, and its content id.

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
            as_written, content_id = written.get(prefix + row.name, ((), ""))
            if as_written == row[1:]:
                if row.mtime_ns < trusted_before:
                    kept.append(row)
                    ids.append(content_id)
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


def _distrusted(row: FileRow) -> FileRow:
    """A row that is that of no file."""
    return row._replace(size_bytes=-1)
