"""amlctl's own databases may be damaged or unusable: the command says so once, and the next one works."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from amlctl.errors import IntegrityError, ServiceUnavailable
from tests.support.clones import Clone, Clones

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


@pytest.mark.parametrize("name", DATABASES)
def test_a_file_that_is_no_database_is_made_anew(one: Clone, name: str) -> None:
    _database(one, name).write_bytes(b"not a database at all" * 400)
    assert one.sync().unchanged == len(TREE)


@pytest.mark.parametrize("name", DATABASES)
def test_damage_further_back_is_said_once(one: Clone, name: str) -> None:
    path = _database(one, name)
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)
    (one.root / "d1/new").write_bytes(b"new")
    with pytest.raises(IntegrityError, match=name) as caught:
        one.sync()
    assert "again" in caught.value.hint
    assert one.sync().files == len(TREE) + 1
    assert one.sync().unchanged == len(TREE) + 1


def test_a_database_in_use_elsewhere_is_kept(one: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _database(one, "sync_state.sqlite")
    before = path.read_bytes()
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, **(options | {"timeout": 0.01})))
    other = connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ServiceUnavailable, match="locked"):
        one.sync()
    other.execute("ROLLBACK")
    other.close()
    assert path.read_bytes() == before
    assert one.sync().unchanged == len(TREE)
