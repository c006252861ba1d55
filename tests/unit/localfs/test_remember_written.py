"""What a pull has written need not be read again, unless somebody else may have been there."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from amlctl.core.content_id import content_id
from amlctl.core.events import null_sink
from amlctl.localfs.database import check_of
from amlctl.localfs.identify import CachedFolder, KnownFolder, StatCache, identify, remember_written
from amlctl.localfs.scan import StatFields, scan, stat_fields
from tests.support.trees import write_tree

TREE = {"a": b"a" * 100, "b/c": b"c" * 200, "b/d": b"d" * 300}
LATER_NS = 3_000_000_000
Rows = dict[str, tuple[StatFields, str]]


def warn(reported: str) -> None:
    raise AssertionError(reported)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[StatCache]:
    with closing(StatCache(tmp_path / "cache.sqlite", warn)) as opened:
        yield opened


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_tree(tmp_path / "data", TREE)
    return tmp_path / "data"


@pytest.fixture
def written(root: Path) -> Rows:
    found = {path: (root / path).stat() for path in TREE}
    return {path: (stat_fields(at), content_id(TREE[path])) for path, at in found.items()}


def hashed(root: Path, cache: StatCache) -> int:
    """Bytes that identifying the folder reads; the ids are right in any case."""
    found = identify(scan(root), KnownFolder(cache, "data"), sink=null_sink)
    for entry in found.entries:
        assert entry.content_id == content_id((root / entry.path).read_bytes())
    return found.hashed_bytes


def test_nothing_is_read_again(root: Path, cache: StatCache, written: Rows) -> None:
    remember_written(scan(root), cache, "data", written, time.time_ns() + LATER_NS)
    assert hashed(root, cache) == 0


def test_what_is_younger_than_two_seconds_is(root: Path, cache: StatCache, written: Rows) -> None:
    remember_written(scan(root), cache, "data", written, time.time_ns())
    assert hashed(root, cache) == 600


def test_what_somebody_has_changed_since_is(root: Path, cache: StatCache, written: Rows) -> None:
    before = (root / "b/c").stat()
    (root / "b/c").write_bytes(b"x" * 200)
    os.utime(root / "b/c", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    (root / "a").rename(root / "old")
    (root / "a").write_bytes(b"y" * 100)
    os.utime(root / "a", ns=(before.st_atime_ns, written["a"][0][2]))
    (root / "new").write_bytes(b"new")
    remember_written(scan(root), cache, "data", written, time.time_ns() + LATER_NS)
    assert hashed(root, cache) == 200 + 100 + 100 + 3


def test_what_was_known_stays_known(root: Path, cache: StatCache, written: Rows) -> None:
    remember_written(scan(root), cache, "data", {"b/c": written["b/c"]}, time.time_ns() + LATER_NS)
    remember_written(scan(root), cache, "data", {"b/d": written["b/d"]}, time.time_ns() + LATER_NS)
    assert hashed(root, cache) == 100


def test_a_cache_of_the_version_before_is_kept(tmp_path: Path) -> None:
    path, row = tmp_path / "stat_cache.sqlite", (b"data_blobs/x", b"rows", b"ids")
    with closing(sqlite3.connect(path)) as old, old:
        old.execute("CREATE TABLE folder (path BLOB PRIMARY KEY, rows BLOB, ids BLOB, row_check BLOB) WITHOUT ROWID")
        old.execute(
            "CREATE TABLE scan (path BLOB PRIMARY KEY, digest BLOB, snapshot TEXT, files INTEGER, size_bytes INTEGER, "
            "row_check BLOB) WITHOUT ROWID"
        )
        old.execute("INSERT INTO folder VALUES (?, ?, ?, ?)", (*row, check_of(row)))
        old.execute("PRAGMA user_version = 3")
    with closing(StatCache(path, warn)) as cache:
        assert cache.folder("data_blobs/x") == CachedFolder(b"rows", b"ids")
        assert cache.last_scan("data_blobs/x") is None
