"""What this machine knows of the stores it has synced with, in SQLite.

- The base of each dataset: the snapshot at which local folder and store last agreed (three-way merges start there).
- The members of packs, written before a pack is sent: after a kill a pack that had arrived is found by its
  name and used, and a renamed folder finds its bytes under the old name.

Losing the file loses no data: a sync then asks the store, and may send some bytes a second time.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from amlctl.core.manifest import Place
from amlctl.core.pack import Member

_VERSION = 2


class Base(NamedTuple):
    """Where local and store last agreed: a snapshot of the store, or (`section`) entries that only this machine has.

    `section` is written as in a manifest, without places.
    """

    snapshot: str
    manifest_key: str
    section: bytes = b""


class KnownPack(NamedTuple):
    """A pack that was sent, or was about to be; `is_committed`: a manifest that names it was committed."""

    pack: str
    size_bytes: int
    is_committed: bool


class SyncState:
    """Not thread-safe; one writer at a time (see `locks.py`)."""

    def __init__(self, path: Path) -> None:
        try:
            self._database = self._open(path)
        except sqlite3.DatabaseError:
            path.unlink(missing_ok=True)
            self._database = self._open(path)

    def _open(self, path: Path) -> sqlite3.Connection:
        database = sqlite3.connect(path, timeout=60, isolation_level=None)
        database.execute("PRAGMA synchronous = NORMAL")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version != _VERSION:
            database.executescript(
                f"""
                DROP TABLE IF EXISTS base;
                CREATE TABLE base (store TEXT, dataset BLOB, snapshot TEXT, manifest_key TEXT, section BLOB,
                                   PRIMARY KEY (store, dataset)) WITHOUT ROWID;
                CREATE TABLE IF NOT EXISTS pack (store TEXT, pack TEXT, size_bytes INTEGER, is_committed INTEGER,
                                                 members BLOB, PRIMARY KEY (store, pack));
                PRAGMA user_version = {_VERSION};
                """
            )
        return database

    def close(self) -> None:
        self._database.close()

    def base(self, store: str, dataset: str) -> Optional[Base]:
        row = self._database.execute(
            "SELECT snapshot, manifest_key, section FROM base WHERE store = ? AND dataset = ?",
            (store, os.fsencode(dataset)),
        ).fetchone()
        return None if row is None else Base(*row)

    def bases(self, store: str) -> dict[str, Base]:
        """Every dataset that was synced with the store from here."""
        rows = self._database.execute(
            "SELECT dataset, snapshot, manifest_key, section FROM base WHERE store = ? ORDER BY dataset", (store,)
        )
        return {os.fsdecode(dataset): Base(*rest) for dataset, *rest in rows}

    def set_base(self, store: str, dataset: str, base: Base) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO base VALUES (?, ?, ?, ?, ?)", (store, os.fsencode(dataset), *base)
        )

    def remember_pack(self, store: str, pack: str, size_bytes: int, members: Sequence[Member]) -> None:
        self._database.execute(
            "INSERT OR IGNORE INTO pack VALUES (?, ?, ?, 0, ?)",
            (store, pack, size_bytes, _pack_members(members)),
        )

    def commit_packs(self, store: str, packs: Sequence[str]) -> None:
        with self._database:
            self._database.execute("BEGIN")
            self._database.executemany(
                "UPDATE pack SET is_committed = 1 WHERE store = ? AND pack = ?",
                ((store, pack) for pack in packs),
            )

    def forget_pack(self, store: str, pack: str) -> None:
        self._database.execute("DELETE FROM pack WHERE store = ? AND pack = ?", (store, pack))

    def packs(self, store: str) -> Iterator[tuple[KnownPack, dict[str, Place]]]:
        """Every known pack with the places of its members, newest first."""
        rows = self._database.execute(
            "SELECT pack, size_bytes, is_committed, members FROM pack WHERE store = ? ORDER BY rowid DESC",
            (store,),
        )
        for pack, size, is_committed, members in rows:
            yield KnownPack(pack, size, bool(is_committed)), _unpack_members(pack, members)


_MEMBER = struct.Struct("<16sIIB")


def _pack_members(members: Sequence[Member]) -> bytes:
    return b"".join(
        _MEMBER.pack(bytes.fromhex(member.content_id), member.offset, member.length, member.is_deflated)
        for member in members
    )


def _unpack_members(pack: str, data: bytes) -> dict[str, Place]:
    return {
        content.hex(): Place("pack", pack, offset, length, bool(is_deflated))
        for content, offset, length, is_deflated in _MEMBER.iter_unpack(data)
    }
