"""A store with copies of its manifests on this disk keeps the promises of stores, and never shows a wrong copy."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from amlctl.core.content_id import content_id
from amlctl.core.manifest import FileEntry, Kind, Manifest, StoredAt
from amlctl.errors import IntegrityError, NotFound
from amlctl.snapshots.manifests import read_manifest, write_manifest
from amlctl.stores.contract import Store
from amlctl.stores.directory import DirectoryStore
from amlctl.stores.wrappers import CachedStore
from tests.contract.store import StoreSuite


class TestCachedStore(StoreSuite):
    @pytest.fixture
    def store(self, reopened: Callable[[], Store]) -> Store:
        return reopened()

    @pytest.fixture
    def reopened(self, tmp_path: Path) -> Callable[[], Store]:
        return lambda: CachedStore(DirectoryStore(tmp_path / "store"), tmp_path / "copies")

    def test_what_was_deleted_is_gone(self, store: Store) -> None:
        key = _shard_key(b"a section")
        store.put(key, gzip.compress(b"a section"))
        store.delete(key)
        with pytest.raises(NotFound):
            store.get(key)

    def test_a_wrong_body_does_not_hide_the_right_one(self, store: Store, tmp_path: Path) -> None:
        key = _shard_key(b"a section")
        store.put(key, b"something else")
        DirectoryStore(tmp_path / "store").put(key, gzip.compress(b"a section"), replace=True)
        assert gzip.decompress(store.get(key)) == b"a section"


def _shard_key(section: bytes) -> str:
    return f"datasets/d/shards/{content_id(section)}.gz"


def _manifest(count: int) -> Manifest:
    ids = [content_id(b"%d" % number) for number in range(count)]
    entries = [FileEntry(f"f{number:06}", 1, False, identity) for number, identity in enumerate(ids)]
    places = {identity: StoredAt(Kind.PACK, "0" * 32, number, 1) for number, identity in enumerate(ids)}
    return Manifest("working/x", "pack", entries, places, {"0" * 32: count})


def _cached(tmp_path: Path, *, limit_bytes: int = 1 << 20) -> CachedStore:
    return CachedStore(DirectoryStore(tmp_path / "store"), tmp_path / "copies", limit_bytes=limit_bytes)


def _copies(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "copies").iterdir())


@pytest.fixture(params=[40, 33_000], ids=["whole", "shards"])
def manifest(request: pytest.FixtureRequest) -> Manifest:
    return _manifest(request.param)


def test_what_was_written_here_is_read_without_a_request(tmp_path: Path, manifest: Manifest) -> None:
    store = _cached(tmp_path, limit_bytes=1 << 30)
    key = write_manifest(store, manifest).key
    requests = store.traffic.requests
    assert read_manifest(store, key).entries == manifest.entries
    assert store.traffic.requests == requests


def test_what_was_read_once_is_read_without_a_request(tmp_path: Path, manifest: Manifest) -> None:
    key = write_manifest(DirectoryStore(tmp_path / "store"), manifest).key
    store = _cached(tmp_path, limit_bytes=1 << 30)
    first = read_manifest(store, key)
    requests = store.traffic.requests
    assert read_manifest(_cached(tmp_path), key) == read_manifest(store, key) == first
    assert store.traffic.requests == requests > 0


@pytest.mark.parametrize("harm", [b"", b"flipped"])
def test_a_damaged_copy_is_ignored_and_recreated(tmp_path: Path, manifest: Manifest, harm: bytes) -> None:
    store = _cached(tmp_path, limit_bytes=1 << 30)
    key = write_manifest(store, manifest).key
    for copy in _copies(tmp_path):
        copy.write_bytes(harm)
    assert read_manifest(store, key).entries == manifest.entries
    requests = store.traffic.requests
    assert read_manifest(store, key).entries == manifest.entries
    assert store.traffic.requests == requests


def test_damage_in_the_store_is_not_kept(tmp_path: Path) -> None:
    manifest = _manifest(40)
    plain = DirectoryStore(tmp_path / "store")
    key = write_manifest(plain, manifest).key
    good = plain.get(key)
    store = _cached(tmp_path)
    plain.put(key, good[:-9], replace=True)
    with pytest.raises(IntegrityError):
        read_manifest(store, key)
    plain.put(key, good, replace=True)
    assert read_manifest(store, key).entries == manifest.entries


def test_the_oldest_make_room(tmp_path: Path) -> None:
    plain = DirectoryStore(tmp_path / "store")
    keys = [write_manifest(plain, _manifest(count)).key for count in range(100, 120)]
    size = max(len(plain.get(key)) for key in keys)
    store = _cached(tmp_path, limit_bytes=4 * size)
    for key in keys:
        store.get(key)
        number = keys.index(key)
        os.utime(tmp_path / "copies" / key.rpartition("/")[2], (number, number))  # its clock is too coarse for an order
    assert sum(copy.stat().st_size for copy in _copies(tmp_path)) <= 4 * size
    requests = store.traffic.requests
    store.get(keys[-1])
    assert store.traffic.requests == requests
    store.get(keys[0])
    assert store.traffic.requests == requests + 1


def test_a_folder_that_cannot_be_written_is_not_an_error(tmp_path: Path) -> None:
    (tmp_path / "copies").write_text("a file stands here")
    manifest = _manifest(3)
    store = _cached(tmp_path)
    assert read_manifest(store, write_manifest(store, manifest).key).entries == manifest.entries
