"""What a machine and the store have agreed on survives kills, gc, moved projects and another spelling of the store."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from amlctl.core.events import null_sink
from amlctl.core.store_keys import FORMAT_KEY, head_key
from amlctl.errors import Conflict, IntegrityError, ServiceUnavailable
from amlctl.localfs.database import check_of
from amlctl.mirror.export import PlainFilesUnderWay
from amlctl.operations.store.gc import gc
from amlctl.operations.store.needed import KeepRules
from amlctl.snapshots.heads import read_head
from amlctl.snapshots.store_format import find_store_id
from amlctl.stores.directory import DirectoryStore
from tests.support.clock import YEAR_LATER
from tests.support.clones import DATASET, Clone, Clones
from tests.support.faulty_store import Call, FaultyStore
from tests.support.trees import Tree, write_tree

BEFORE: Tree = {"a": b"1", "d/b": b"2", "d/c": b"3", "gone/x": b"4", "kind": b"5", "large": b"6" * 5_000, "same": b"7"}
AFTER: Tree = {
    "a": b"new 1",
    "d/b": b"new 2",
    "d/c": b"3",
    "kind/y": b"8",
    "large": b"9" * 5_001,
    "new/z": b"10",
    "same": b"7",
}


class Killed(BaseException):
    """As if the process had ended here: nothing catches it."""


@pytest.fixture
def clones(tmp_path: Path) -> Clones:
    return Clones(tmp_path)


def _stopped_at(number: int, error: type[BaseException], *, after: bool = False) -> Callable[[Call], None]:
    def act(call: Call) -> None:
        if call.number == number and call.is_done == after:
            raise error("stopped here")

    return act


def _broken_off(clone: Clone, number: int, error: type[BaseException], operation: Callable[[], object]) -> bool:
    """Whether the operation got as far as call `number` of the store, and ended there."""
    store = clone.store
    clone.store = FaultyStore(store, _stopped_at(number, error), is_remote=True)
    try:
        operation()
    except (Killed, ServiceUnavailable):
        return True
    finally:
        clone.store = store
    return False


def _behind(folder: Path) -> tuple[Clones, Clone, Clone]:
    """`two` has BEFORE, the store and `one` have AFTER."""
    clones = Clones(folder)
    one, two = clones["one"], clones["two"]
    one.make(BEFORE)
    one.sync()
    two.pull()
    one.make(AFTER)
    one.sync()
    return clones, one, two


@pytest.mark.parametrize("error", [Killed, ServiceUnavailable])
def test_a_pull_that_breaks_off_anywhere_is_finished_by_the_next(tmp_path: Path, error: type[BaseException]) -> None:
    for number in range(1, 50):
        _, one, two = _behind(tmp_path / str(number))
        if not _broken_off(two, number, error, two.pull):
            break
        one.make({**AFTER, "a": b"newest", "same": b"7"})
        one.sync()
        two.pull()
        assert two.tree == one.tree, number
        assert not two.status().new
    assert number > 5


def test_a_sync_after_a_pull_that_broke_off_changes_nothing_in_the_store(tmp_path: Path) -> None:
    for number in range(1, 50):
        clones, one, two = _behind(tmp_path / str(number))
        if not _broken_off(two, number, Killed, two.pull):
            break
        back = {**AFTER, "a": b"1", "d/b": b"2"}
        del back["new/z"]
        one.make(back)
        one.sync()
        two.sync()
        assert clones.stored() == back, number
        two.pull()
        assert two.tree == back, number
    assert number > 5


def test_edits_beside_a_pull_that_broke_off_stay_edits(tmp_path: Path) -> None:
    clones, _, two = _behind(tmp_path)
    write_tree(two.root, {"same": b"edited before"})
    assert _broken_off(two, 6, Killed, two.pull)
    write_tree(two.root, {"mine": b"made after"})
    two.pull()
    assert two.tree == {**AFTER, "same": b"edited before", "mine": b"made after"}
    two.sync()
    assert clones.stored() == two.tree


def test_a_folder_that_was_gone_comes_back_in_several_pulls(tmp_path: Path) -> None:
    for number in range(1, 50):
        clones = Clones(tmp_path / str(number))
        one = clones["one"]
        one.make(AFTER)
        one.sync()
        shutil.rmtree(one.root)
        if not _broken_off(one, number, Killed, one.pull):
            break
        if one.root.exists():
            one.sync()
        assert clones.stored() == AFTER, number
        one.pull()
        assert one.tree == AFTER, number
    assert number > 4


def test_going_back_to_a_snapshot_that_breaks_off_is_neutral(tmp_path: Path) -> None:
    for number in range(1, 50):
        clones, _, two = _behind(tmp_path / str(number))
        two.pull()
        first = sorted(clones.store.list(f"datasets/{DATASET}/"), key=lambda entry: entry.modified_at)[0]
        snapshot = first.key.rpartition("/")[2].partition("-")[0]
        if not _broken_off(two, number, Killed, lambda: two.pull(snapshot=snapshot)):  # noqa: B023
            break
        two.sync()
        assert clones.stored() == AFTER, number
        two.pull()
        assert two.tree == AFTER, number
    assert number > 5


@pytest.mark.parametrize("after", [False, True])
def test_a_kill_around_the_commit_neither_undoes_nor_brings_back(tmp_path: Path, after: bool) -> None:
    """HEAD has moved and the base was not recorded, or neither of them has come to pass."""
    clones = Clones(tmp_path)
    one, two = clones["one"], clones["two"]
    one.make(BEFORE)
    one.sync()
    two.pull()
    write_tree(one.root, {"added": b"by one", "a": b"edited by one"})

    def act(call: Call) -> None:
        if call.method == "swap" and call.key.endswith("HEAD") and call.is_done == after:
            raise Killed

    one.store = FaultyStore(clones.store, act)
    with pytest.raises(Killed):
        one.sync()
    one.store = clones.store
    if after:
        two.pull()
        (two.root / "added").unlink()
        write_tree(two.root, {"a": b"edited by two, later"})
        two.sync()
        one.sync()
        expected = {**BEFORE, "a": b"edited by two, later"}
    else:
        write_tree(two.root, {"same": b"edited by two"})
        two.sync()
        one.sync()
        expected = {**BEFORE, "added": b"by one", "a": b"edited by one", "same": b"edited by two"}
    assert clones.stored() == expected
    one.pull()
    assert one.tree == expected


@pytest.mark.parametrize("layout", ["pack", "mirror"])
def test_an_untouched_clone_follows_after_a_gc_has_taken_its_base(clones: Clones, layout: str) -> None:
    one, two = clones["one"], clones["two"]
    one.make(BEFORE)
    one.sync(layout=layout)
    two.pull()
    (one.root / "d/b").unlink()
    for number in range(12):
        write_tree(one.root, {"a": b"%d" % number})
        one.sync()
    gc(clones.store, KeepRules(YEAR_LATER), delete=True, sink=lambda event: None)
    assert not two.status().modified
    two.sync()
    assert clones.stored() == one.tree
    two.pull()
    assert two.tree == one.tree


def _moved(clones: Clones) -> Clone:
    (clones.folder / "one").rename(clones.folder / "elsewhere")
    return Clone(clones.folder / "elsewhere", clones.store)


def _linked(clones: Clones) -> Clone:
    (clones.folder / "link").symlink_to(clones.folder / "store")
    return Clone(clones.folder / "one", DirectoryStore(clones.folder / "link"))


def _store_moved(clones: Clones) -> Clone:
    (clones.folder / "store").rename(clones.folder / "store2")
    clones.store = DirectoryStore(clones.folder / "store2")
    return Clone(clones.folder / "one", clones.store)


@pytest.mark.parametrize("move", [_moved, _linked, _store_moved])
def test_the_base_goes_by_the_store_not_by_its_spelling(clones: Clones, move: Callable[[Clones], Clone]) -> None:
    one = clones["one"]
    one.make(BEFORE)
    one.sync()
    moved = move(clones)
    write_tree(moved.root, {"a": b"edited"})
    (moved.root / "d/b").unlink()
    moved.sync()
    expected = {**BEFORE, "a": b"edited"}
    del expected["d/b"]
    assert clones.stored() == expected


def test_bases_of_an_older_version_are_kept(clones: Clones) -> None:
    one, two = clones["one"], clones["two"]
    one.make(BEFORE)
    first = one.sync()
    (one.project.state_dir / "sync_state.sqlite").unlink()
    shutil.rmtree(one.project.state_dir / "agreed")
    row = (one.store.url, os.fsencode(DATASET), first.snapshot, first.manifest_key, b"")
    with sqlite3.connect(one.project.state_dir / "sync_state.sqlite") as database:
        database.executescript(
            """
            CREATE TABLE base (store TEXT, dataset BLOB, snapshot TEXT, manifest_key TEXT, section BLOB, row_check BLOB,
                               PRIMARY KEY (store, dataset)) WITHOUT ROWID;
            CREATE TABLE pack (store TEXT, pack TEXT, size_bytes INTEGER, members BLOB, row_check BLOB,
                               PRIMARY KEY (store, pack));
            PRAGMA user_version = 4;
            """
        )
        database.execute("INSERT INTO base VALUES (?, ?, ?, ?, ?, ?)", (*row, check_of(row)))
    two.pull()
    write_tree(two.root, {"same": b"by two"})
    two.sync()
    (one.root / "d/b").unlink()
    one.sync()
    assert clones.stored() == {**{path: data for path, data in BEFORE.items() if path != "d/b"}, "same": b"by two"}


def _back_to_format_1(clones: Clones) -> None:
    """The store as it was before stores had ids."""
    head = read_head(clones.store, DATASET)
    assert head is not None
    document = {"format": 1, "snapshot": head.snapshot, "manifest": head.manifest_key, "layout": head.layout}
    clones.store.put(head_key(DATASET), (json.dumps(document) + "\n").encode(), replace=True)
    clones.store.put(FORMAT_KEY, b'{"format": 1}\n', replace=True)


def test_what_is_kept_of_a_store_stays_when_the_store_gets_its_id(clones: Clones) -> None:
    one, two, three = clones["one"], clones["two"], clones["three"]
    one.make(BEFORE)
    one.sync()
    _back_to_format_1(clones)
    one.pull()
    two.pull()
    assert _broken_off(three, 6, Killed, three.pull)
    PlainFilesUnderWay(two.project.state_dir, clones.store.url, DATASET).begin(["in doubt"])
    (one.root / "d/b").unlink()
    for number in range(12):
        write_tree(one.root, {"a": b"%d" % number})
        one.sync()
    gc(clones.store, KeepRules(YEAR_LATER), delete=True, sink=lambda event: None)
    for behind in (two, three):
        assert not behind.status().modified
        behind.pull()
        assert behind.tree == one.tree
    store_id = find_store_id(clones.store)
    assert PlainFilesUnderWay(two.project.state_dir, store_id, DATASET).paths() == {"in doubt"}


def test_a_store_restored_from_a_backup_gets_back_what_it_lost(clones: Clones) -> None:
    one = clones["one"]
    one.make(BEFORE)
    one.sync()
    shutil.copytree(clones.folder / "store", clones.folder / "backup", copy_function=shutil.copy2)
    one.make(AFTER)
    one.sync()
    shutil.rmtree(clones.folder / "store")
    (clones.folder / "backup").rename(clones.folder / "store")
    one.pull()
    assert one.tree == AFTER
    assert any("was it restored?" in message for message in one.messages)
    one.sync()
    assert clones.stored() == AFTER


def test_two_copies_of_a_store_that_went_different_ways_delete_nothing_of_each_other(clones: Clones) -> None:
    one = clones["one"]
    one.make(BEFORE)
    one.sync()
    shutil.copytree(clones.folder / "store", clones.folder / "copy", copy_function=shutil.copy2)
    copy = Clones(clones.folder / "other")
    copy.store = DirectoryStore(clones.folder / "copy")
    two = copy["two"]
    two.pull()
    for number in range(3):
        write_tree(two.root, {f"two {number}": b"2"})
        two.sync()
    write_tree(one.root, {"one": b"1"})
    one.sync()
    one.store = copy.store
    one.sync()
    assert copy.stored() == {**BEFORE, "one": b"1", **{f"two {number}": b"2" for number in range(3)}}
    assert any("is it a copy?" in message for message in one.messages)


def test_a_sync_that_breaks_off_keeps_what_was_agreed(tmp_path: Path) -> None:
    for number in range(1, 60):
        clones, one, two = _behind(tmp_path / str(number))
        two.pull()
        write_tree(two.root, {"a": b"by two", "mine": b"x"})
        (two.root / "same").unlink()
        if not _broken_off(two, number, Killed, two.sync):
            break
        write_tree(one.root, {"d/c": b"by one"})
        one.sync()
        two.sync()
        expected = {**AFTER, "a": b"by two", "mine": b"x", "d/c": b"by one"}
        del expected["same"]
        assert clones.stored() == expected, number
    assert number > 5


def test_a_real_conflict_stays_one_after_a_pull_that_broke_off(tmp_path: Path) -> None:
    _, one, two = _behind(tmp_path)
    write_tree(two.root, {"a": b"edited by two"})
    with pytest.raises(Conflict):
        two.pull()
    assert _broken_off(two, 6, Killed, lambda: two.pull(theirs=True))
    write_tree(two.root, {"d/c": b"edited by two"})
    write_tree(one.root, {"d/c": b"edited by one"})
    one.sync()
    with pytest.raises(Conflict) as caught:
        two.pull()
    assert "d/c" in caught.value.details


def _left(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".amlctl-tmp-*")]


@pytest.mark.parametrize("finish", ["pull", "sync"])
def test_the_next_command_sweeps_what_a_killed_pull_has_left(tmp_path: Path, finish: str) -> None:
    """In a process of its own, which is killed while a large file is under its temporary name."""
    clones = Clones(tmp_path)
    one = clones["one"]
    one.make({"d/large": bytes(20 << 20), "small": b"1"})
    one.sync()
    program = """
import os, signal, sys
from pathlib import Path
from amlctl.localfs.project import Project
from amlctl.stores.directory import DirectoryStore
from tests.support.clones import Clone
from tests.support.faulty_store import FaultyStore

def act(call):
    if call.method == "download" and call.is_done:
        os.kill(os.getpid(), signal.SIGKILL)

store = FaultyStore(DirectoryStore(Path(sys.argv[2])), act, is_remote=True)
Clone(Path(sys.argv[1]), store).pull()
"""
    folder = tmp_path / "two"
    killed = subprocess.run([sys.executable, "-c", program, str(folder), clones.store.url], check=False)
    assert killed.returncode == -9
    two = clones["two"]
    assert _left(two.root)
    write_tree(one.root, {"d/large": b"small now"})
    one.sync()
    (two.pull if finish == "pull" else two.sync)()
    assert _left(two.project.root) == []


def test_theirs_of_a_mirror_after_a_sync_from_here_broke_off(tmp_path: Path) -> None:
    clones = Clones(tmp_path)
    one, two = clones["one"], clones["two"]
    one.make(BEFORE)
    one.sync(layout="mirror")
    two.pull()
    write_tree(one.root, {"a": b"by one"})

    def act(call: Call) -> None:
        if call.method == "put" and call.key.endswith("/a") and call.is_done:
            raise Killed

    one.store = FaultyStore(clones.store, act)
    with pytest.raises(Killed):
        one.sync()
    one.store = clones.store
    write_tree(two.root, {"a": b"by two"})
    two.sync()
    with pytest.raises(Conflict):
        one.sync()
    one.sync(theirs=True)
    assert clones.stored() == {**BEFORE, "a": b"by two"}
    one.pull()
    assert one.tree == clones.stored()


@pytest.mark.parametrize("is_fenced", [False, True])
def test_a_head_that_was_lost_is_not_replaced_by_what_a_stale_clone_has(tmp_path: Path, is_fenced: bool) -> None:
    """Nor where a gc has put a fence in its place."""
    clones = Clones(tmp_path)
    one, two = clones["one"], clones["two"]
    one.make(BEFORE)
    one.sync()
    two.pull()
    write_tree(one.root, {"a": b"newer, by one"})
    one.sync()
    clones.store.delete(head_key(DATASET))
    if is_fenced:
        gc(clones.store, KeepRules(YEAR_LATER), delete=True, sink=null_sink)
    for command in (two.sync, two.pull, two.status):
        with pytest.raises(IntegrityError, match="but no HEAD"):
            command()
    two.sync(repair=True)
    assert clones.stored() == {**BEFORE, "a": b"newer, by one"}
    one.pull()
    assert one.tree == clones.stored()
