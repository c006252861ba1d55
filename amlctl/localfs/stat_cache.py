"""What was hashed before: stat data and content ids of whole folders, in SQLite.

A row is trusted while its stat data (name, mode, size, mtime, inode, ctime) is the same to the nanosecond. A
file that changed less than two seconds before it was hashed may change again within the clock tick of its file
system: such a row is stored in a form that never matches, and the file is read again next time.

The cache may be deleted at any time; a damaged one is created again (see `database.py`). One writer at a time (see
`locks.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Callable, NamedTuple, Optional

from amlctl.localfs.database import Database, check_of

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
