"""amlctl's own SQLite files: they may be lost without losing data, so a damaged one is thrown away and said so."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from amlctl.errors import IntegrityError, ServiceUnavailable


def open_database(path: Path, *, version: int, schema: str, synchronous: str) -> sqlite3.Connection:
    """The database at `path`, made by `schema` where it is missing, of another version, or no database.

    `synchronous` as SQLite's pragma. Raises sqlite3.Error, which `guarded_databases` puts in words.
    """
    try:
        return _open(path, version, schema, synchronous)
    except sqlite3.OperationalError:
        raise  # locked, read-only, disk full: nothing is wrong with the file
    except sqlite3.DatabaseError:
        _remove(path)
        return _open(path, version, schema, synchronous)


def _open(path: Path, version: int, schema: str, synchronous: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=60, isolation_level=None)
    try:
        database.execute(f"PRAGMA synchronous = {synchronous}")
        (found,) = database.execute("PRAGMA user_version").fetchone()
        if found != version:
            for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                database.execute(f'DROP TABLE "{table}"')
            database.executescript(f"{schema};PRAGMA user_version = {version};")
    except BaseException:
        database.close()
        raise
    return database


@contextmanager
def guarded_databases(paths: Sequence[Path]) -> Iterator[None]:
    """Raises IntegrityError where one of them turned out to be damaged (it is gone then), and ServiceUnavailable
    where it cannot be used now."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise ServiceUnavailable(
            f"{paths[0].parent} cannot be used: {error}", hint="check its rights and the free space of its disk"
        ) from error
    except sqlite3.DatabaseError as error:
        bad = [path for path in paths if not _is_sound(path)] or list(paths)
        for path in bad:
            _remove(path)
        raise IntegrityError(
            f"{' and '.join(path.name for path in bad)} in {paths[0].parent} was damaged ({error}) and is removed",
            hint="run the same command again: it reads the files and asks the store instead",
        ) from error


def _is_sound(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(path)) as database:
            found = database.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.DatabaseError:
        return False
    return bool(found == ("ok",))


def _remove(path: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
