"""What this machine knows of the stores it has synced with, in SQLite.

- The agreement about each dataset: the snapshot at which local folder and store last agreed (three-way merges start
  there), and what a command was about to do since then. A command that was killed leaves its step behind, and the next
  one takes what it has done for what it is: neither an edit nor a deletion of the user's.
- The members of packs, written before a pack appears in a store: after a kill a pack that had arrived is found by its
  name and used, and a renamed folder finds its bytes under the old name.

Losing the file loses no data: a sync then asks the store, and may send some bytes a second time. A damaged one is
created again (see `database.py`).
"""

from __future__ import annotations

import os
import sqlite3
import struct
from bisect import bisect_left
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

from amlctl.core.manifest import Kind, StoredAt
from amlctl.core.pack import Member
from amlctl.localfs.database import Change, Database, check_of

_MEMBER = struct.Struct("<16sIIB")
_ID = 16
_FEW_SEARCHES = 64


class KnownPack(NamedTuple):
    """A pack that was sent, or was about to be. `members` as `member_rows` makes them."""

    pack: str
    size_bytes: int
    members: bytes


def member_rows(members: Sequence[Member]) -> bytes:
    return b"".join(
        _MEMBER.pack(bytes.fromhex(member.content_id), member.offset, member.length, member.is_deflated)
        for member in members
    )


class KnownPacks:
    """Where contents are; the first of `packs` that has one is named. Not thread-safe."""

    def __init__(self, packs: Sequence[KnownPack]) -> None:
        self.packs = packs
        self.sizes = {known.pack: known.size_bytes for known in packs}
        self._searches = 0
        self._sorted: list[bytes] = []

    def place(self, content: str) -> Optional[StoredAt]:
        if not self.packs:
            return None
        wanted = bytes.fromhex(content)
        if self._searches < _FEW_SEARCHES:
            # Of a million members, reading through costs 5 ms; sorting them costs 1.2 s and 70 MB.
            self._searches += 1
            return self._search(wanted)
        if not self._sorted:
            self._sorted = sorted(
                known.members[at : at + _ID] + number.to_bytes(4, "big") + known.members[at + _ID : at + _MEMBER.size]
                for number, known in enumerate(self.packs)
                for at in range(0, len(known.members), _MEMBER.size)
            )
        at = bisect_left(self._sorted, wanted)
        if at == len(self._sorted) or self._sorted[at][:_ID] != wanted:
            return None
        row = self._sorted[at]
        return _place(self.packs[int.from_bytes(row[_ID : _ID + 4], "big")], row[:_ID] + row[_ID + 4 :])

    def _search(self, wanted: bytes) -> Optional[StoredAt]:
        for known in self.packs:
            at = known.members.find(wanted)
            while at >= 0:
                if at % _MEMBER.size == 0:
                    return _place(known, known.members[at : at + _MEMBER.size])
                at = known.members.find(wanted, at + 1)
        return None


def _place(known: KnownPack, row: bytes) -> StoredAt:
    _, offset, length, is_deflated = _MEMBER.unpack(row)
    return StoredAt(Kind.PACK, known.pack, offset, length, bool(is_deflated))


_VERSION = 7
_SCHEMA = """
    CREATE TABLE agreement (store TEXT, dataset BLOB, step INTEGER, kind TEXT, snapshot TEXT, manifest_key TEXT,
                            section BLOB, head BLOB, row_check BLOB,
                            PRIMARY KEY (store, dataset, step)) WITHOUT ROWID;
    CREATE TABLE pack (store TEXT, pack TEXT, size_bytes INTEGER, members BLOB, row_check BLOB,
                       PRIMARY KEY (store, pack));
"""
_INSERT = "INSERT INTO agreement VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_PACK = "INSERT OR IGNORE INTO pack VALUES (?, ?, ?, ?, ?)"
_DELETE = "DELETE FROM agreement WHERE store = ? AND dataset = ?"
_MEANING = (
    "what was agreed with the stores is forgotten, so the next syncs work as in a fresh clone: a file that differs "
    "here and there is a conflict, one that was deleted on one side only is on both again"
)


class Base(NamedTuple):
    """Where local and store agree: a snapshot of the store, or (`section`) entries that only this machine has.

    `section` is written as in a manifest, without places. `head` is the HEAD of that moment as it was written; empty:
    not known, from a version of amlctl that did not keep it.
    """

    snapshot: str
    manifest_key: str
    section: bytes = b""
    head: bytes = b""


class Step(Enum):
    """What a command was about to do when it wrote down `UnderWay`."""

    PULL = "pull"
    """Make some paths of the folder what the snapshot has."""
    PULL_ALL = "pull all"
    """The same where the folder was gone: what is missing was not deleted."""
    COMMIT = "commit"
    """Move HEAD to `head`; if it got there, `base` is what both agree on."""


class UnderWay(NamedTuple):
    """A step whose end was not recorded: it is running now, or it was killed."""

    step: Step
    base: Base


class Agreement(NamedTuple):
    """What this machine and the store have in common of a dataset; what broke off since then, in order."""

    base: Optional[Base]
    under_way: Sequence[UnderWay] = ()


class SyncState:
    """Not thread-safe; one writer at a time (see `locks.py`). Stores go by their id, or by their URL where they have
    none."""

    def __init__(self, path: Path, on_damage: Callable[[str], None]) -> None:
        self._database = Database(
            path,
            version=_VERSION,
            schema=_SCHEMA,
            synchronous="NORMAL",
            on_damage=lambda message: on_damage(f"{message}; {_MEANING}"),
            upgrade=_from_older_version,
        )

    def close(self) -> None:
        self._database.close()

    def agreement(self, store: str, dataset: str) -> Agreement:
        rows = self._database.rows(
            "SELECT * FROM agreement WHERE store = ? AND dataset = ? ORDER BY step", _keys(store, dataset), key=3
        )
        base = next((Base(*values) for kind, *values in rows if kind == _BASE), None)
        steps = (UnderWay(Step(kind), Base(*values)) for kind, *values in rows if kind != _BASE)
        return Agreement(base, tuple(steps))

    def datasets(self, store: str) -> list[str]:
        """Every dataset that was synced with the store from here, or was about to be, in order."""
        return self._datasets(store, "1", [])

    def overlapping(self, store: str, dataset: str) -> list[str]:
        """Those of them that lie in the folder of this one, or this one in theirs."""
        name, parts = os.fsencode(dataset), dataset.split("/")
        above = [os.fsencode("/".join(parts[:count])) for count in range(1, len(parts))]
        inside = f"dataset > ? AND dataset < ? OR dataset IN ({', '.join('?' * len(above))})"
        return self._datasets(store, inside, [name + b"/", name + b"0", *above])  # "0" follows "/"

    def _datasets(self, store: str, which: str, values: Sequence[bytes]) -> list[str]:
        query = f"SELECT * FROM agreement WHERE store = ? AND ({which}) ORDER BY dataset"
        rows = self._database.rows(query, [_text(store), *values], key=1)
        return list(dict.fromkeys(os.fsdecode(dataset) for dataset, *_ in rows))

    def set_base(self, store: str, dataset: str, base: Base) -> None:
        """Both agree on it, and nothing is under way anymore."""
        row = (*_keys(store, dataset), 0, _BASE, *base)
        self._database.change([(_DELETE, [_keys(store, dataset)]), (_INSERT, [(*row, check_of(row))])])

    def begin(self, store: str, dataset: str, step: Step, base: Base) -> None:
        """Before the step does anything. Where the folder was gone, what broke off before does not count anymore."""
        before = () if step is Step.PULL_ALL else self.agreement(store, dataset).under_way
        if before and before[-1] == UnderWay(step, base):
            return
        row = (*_keys(store, dataset), 1 + len(before), step.value, *base)
        forget = f"{_DELETE} AND step > ?"
        changes: list[Change] = [(forget, [(*_keys(store, dataset), len(before))]), (_INSERT, [(*row, check_of(row))])]
        self._database.change(changes)

    def adopt(self, known_as: str, store: str) -> None:
        """What was kept under the URL of a store goes by its id from now on."""
        old = _text(known_as)
        agreements = self._database.rows("SELECT * FROM agreement WHERE store = ?", [old], key=1)
        packs = self._database.rows("SELECT * FROM pack WHERE store = ? ORDER BY rowid", [old], key=1)
        changes: list[Change] = []
        for table, insert, found in (
            ("agreement", _INSERT.replace("INSERT", "INSERT OR IGNORE"), agreements),
            ("pack", _INSERT_PACK, packs),
        ):
            rows = [(_text(store), *values) for values in found]
            changes.append((f"DELETE FROM {table} WHERE store = ?", [[old]]))
            changes.append((insert, [(*row, check_of(row)) for row in rows]))
        if agreements or packs:
            self._database.change(changes)

    def remember_pack(self, store: str, pack: str, size_bytes: int, members: Sequence[Member]) -> None:
        row = (_text(store), pack, size_bytes, member_rows(members))
        self._database.write(_INSERT_PACK, [(*row, check_of(row))])

    def forget_pack(self, store: str, pack: str) -> None:
        self._database.write("DELETE FROM pack WHERE store = ? AND pack = ?", [(_text(store), pack)])

    def packs(self, store: str, *, later_than: str = "") -> list[KnownPack]:
        """Every pack that was sent to the store from here, or was about to be; newest first. `later_than`: after that
        pack."""
        query = (
            "SELECT * FROM pack WHERE store = ? AND rowid > "
            "coalesce((SELECT rowid FROM pack WHERE store = ? AND pack = ?), 0) ORDER BY rowid DESC"
        )
        rows = self._database.rows(query, [_text(store), _text(store), later_than], key=1)
        return [KnownPack(*row) for row in rows]


_BASE = "base"


def _keys(store: str, dataset: str) -> tuple[str, bytes]:
    return _text(store), os.fsencode(dataset)


def _text(store: str) -> str:
    """A store's URL as the database can hold it: a folder's name may have bytes that are not UTF-8."""
    return store.encode("utf-8", "backslashreplace").decode()


def _from_older_version(database: sqlite3.Connection, version: int) -> Optional[list[Change]]:
    """Version 4 had bases without their HEAD, by URL alone; version 6 had one table more. Packs were as they are."""
    if version not in (4, 5, 6):
        return None if version else []

    def intact(table: str) -> list[tuple[Any, ...]]:
        rows = database.execute(f"SELECT * FROM {table} ORDER BY {'rowid' if table == 'pack' else '1, 2'}")
        return [row for row in rows if row[-1] == check_of(row[:-1])]

    if version > 4:
        return [(_INSERT, intact("agreement")), (_INSERT_PACK, intact("pack"))]
    rows = [(store, dataset, 0, _BASE, *base, b"") for store, dataset, *base, _ in intact("base")]
    return [(_INSERT, [(*row, check_of(row)) for row in rows]), (_INSERT_PACK, intact("pack"))]
