"""The layout `mirror`: plain files under their own names, the newest bytes only."""

from __future__ import annotations

from pathlib import Path

import pytest

from amlctl.errors import CheckFailed, IntegrityError, NotFound
from tests.support.clones import DATASET, Clone, Clones, random_tree
from tests.support.trees import read_tree


@pytest.fixture
def clones(tmp_path: Path) -> Clones:
    return Clones(tmp_path)


@pytest.fixture
def one(clones: Clones) -> Clone:
    return clones["one"]


def _mirror(clones: Clones) -> Path:
    return Path(clones.store.url) / "mirror" / DATASET


def test_files_stand_under_their_own_names(clones: Clones, one: Clone) -> None:
    tree = random_tree(1) | {"empty": b""}
    one.make(tree)
    one.sync(layout="mirror")
    assert read_tree(_mirror(clones)) == tree
    assert clones.stored() == tree


def test_what_is_gone_here_stays_there_until_delete(clones: Clones, one: Clone) -> None:
    tree = random_tree(1)
    one.make(tree)
    one.sync(layout="mirror")
    (one.root / "d1/f1").unlink()
    one.sync()
    assert read_tree(_mirror(clones)) == tree
    assert clones.stored() == one.tree
    one.sync(delete=True)
    assert read_tree(_mirror(clones)) == one.tree


def test_delete_stops_at_a_tenth_unless_it_is_meant(clones: Clones, one: Clone) -> None:
    tree = random_tree(1)
    one.make(tree)
    one.sync(layout="mirror")
    for path in sorted(tree)[:7]:
        (one.root / path).unlink()
    with pytest.raises(CheckFailed, match="7 of 60") as caught:
        one.sync(delete=True)
    assert "--yes" in caught.value.hint
    assert read_tree(_mirror(clones)) == tree
    one.sync(delete=True, yes=True)
    assert read_tree(_mirror(clones)) == one.tree


def test_delete_leaves_the_datasets_inside_alone(clones: Clones, one: Clone) -> None:
    inner = f"{DATASET}/inner"
    one.make(random_tree(1))
    one.make({"a": b"1"}, inner)
    one.sync(inner, layout="mirror")
    two = clones["two"]
    two.make(random_tree(1))
    two.sync(layout="mirror", delete=True)
    assert clones.stored(inner) == {"a": b"1"}


def test_an_older_snapshot_is_gone(clones: Clones, one: Clone) -> None:
    one.make({"changed": b"old", "same": b"same"})
    old = one.sync(layout="mirror")
    (one.root / "changed").write_bytes(b"new")
    one.sync()
    two = clones["two"]
    two.make({})
    with pytest.raises(NotFound, match="newest") as caught:
        two.pull(snapshot=old.snapshot)
    assert caught.value.details == ("changed",)
    assert two.tree == {}


def test_an_older_snapshot_that_was_packed_once_is_still_there(clones: Clones, one: Clone) -> None:
    one.make({"changed": b"old", "same": b"same"})
    old = one.sync()
    one.sync(layout="mirror")
    (one.root / "changed").write_bytes(b"new")
    one.sync()
    clones["two"].pull(snapshot=old.snapshot)
    assert clones["two"].tree == {"changed": b"old", "same": b"same"}


@pytest.mark.parametrize("harm", ["flip", "delete"])
def test_damage_at_head_is_told_and_repaired(clones: Clones, one: Clone, harm: str) -> None:
    tree = random_tree(1)
    one.make(tree)
    one.sync(layout="mirror")
    victim = _mirror(clones) / "d1/f1"
    if harm == "flip":
        victim.write_bytes(b"not this")
    else:
        victim.unlink()
    with pytest.raises(IntegrityError if harm == "flip" else NotFound):
        clones.stored()
    with pytest.raises(IntegrityError) as caught:
        one.sync(verify=True)
    assert caught.value.details == ("d1/f1",)
    one.sync(repair=True)
    assert read_tree(_mirror(clones)) == tree
