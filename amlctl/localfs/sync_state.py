"""What this machine knows of the stores it has synced with, in SQLite.

- The base of each dataset: the snapshot at which local folder and store last agreed (three-way merges start there).
- The members of packs, written before a pack appears in a store: after a kill a pack that had arrived is found by its
  name and used, and a renamed folder finds its bytes under the old name.

Losing the file loses no data: a sync then asks the store, and may send some bytes a second time. A damaged one is
made anew (see `database.py`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Callable, NamedTuple, Optional

from amlctl.core.pack import Member
from amlctl.localfs.database import Database, check_of
from amlctl.localfs.known_packs import KnownPack, KnownPacks, member_rows

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
            "SELECT * FROM base WHERE store = ? AND dataset = ?", [_text(store), os.fsencode(dataset)], key=2
        )
        return Base(*rows[0]) if rows else None

    def bases(self, store: str) -> dict[str, Base]:
        """Every dataset that was synced with the store from here."""
        rows = self._database.rows("SELECT * FROM base WHERE store = ? ORDER BY dataset", [_text(store)], key=1)
        return {os.fsdecode(dataset): Base(*rest) for dataset, *rest in rows}

    def set_base(self, store: str, dataset: str, base: Base) -> None:
        row = (_text(store), os.fsencode(dataset), *base)
        self._database.write("INSERT OR REPLACE INTO base VALUES (?, ?, ?, ?, ?, ?)", [(*row, check_of(row))])

    def remember_pack(self, store: str, pack: str, size_bytes: int, members: Sequence[Member]) -> None:
        row = (_text(store), pack, size_bytes, member_rows(members))
        self._database.write("INSERT OR IGNORE INTO pack VALUES (?, ?, ?, ?, ?)", [(*row, check_of(row))])

    def forget_pack(self, store: str, pack: str) -> None:
        self._database.write("DELETE FROM pack WHERE store = ? AND pack = ?", [(_text(store), pack)])

    def packs(self, store: str) -> KnownPacks:
        """Every pack that was sent to the store from here, or was about to be; newest first."""
        rows = self._database.rows("SELECT * FROM pack WHERE store = ? ORDER BY rowid DESC", [_text(store)], key=1)
        return KnownPacks([KnownPack(*row) for row in rows])


def _text(store: str) -> str:
    """A store's URL as the database can hold it: a folder's name may have bytes that are no UTF-8."""
    return store.encode("utf-8", "backslashreplace").decode()
