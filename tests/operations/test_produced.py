"""What a run produces becomes the newest snapshot without taking away what others have synced meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from amlctl.errors import Conflict
from amlctl.transfer.heads import read_head
from amlctl.transfer.produced import make_newest
from amlctl.transfer.publish import publish
from tests.support.clones import DATASET, Clone, Clones, random_tree
from tests.support.trees import Tree, write_tree


@pytest.fixture
def clones(tmp_path: Path) -> Clones:
    return Clones(tmp_path)


def _head_key(clones: Clones) -> str | None:
    head = read_head(clones.store, DATASET)
    return None if head is None else head.manifest_key


def _publish(clones: Clones, tree: Tree) -> str:
    """As a run does it; the key of the manifest."""
    folder = clones.folder / "container"
    write_tree(folder, tree)
    return publish(clones.store, folder, DATASET).manifest_key


def _synced(clone: Clone, tree: Tree) -> None:
    clone.make(tree)
    clone.sync()


def test_the_first_snapshot(clones: Clones) -> None:
    tree = random_tree(1, 20)
    make_newest(clones.store, DATASET, _publish(clones, tree), None)
    assert clones.stored() == tree


def test_a_head_that_stood_still_is_replaced(clones: Clones) -> None:
    _synced(clones["one"], random_tree(1, 20))
    base = _head_key(clones)
    tree = random_tree(2, 10)
    make_newest(clones.store, DATASET, _publish(clones, tree), base)
    assert clones.stored() == tree


@pytest.mark.parametrize("had_head", [True, False])
def test_what_others_have_synced_meanwhile_stays(clones: Clones, had_head: bool) -> None:
    before: Tree = {}
    if had_head:
        before = random_tree(1, 20)
        _synced(clones["one"], before)
    base = _head_key(clones)
    _synced(clones["one"], {**before, "theirs": b"theirs" * 100})
    produced = {**before, "ours": b"ours" * 100}
    snapshot = make_newest(clones.store, DATASET, _publish(clones, produced), base)
    assert clones.stored() == {**before, "theirs": b"theirs" * 100, "ours": b"ours" * 100}
    assert clones.manifest().snapshot == snapshot


def test_the_same_file_changed_on_both_sides_leaves_head_alone(clones: Clones) -> None:
    before = random_tree(1, 20)
    _synced(clones["one"], before)
    base = _head_key(clones)
    theirs = {**before, "d1/f1": b"theirs"}
    _synced(clones["one"], theirs)
    ours = {**before, "d1/f1": b"ours"}
    key = _publish(clones, ours)
    with pytest.raises(Conflict) as caught:
        make_newest(clones.store, DATASET, key, base)
    assert caught.value.details == ("d1/f1",)
    assert clones.stored() == theirs
    snapshot = key.rpartition("/")[2].partition("-")[0]
    assert snapshot in caught.value.message
    clones["two"].pull(snapshot=snapshot)
    assert clones["two"].tree == ours
