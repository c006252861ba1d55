"""What somebody does to a folder while a pull is under way is never overwritten."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from amlctl.errors import Conflict
from tests.support.clones import DATASET, Clone, Clones, random_tree
from tests.support.faulty_store import Call, FaultyStore
from tests.support.trees import Tree, write_tree

Act = Callable[[Path], None]


@pytest.fixture
def clones(tmp_path: Path) -> Clones:
    return Clones(tmp_path)


def _pull_while(clones: Clones, act: Act) -> Clone:
    """Clone two has snapshot 1 and pulls snapshot 2; `act` happens when its first bytes arrive."""
    one, two = clones["one"], clones["two"]
    before = random_tree(1, 20)
    one.make(before)
    one.sync()
    two.pull()
    after = {**before, "d1/f1": b"from one", "d2/new": b"new from one"}
    del after["d3/f3"]
    one.make(after)
    one.sync()
    happened = False

    def act_once(call: Call) -> None:
        nonlocal happened
        if call.method in ("get", "download") and call.key.startswith(("packs/", "objects/")) and not happened:
            happened = True
            act(two.root)

    two.store = FaultyStore(clones.store, act_once, is_remote=True)
    with pytest.raises(Conflict) as caught:
        two.pull()
    assert happened
    two.events.clear()
    assert "again" in caught.value.hint
    two.store = clones.store
    return two


def test_a_file_that_is_edited_during_the_pull_is_kept(clones: Clones) -> None:
    two = _pull_while(clones, lambda root: write_tree(root, {"d1/f1": b"my edit"}))
    assert two.tree["d1/f1"] == b"my edit"
    assert two.tree["d2/new"] == b"new from one"
    with pytest.raises(Conflict) as caught:
        two.pull()
    assert caught.value.details == ("d1/f1",)
    two.pull(theirs=True)
    assert two.tree["d1/f1"] == b"from one"


def test_a_file_that_appears_during_the_pull_is_kept(clones: Clones) -> None:
    two = _pull_while(clones, lambda root: write_tree(root, {"d2/new": b"mine"}))
    assert two.tree["d2/new"] == b"mine"


def test_a_file_that_was_to_go_and_is_edited_stays(clones: Clones) -> None:
    two = _pull_while(clones, lambda root: write_tree(root, {"d3/f3": b"still needed"}))
    assert two.tree["d3/f3"] == b"still needed"


def test_what_a_killed_pull_left_goes_after_a_day(clones: Clones) -> None:
    one, two = clones["one"], clones["two"]
    one.make(random_tree(1, 20))
    one.sync()
    two.make({})
    old, young = two.root / "d1/.amlctl-tmp-old-1", two.root / "d1/.amlctl-tmp-young-1"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"half")
    os.utime(old, (1, 1))
    young.write_bytes(b"half")
    two.pull()
    assert not old.exists()
    assert young.exists()


def _pull_where(clones: Clones, before: Tree, after: Tree, act: Act) -> Clone:
    """Clone two has `before` and pulls `after`; `act` happens after its files were looked at, before any is moved."""
    one, two = clones["one"], clones["two"]
    one.make(before)
    one.sync()
    two.pull()
    one.make(after)
    newest = one.sync().snapshot
    reads = 0

    def act_once(call: Call) -> None:
        """The second time that the manifest is read it is kept, since the pull is about to begin."""
        nonlocal reads
        if call.method == "get" and f"/{newest}-" in call.key and not call.is_done:
            reads += 1
            if reads == 2:
                act(two.root)

    two.store = FaultyStore(clones.store, act_once)
    with pytest.raises(Conflict):
        two.pull()
    assert reads >= 2
    two.store = clones.store
    return two


def test_an_edited_file_where_a_folder_was_to_come_stays(clones: Clones) -> None:
    two = _pull_where(
        clones,
        {"d": b"file", "same": b"1"},
        {"d/x": b"in a folder", "e/y": b"2", "same": b"1"},
        lambda root: write_tree(root, {"d": b"my edit"}),
    )
    assert two.tree == {"d": b"my edit", "e/y": b"2", "same": b"1"}


def test_an_edited_file_in_a_folder_that_was_to_be_a_file_stays(clones: Clones) -> None:
    two = _pull_where(
        clones,
        {"d/x": b"in a folder", "d/y": b"1"},
        {"d": b"file", "e/y": b"2"},
        lambda root: write_tree(root, {"d/x": b"my edit"}),
    )
    assert two.tree == {"d/x": b"my edit", "e/y": b"2"}


@pytest.mark.parametrize("ignored", ["a", "c/ignored"])
def test_an_ignored_file_is_in_the_way(clones: Clones, ignored: str) -> None:
    one, two = clones["one"], clones["two"]
    one.make({"x": b"1", "c/d": b"2"})
    one.sync()
    two.pull()
    one.make({"x": b"1", "a/b": b"2", "c": b"3"})
    one.sync()
    write_tree(two.root, {ignored: b"mine"})
    with pytest.raises(Conflict, match="unsynced") as caught:
        two.pull(ignore=(f"/{DATASET}/a", "ignored"))
    assert caught.value.details == (ignored,)
    assert two.tree == {"x": b"1", "c/d": b"2", ignored: b"mine"}
