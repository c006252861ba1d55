"""What a sync asks the store about contents that HEAD does not hold: only what it wants, and each thing once."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from amlctl.core.content_id import content_id
from amlctl.core.manifest import Kind
from tests.support.clones import DATASET, Clone, Clones, random_tree
from tests.support.faulty_store import FaultyStore
from tests.support.trees import Tree


@pytest.fixture
def clones(tmp_path: Path) -> Clones:
    return Clones(tmp_path)


@pytest.fixture
def one(clones: Clones) -> Clone:
    """Has several packs, some of which HEAD does not name any more."""
    one = clones["one"]
    one.make(random_tree(1))
    one.sync()
    one.make(random_tree(2))
    one.sync()
    assert len(clones.stored_keys("packs/")) > 6
    return one


def _asked(clone: Clone) -> Counter[str]:
    """Keys of packs and objects that a sync asks about, and how often."""
    store = FaultyStore(clone.store, lambda call: None)
    plain, clone.store = clone.store, store
    clone.sync()
    clone.store = plain
    return Counter(c.key for c in store.calls if c.method == "info" and c.key.startswith(("packs/", "objects/")))


def _small(tree: Tree, count: int) -> Tree:
    return {f"again/{path}": data for path, data in [*tree.items()][:count] if len(data) < 4_000}


def test_without_a_change_nothing_is_asked(one: Clone) -> None:
    assert not _asked(one)


def test_new_bytes_ask_for_no_known_pack(one: Clone) -> None:
    one.make(random_tree(2) | {"d1/f1": b"changed", "d9/new": b"new"})
    assert not _asked(one)


def test_only_packs_with_wanted_contents_are_asked_for_once(clones: Clones, one: Clone) -> None:
    packs = clones.stored_keys("packs/")
    reused = _small(random_tree(1), 3)
    one.make(random_tree(2) | reused)
    before = clones.sizes("packs/")
    asked = _asked(one)
    # Once to find them; once more at the end, since a gc may have been faster.
    assert 1 <= len(asked) <= len(reused) < len(packs)
    assert max(asked.values()) <= 2
    assert clones.sizes("packs/") == before
    assert clones.stored() == one.tree


def test_a_known_pack_that_is_gone_is_not_relied_on(clones: Clones, one: Clone) -> None:
    live = {place.pack for place in clones.manifest().places.values() if place.kind is Kind.PACK}
    for key in clones.stored_keys("packs/"):
        if Path(key).stem not in live:
            clones.store.delete(key)
    one.make(random_tree(2) | _small(random_tree(1), 60))
    assert _asked(one)
    assert clones.stored() == one.tree


def test_much_that_arrives_is_looked_for_in_other_datasets(clones: Clones, one: Clone) -> None:
    large = random.Random(9).randbytes(17 << 20)
    two = clones["two"]
    two.make({"large": large, **random_tree(3)}, "working/other")
    two.sync("working/other")
    before = clones.sizes("packs/") | clones.sizes("objects/")
    one.make(random_tree(2) | {"copied/large": large} | {f"copied/{p}": d for p, d in random_tree(3).items()})
    Clone(one.project.root, clones.store).sync()  # another command: one reads other datasets once
    assert clones.sizes("packs/") | clones.sizes("objects/") == before
    assert f"objects/{content_id(large)[:2]}/{content_id(large)}" in before
    assert clones.stored(DATASET) == one.tree
