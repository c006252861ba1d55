"""What this machine knows of the stores it has synced with, in SQLite.

- The base of each dataset: the snapshot at which local folder and store last agreed (three-way merges start there).
- The members of packs, written before a pack is sent: after a kill a pack that had arrived is found by its
  name and used, and a renamed folder finds its bytes under the old name.

Losing the file loses no data: a sync then asks the store, and may send some bytes a second time. A damaged one is
made anew (see `database.py`).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Callable, NamedTuple, Optional

from amlctl.core.manifest import Place
from amlctl.core.pack import Member
from amlctl.localfs.database import Database, check_of

_VERSION = 4
_SCHEMA = """
    CREATE TABLE base (store TEXT, dataset BLOB, snapshot TEXT, manifest_key TEXT, section BLOB, row_check BLOB,
                       PRIMARY KEY (store, dataset)) WITHOUT ROWID;
    CREATE TABLE pack (store TEXT, pack TEXT, size_bytes INTEGER, members BLOB, row_check BLOB,
                       PRIMARY KEY (store, pack));
"""
_MEANING = (
    "what was agreed with the stores is forgotten, so the next syncs work as in a fresh clone: a file that differs "
    "here and there is a conflict, one that was deleted on one side only is on both again"
)


class Base(NamedTuple):
    """Where local and store last agreed: a snapshot of the store, or (`section`) entries that only this machine has.

    `section` is written as in a manifest, without places.
    """

    snapshot: str
    manifest_key: str
    section: bytes = b""


class KnownPack(NamedTuple):
    """A pack that was sent, or was about to be."""

    pack: str
    size_bytes: int


class SyncState:
    """Not thread-safe; one writer at a time (see `locks.py`)."""

    def __init__(self, path: Path, on_damage: Callable[[str], None]) -> None:
        self._database = Database(
            path,
            version=_VERSION,
            schema=_SCHEMA,
            synchronous="NORMAL",
            on_damage=lambda told: on_damage(f"{told}; {_MEANING}"),
        )

    def close(self) -> None:
        self._database.close()

    def base(self, store: str, dataset: str) -> Optional[Base]:
        rows = self._database.rows(
            "SELECT * FROM base WHERE store = ? AND dataset = ?", [store, os.fsencode(dataset)], key=2
        )
        return Base(*rows[0]) if rows else None

    def bases(self, store: str) -> dict[str, Base]:
        """Every dataset that was synced with the store from here."""
        rows = self._database.rows("SELECT * FROM base WHERE store = ? ORDER BY dataset", [store], key=1)
        return {os.fsdecode(dataset): Base(*rest) for dataset, *rest in rows}

    def set_base(self, store: str, dataset: str, base: Base) -> None:
        row = (store, os.fsencode(dataset), *base)
        self._database.write("INSERT OR REPLACE INTO base VALUES (?, ?, ?, ?, ?, ?)", [(*row, check_of(row))])

    def remember_pack(self, store: str, pack: str, size_bytes: int, members: Sequence[Member]) -> None:
        row = (store, pack, size_bytes, _pack_members(members))
        self._database.write("INSERT OR IGNORE INTO pack VALUES (?, ?, ?, ?, ?)", [(*row, check_of(row))])

    def forget_pack(self, store: str, pack: str) -> None:
        self._database.write("DELETE FROM pack WHERE store = ? AND pack = ?", [(store, pack)])

    def packs(self, store: str) -> Iterator[tuple[KnownPack, dict[str, Place]]]:
        """Every known pack with the places of its members, newest first."""
        for pack, size, members in self._database.rows(
            "SELECT * FROM pack WHERE store = ? ORDER BY rowid DESC", [store], key=1
        ):
            yield KnownPack(pack, size), _unpack_members(pack, members)


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
