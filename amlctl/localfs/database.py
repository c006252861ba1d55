"""amlctl's own SQLite files: they may be lost without losing data.

A damaged one is noticed wherever it is met, reported, and created again: for the caller it is empty from then on.
SQLite sees damage to its own structure only, so every row carries a check of its values as its last column. A file
that cannot be used now (read-only, disk full) is left alone.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable, Optional, Union

import xxhash

from amlctl.errors import AmlctlError, RightsError, ServiceUnavailable, SettingsError
from amlctl.localfs.atomic import temporary_beside
from amlctl.localfs.disk_errors import UnfitFile, disk_error
from amlctl.localfs.regular_file import regular_descriptor

Value = Union[bytes, str, int]
Change = tuple[str, Sequence[Sequence[Value]]]
"""A statement, and the rows that go through it."""

_DAMAGE_WORDS = ("no such ", "table ", "Could not decode")
"""How SQLite begins an OperationalError that is about what the file holds: its schema or its text is gone."""


def _nothing_to_keep(database: sqlite3.Connection, version: int) -> list[Change]:
    return []


class Database:
    """One file, for one process at a time, which the caller sees to. Not thread-safe.

    Every method raises ServiceUnavailable (disk full) and RightsError. `on_damage` gets a sentence.
    """

    def __init__(
        self,
        path: Path,
        *,
        version: int,
        schema: str,
        synchronous: str,
        on_damage: Callable[[str], None],
        upgrade: Callable[[sqlite3.Connection, int], Optional[list[Change]]] = _nothing_to_keep,
    ) -> None:
        """`schema` is used where the file is missing or of another version; `upgrade` reads from one of another version
        what is to be written into the new one; None: it cannot read that one. `synchronous` as SQLite's pragma.
        """
        self._path = path
        self._version = version
        self._schema = schema
        self._synchronous = synchronous
        self._on_damage = on_damage
        self._upgrade = upgrade
        try:
            self._database = self._open()
        except sqlite3.DatabaseError as error:
            self._recreate(error)

    def close(self) -> None:
        self._database.close()

    def rows(self, query: str, values: Sequence[Value] = (), *, key: int) -> list[tuple[Any, ...]]:
        """All rows, without their check. Their first `key` columns are the key."""
        try:
            found = self._database.execute(query, values).fetchall()
            if all(row[-1] == check_of(row[:-1]) for row in found):
                return [row[key:-1] for row in found]
            error = sqlite3.DatabaseError("a row is not what was written")
        except sqlite3.DatabaseError as raised:
            error = raised
        self._recreate(error)
        return []

    def write(self, statement: str, rows: Sequence[Sequence[Value]]) -> None:
        """Each row through the statement, all of them or none."""
        self.change([(statement, rows)])

    def change(self, changes: Sequence[Change]) -> None:
        """All changes, in order, or none."""
        try:
            self._write(changes)
        except sqlite3.DatabaseError as error:
            self._recreate(error)
            try:
                self._write(changes)
            except sqlite3.DatabaseError as again:
                raise _unusable(self._path, again) from again

    def _write(self, changes: Sequence[Change]) -> None:
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            for statement, rows in changes:
                self._database.executemany(statement, rows)

    def _open(self) -> sqlite3.Connection:
        self._make_private()
        # The caller's lock is enough, and SQLite's own do not work on SMB: there every write finds the file locked.
        database = sqlite3.connect(f"{self._path.absolute().as_uri()}?nolock=1", uri=True, isolation_level=None)
        try:
            database.execute(f"PRAGMA synchronous = {self._synchronous}")
            (found,) = database.execute("PRAGMA user_version").fetchone()
            if found != self._version:
                kept = self._upgrade(database, found)
                database.execute("BEGIN IMMEDIATE")
                for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                    database.execute(f'DROP TABLE "{table}"')
                for statement in filter(str.strip, self._schema.split(";")):
                    database.execute(statement)
                for statement, rows in kept or ():
                    database.executemany(statement, rows)
                database.execute(f"PRAGMA user_version = {self._version}")
                database.execute("COMMIT")
                if kept is None:
                    self._on_damage(f"{self._path} was written by another version of amlctl and is created again")
        except BaseException:
            database.close()
            raise
        return database

    def _make_private(self) -> None:
        """SQLite would make the file as the umask says; what it writes beside it takes its mode."""
        try:
            os.close(regular_descriptor(self._path, os.O_RDONLY | os.O_CREAT))
        except UnfitFile as error:
            raise SettingsError(f"{self._path}: {error.strerror}", hint="move it away, then run it again") from error
        except OSError:
            pass  # SQLite says itself, and better, what is wrong

    def _recreate(self, error: sqlite3.DatabaseError) -> None:
        """Raises what the error is, unless it is damage."""
        if isinstance(error, sqlite3.ProgrammingError):
            raise error  # a fault of ours
        if isinstance(error, sqlite3.OperationalError) and not str(error).startswith(_DAMAGE_WORDS):
            raise _unusable(self._path, error) from error
        if hasattr(self, "_database"):
            self._database.close()
        for suffix in ("", "-journal", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        self._on_damage(f"{self._path} was damaged ({error}) and is created again")
        try:
            self._database = self._open()
        except sqlite3.DatabaseError as again:
            raise _unusable(self._path, again) from again


def check_of(values: Sequence[Any]) -> bytes:
    """The last column of a row: 8 bytes that change with any value, its type and its length."""
    hasher = xxhash.xxh3_64()
    for value in values:
        data = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
        hasher.update(f"{type(value).__name__} {len(data)} ".encode())
        hasher.update(data)
    return hasher.digest()


def _unusable(path: Path, error: sqlite3.DatabaseError) -> AmlctlError:
    """SQLite says what it could not do; why is found by a look at the file."""
    message = str(error)
    cause = OSError(errno.ENOSPC, message, str(path)) if "full" in message else _cause(path)
    if cause is None and "disk I/O error" in message:
        cause = OSError(errno.EIO, message, str(path))
    found = disk_error(cause, str(path)) if cause is not None else None
    if found is None and ("readonly" in message or "unable to open" in message):
        return RightsError(f"{path}: {message}", hint="check the rights of that file and its folder")
    return found or ServiceUnavailable(f"{path} cannot be used: {message}", hint="check its disk, then run it again")


def _cause(path: Path) -> Optional[OSError]:
    """What the operating system says when the file is opened for writing, and another one made beside it."""
    beside = temporary_beside(path)
    try:
        for each in (path, beside):
            os.close(os.open(each, os.O_RDWR | os.O_CREAT, 0o600))
        os.unlink(beside)
    except OSError as error:
        return error
    return None
