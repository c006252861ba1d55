"""Mirrors inside one another: two of them never write the same plain file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from amlctl.errors import Conflict
from amlctl.runs.produced import Publisher, make_newest
from amlctl.snapshots.heads import read_head
from amlctl.stores.directory import DirectoryStore
from tests.support.clones import Clone, Clones
from tests.support.faulty_store import FaultyStore
from tests.support.trees import Tree, read_tree

OUTER, INNER = "working/a", "working/a/b"
TREE: Tree = {"x": b"outer", "b/y": b"inner"}


@pytest.fixture
def clones(tmp_path: Path) -> Clones:
    return Clones(tmp_path)


@pytest.fixture
def one(clones: Clones) -> Clone:
    one = clones["one"]
    one.make(TREE, OUTER)
    return one


def _watched(one: Clone) -> tuple[Clone, FaultyStore]:
    store = FaultyStore(one.store, lambda call: None)
    return Clone(one.project.root, store), store


@pytest.mark.parametrize(("first", "second"), [(INNER, OUTER), (OUTER, INNER), ("working/a/x", OUTER)])
@pytest.mark.parametrize("act", [Clone.sync, Clone.foresee])
def test_the_second_is_refused_before_anything_is_sent(
    clones: Clones, one: Clone, first: str, second: str, act: Callable[..., object]
) -> None:
    one.sync(first, layout="mirror")
    before = clones.sizes()
    watched, store = _watched(one)
    with pytest.raises(Conflict, match=f"mirror {first} ") as caught:
        act(watched, second, layout="mirror")
    assert ".amlctlignore" in caught.value.hint
    assert "--layout pack" in caught.value.hint
    assert clones.sizes() == before
    assert {call.method for call in store.calls} <= {"get", "get_versioned", "list"}


def test_the_hint_helps(clones: Clones, one: Clone) -> None:
    one.sync(INNER, layout="mirror")
    with pytest.raises(Conflict, match=INNER):
        one.sync(OUTER, layout="mirror")
    (one.project.dataset_path(OUTER) / ".amlctlignore").write_text("/b\n")
    one.sync(OUTER, layout="mirror")
    one.sync(INNER, layout="mirror")
    assert "b/y" not in (clones.stored(OUTER) or {})
    assert clones.stored(INNER) == {"y": b"inner"}


def test_as_packs_it_may_stand_inside(clones: Clones, one: Clone) -> None:
    one.sync(INNER, layout="pack")
    one.sync(OUTER, layout="mirror")
    (one.project.dataset_path(INNER) / "y").write_bytes(b"changed")
    one.sync(INNER)
    one.sync(OUTER)
    assert clones.stored(OUTER) == {"x": b"outer", "b/y": b"changed"}
    assert clones.stored(INNER) == {"y": b"changed"}


def test_without_common_files_both_may_be_mirrors(clones: Clones, one: Clone) -> None:
    one.sync(INNER, layout="mirror")
    two = clones["two"]
    two.make({"x": b"outer", "bb": b"beside", "b/": b""}, OUTER)
    two.sync(OUTER, layout="mirror")
    one.make({"y": b"changed"}, INNER)
    one.sync(INNER)
    assert clones.stored(INNER) == {"y": b"changed"}


def test_it_costs_nothing_where_nothing_changed(one: Clone) -> None:
    one.sync(OUTER, layout="mirror")
    watched, store = _watched(one)
    watched.sync(OUTER)
    assert [(call.method, call.key) for call in store.calls] == [("get_versioned", f"datasets/{OUTER}/HEAD")]


class TestThatExistAlready:
    """A store that an earlier amlctl has written."""

    @pytest.fixture
    def store(self, clones: Clones, one: Clone) -> DirectoryStore:
        for dataset in (OUTER, INNER):
            other = DirectoryStore(clones.folder / "apart" / dataset.replace("/", "-"))
            Clone(one.project.root, other).sync(dataset, layout="mirror")
            for entry in other.list(""):
                clones.store.put(entry.key, other.get(entry.key), replace=True)
        return clones.store

    def test_both_come_back(self, clones: Clones, store: DirectoryStore) -> None:
        assert clones.stored(OUTER) == TREE
        assert clones.stored(INNER) == {"y": b"inner"}

    @pytest.mark.parametrize("dataset", [OUTER, INNER])
    def test_neither_damages_the_other(self, clones: Clones, store: DirectoryStore, one: Clone, dataset: str) -> None:
        one.make({"x": b"outer", "b/new": b"new"}, OUTER)
        with pytest.raises(Conflict, match="mirror"):
            one.sync(dataset, layout="mirror", ours=True, delete=True, yes=True)
        assert clones.stored(OUTER) == TREE
        assert clones.stored(INNER) == {"y": b"inner"}

    def test_a_run_that_produces_one_writes_packs(self, clones: Clones, store: DirectoryStore, tmp_path: Path) -> None:
        head = read_head(store, INNER)
        assert head is not None
        produced = tmp_path / "produced"
        produced.mkdir()
        (produced / "y").write_bytes(b"produced")
        published = Publisher(store, produced, INNER, base_key=head.manifest_key).publish()
        assert read_tree(Path(store.url) / "mirror" / OUTER) == TREE
        make_newest(store, INNER, published.manifest_key, head.manifest_key)
        assert clones.stored(INNER) == {"y": b"produced"}
