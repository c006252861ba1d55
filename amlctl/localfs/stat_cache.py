"""What was hashed before: stat data and content ids of whole folders, in SQLite.

A row is trusted while its stat data (name, mode, size, mtime, inode, ctime) is the same to the nanosecond. A
file that changed less than two seconds before it was hashed may change again within the clock tick of its file
system: such a row is stored in a form that never matches, and the file is read again next time.

The cache may be deleted at any time; a damaged one is (see `database.py`). One writer at a time (see `locks.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Optional

from amlctl.localfs.database import open_database

_VERSION = 2
_SCHEMA = """
    CREATE TABLE folder (path BLOB PRIMARY KEY, rows BLOB NOT NULL, ids BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE scan (path BLOB PRIMARY KEY, digest BLOB NOT NULL, snapshot TEXT NOT NULL,
                       files INTEGER NOT NULL, size_bytes INTEGER NOT NULL) WITHOUT ROWID;
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

    def __init__(self, path: Path) -> None:
        # Losing the cache in a power cut costs one more reading, so nobody waits for the disk.
        self._database = open_database(path, version=_VERSION, schema=_SCHEMA, synchronous="OFF")

    def close(self) -> None:
        self._database.close()

    def folder(self, path: str) -> Optional[CachedFolder]:
        row = self._database.execute("SELECT rows, ids FROM folder WHERE path = ?", (os.fsencode(path),)).fetchone()
        return None if row is None else CachedFolder(*row)

    def last_scan(self, path: str) -> Optional[CachedScan]:
        row = self._database.execute(
            "SELECT digest, snapshot, files, size_bytes FROM scan WHERE path = ?", (os.fsencode(path),)
        ).fetchone()
        return None if row is None else CachedScan(*row)

    def remember_folders(self, folders: Iterable[tuple[str, CachedFolder]]) -> None:
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(
                "INSERT OR REPLACE INTO folder VALUES (?, ?, ?)",
                ((os.fsencode(path), cached.rows, cached.ids) for path, cached in folders),
            )

    def remember_scan(self, path: str, scan: CachedScan) -> None:
        with self._database:
            self._database.execute("INSERT OR REPLACE INTO scan VALUES (?, ?, ?, ?, ?)", (os.fsencode(path), *scan))
