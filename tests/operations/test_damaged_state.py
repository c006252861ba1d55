"""amlctl's own databases may be damaged or unusable: damaged ones are recreated, and those in use stay."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

from amlctl.core.events import Warned
from amlctl.errors import Conflict, SettingsError
from amlctl.localfs.identify import CachedScan, StatCache
from tests.support.clones import Clone, Clones
from tests.support.trees import read_tree

TREE = {f"d{n % 40}/f{n}": b"%d" % n * 20 for n in range(400)}
DATABASES = ("stat_cache.sqlite", "sync_state.sqlite")


@pytest.fixture
def one(tmp_path: Path) -> Clone:
    clone = Clones(tmp_path)["one"]
    clone.make(TREE)
    clone.sync()
    return clone


def _database(one: Clone, name: str) -> Path:
    return one.project.state_dir / name


def _warnings(one: Clone) -> list[str]:
    found = [event.message for event in one.events if isinstance(event, Warned)]
    one.events.clear()
    return found


def _overwrite(path: Path, at: int, garbage: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(garbage)


@pytest.mark.parametrize("name", DATABASES)
def test_a_file_that_is_not_a_database_is_recreated(one: Clone, name: str) -> None:
    _database(one, name).write_bytes(b"not a database at all" * 400)
    assert one.sync().unchanged == len(TREE)
    assert name in _warnings(one)[0]


@pytest.mark.parametrize("name", DATABASES)
def test_damage_further_back_is_reported_once(one: Clone, name: str) -> None:
    path = _database(one, name)
    _overwrite(path, 4096, b"\xa5" * (path.stat().st_size - 4096))
    (one.root / "d1/new").write_bytes(b"new")
    assert one.sync().files == len(TREE) + 1
    [reported] = _warnings(one)
    assert name in reported
    assert ("fresh clone" in reported) == (name == "sync_state.sqlite")
    assert one.sync().unchanged == len(TREE) + 1
    assert not _warnings(one)


@pytest.mark.parametrize("name", DATABASES)
def test_garbage_anywhere_never_reaches_the_store(tmp_path: Path, one: Clone, name: str) -> None:
    rng = random.Random(name)
    path = _database(one, name)
    for number in range(25):
        at = rng.randrange(100, path.stat().st_size - 200)
        _overwrite(path, at, rng.randbytes(rng.choice((4, 60, 200))))
        (one.root / f"d{number % 40}/f{number % 400}").write_bytes(b"%d" % (10_000 + number))
        (one.root / "d1" / f"new{number}").write_bytes(b"new %d" % number)
        try:
            one.sync()
        except Conflict:  # what was agreed is forgotten, and the changed file differs from the store's
            assert name == "sync_state.sqlite"
            one.sync(ours=True)
        stranger = Clone(tmp_path / f"stranger{number}", one.store) if number % 10 == 9 else None
        if stranger is not None:
            stranger.pull()
            assert read_tree(stranger.root) == one.tree
    assert _warnings(one)


def test_a_row_that_is_not_what_was_written_counts_as_damage(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    reported: list[str] = []
    cache = StatCache(path, reported.append)
    cache.remember_scan("x", CachedScan(b"digest", "the snapshot", 3, 300))
    cache.close()
    _overwrite(path, path.read_bytes().index(b"the snapshot"), b"another one!")
    cache = StatCache(path, reported.append)
    assert cache.last_scan("x") is None
    assert "not what was written" in reported[0]
    cache.remember_scan("x", CachedScan(b"digest", "the snapshot", 3, 300))
    assert cache.last_scan("x") == CachedScan(b"digest", "the snapshot", 3, 300)
    cache.close()


@pytest.mark.parametrize("name", DATABASES)
def test_a_database_that_cannot_be_opened_is_kept(one: Clone, name: str) -> None:
    path = _database(one, name)
    kept = path.rename(path.with_suffix(".kept"))
    path.mkdir()
    with pytest.raises(SettingsError, match=f"{name}: it is a folder"):
        one.sync()
    path.rmdir()
    kept.rename(path)
    assert one.sync().unchanged == len(TREE)
    assert not _warnings(one)


def test_locks_of_sqlite_that_do_not_work_are_not_missed(one: Clone) -> None:
    """As on SMB, where a notebook of Azure ML has its files: for SQLite each write finds the file locked."""
    other = sqlite3.connect(_database(one, "sync_state.sqlite"), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    (one.root / "more").write_bytes(b"1")
    assert one.sync().added == 1
    other.close()
    assert one.sync().unchanged == len(TREE) + 1
    assert not _warnings(one)
