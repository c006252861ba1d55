"""Deletions that look like a slip are confirmed first, and so is what `--force` takes from others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from amlctl.errors import Conflict, NeedsConfirmation
from tests.support.clones import DATASET, Clones
from tests.support.trees import Tree, write_tree

MANY: Tree = {f"d/f{number}": b"%d" % number for number in range(30)}


@pytest.fixture
def clones(tmp_path: Path) -> Clones:
    return Clones(tmp_path)


def test_an_emptied_folder_does_not_empty_the_store(clones: Clones) -> None:
    one = clones["one"]
    one.make(MANY)
    one.sync()
    one.make({})
    with pytest.raises(
        NeedsConfirmation, match="30 files of 30 would be deleted from working/x in the store"
    ) as caught:
        one.sync()
    assert caught.value.hint.endswith(f"amlctl sync data_blobs/{DATASET} --yes")
    assert len(caught.value.details) == 30
    assert clones.stored() == MANY
    assert one.foresee().deleted == 30
    one.sync(yes=True)
    assert clones.stored() == {}


def test_a_new_ignore_rule_does_not_empty_the_store(clones: Clones) -> None:
    one = clones["one"]
    one.make(MANY)
    one.sync()
    write_tree(one.root, {".amlctlignore": b"d/\n"})
    with pytest.raises(NeedsConfirmation):
        one.sync()


def test_going_back_says_how_edits_are_kept_or_dropped(clones: Clones) -> None:
    one = clones["one"]
    one.make({"a": b"1"})
    first = one.sync().snapshot
    one.make({"a": b"22"})
    one.sync()
    one.make({"a": b"333"})
    with pytest.raises(Conflict, match="1 file of working/x changed here since the last sync") as caught:
        one.pull(snapshot=first)
    path = f"data_blobs/{DATASET}"
    assert caught.value.hint == (
        f"amlctl sync {path} keeps them in a snapshot; to drop them: "
        f"amlctl sync --pull --theirs --snapshot {first[:12]} {path}"
    )
    one.pull(snapshot=first, theirs=True)
    assert one.tree == {"a": b"1"}


def test_a_pull_does_not_empty_the_folder(clones: Clones) -> None:
    one, two = clones["one"], clones["two"]
    one.make(MANY)
    first = one.sync().snapshot
    two.pull()
    one.make({"other": b"x"})
    one.sync(yes=True)
    with pytest.raises(NeedsConfirmation, match=f"would be deleted from data_blobs/{DATASET}"):
        two.pull()
    assert two.tree == MANY
    two.pull(yes=True)
    assert two.tree == {"other": b"x"}
    two.pull(snapshot=first)
    assert two.tree == MANY


@pytest.mark.parametrize(("files", "kept"), [(30, 15), (10, 0)])
def test_half_of_a_dataset_and_ten_files_may_go(clones: Clones, files: int, kept: int) -> None:
    tree = dict(list(MANY.items())[:files])
    one, two = clones["one"], clones["two"]
    one.make({**tree})
    one.sync()
    two.pull()
    left = dict(list(tree.items())[:kept])
    one.make(left)
    one.sync()
    two.pull()
    assert two.tree == left


def test_a_renamed_folder_is_not_a_deletion(clones: Clones) -> None:
    one, two = clones["one"], clones["two"]
    one.make(MANY)
    one.sync()
    two.pull()
    (one.root / "d").rename(one.root / "renamed")
    one.sync()
    two.pull()
    assert two.tree == {path.replace("d/", "renamed/"): data for path, data in MANY.items()}


def test_ours_decides_conflicts_only(clones: Clones) -> None:
    one, two = clones["one"], clones["two"]
    one.make({"a": b"1", "b": b"2", "c": b"3"})
    one.sync()
    two.pull()
    one.make({"a": b"by one", "b": b"by one", "new": b"by one"})
    one.sync()
    write_tree(two.root, {"a": b"by two"})
    result = two.sync(ours=True)
    assert clones.stored() == {"a": b"by two", "b": b"by one", "new": b"by one"}
    assert result.not_here == 3
    two.pull()
    assert two.tree == clones.stored()


def test_force_lists_what_others_would_lose(clones: Clones) -> None:
    one, two = clones["one"], clones["two"]
    one.make({"a": b"1", "b": b"2", "c": b"3"})
    one.sync()
    two.pull()
    one.make({"a": b"by one", "b": b"2", "new": b"by one"})
    one.sync()
    write_tree(two.root, {"b": b"by two"})
    with pytest.raises(NeedsConfirmation, match="from other machines") as caught:
        two.sync(force=True)
    assert caught.value.details == ("a", "new")
    assert "--force" in caught.value.hint
    two.sync(force=True, yes=True)
    assert clones.stored() == {"a": b"1", "b": b"by two", "c": b"3"}


def test_force_asks_nothing_where_others_lose_nothing(clones: Clones) -> None:
    one = clones["one"]
    one.make({"a": b"1", "b": b"2"})
    one.sync()
    one.make({"a": b"3"})
    one.sync(force=True)
    assert clones.stored() == {"a": b"3"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"repair": True}, "--repair"),
        ({"layout": "mirror", "delete": True}, "--layout mirror --delete"),
        ({"ours": True}, "--ours"),
        ({"force": True}, "--force"),
    ],
)
def test_the_hint_repeats_what_was_asked_for(clones: Clones, options: dict[str, Any], words: str) -> None:
    one = clones["one"]
    one.make(MANY)
    one.sync()
    one.make({})
    with pytest.raises(NeedsConfirmation) as caught:
        one.sync(**options)
    assert caught.value.hint.endswith(f"amlctl sync {words} data_blobs/{DATASET} --yes")


def test_the_hint_of_a_conflict_repeats_what_was_asked_for(clones: Clones) -> None:
    one, two = clones["one"], clones["two"]
    one.make({"a": b"1"})
    one.sync()
    two.make({"a": b"2"})
    with pytest.raises(Conflict) as caught:
        two.sync(layout="pack", repair=True)
    assert f"amlctl sync --layout pack --repair --ours data_blobs/{DATASET} " in caught.value.hint
