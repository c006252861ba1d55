"""A snapshot from one store into another: all of it, and nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from amlctl.errors import IntegrityError, NotFound
from amlctl.runs.copies import copy_snapshot
from amlctl.snapshots.heads import read_head
from amlctl.snapshots.manifests import read_manifest
from amlctl.snapshots.receive import materialise
from amlctl.stores.directory import DirectoryStore
from tests.support.clones import DATASET, Clones, random_tree
from tests.support.trees import read_tree


@pytest.fixture
def clones(tmp_path: Path) -> Clones:
    return Clones(tmp_path)


@pytest.fixture
def target(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "target")


def copied(clones: Clones, target: DirectoryStore, manifest_key: str) -> str:
    return copy_snapshot(clones.store, target, manifest_key, scratch=clones.folder)


@pytest.mark.parametrize("layout", ["auto", "pack", "mirror"])
def test_all_of_it(clones: Clones, target: DirectoryStore, layout: str) -> None:
    tree = random_tree(1)
    clones["one"].make(tree)
    key = copied(clones, target, clones["one"].sync(layout=layout).manifest_key)
    materialise(target, key, clones.folder / "there", mode="download")
    assert read_tree(clones.folder / "there") == tree
    assert read_manifest(target, key).snapshot == clones.manifest().snapshot
    assert read_head(target, DATASET) is None
    assert not list(target.list("mirror/"))


def test_what_is_there_is_not_sent_again(clones: Clones, target: DirectoryStore) -> None:
    one = clones["one"]
    one.make(random_tree(1))
    first = one.sync().manifest_key
    one.make({**random_tree(1), "new": b"new"})
    second = one.sync().manifest_key
    copied(clones, target, first)
    before = target.traffic.sent_bytes
    copied(clones, target, second)
    assert 0 < target.traffic.sent_bytes - before < 20_000
    again = target.traffic.sent_bytes
    copied(clones, target, second)
    assert target.traffic.sent_bytes == again


def test_a_mirror_has_no_older_files(clones: Clones, target: DirectoryStore) -> None:
    one = clones["one"]
    one.make({"a": b"old"})
    first = one.sync(layout="mirror").manifest_key
    one.make({"a": b"new"})
    one.sync(layout="mirror")
    with pytest.raises(NotFound, match="newer bytes"):
        copied(clones, target, first)
    assert target.info(first) is None


def test_damage_does_not_travel(clones: Clones, target: DirectoryStore) -> None:
    one = clones["one"]
    one.make(random_tree(1))
    key = one.sync().manifest_key
    pack = next(entry.key for entry in clones.store.list("packs/"))
    path = clones.path(pack)
    path.chmod(0o644)
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(IntegrityError):
        copied(clones, target, key)
    assert target.info(key) is None
