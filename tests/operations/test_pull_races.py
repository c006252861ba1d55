"""What somebody does to a folder while a pull is under way is never overwritten."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from amlctl.errors import Conflict
from amlctl.localfs.scan import RACY_NS
from tests.support.clones import DATASET, Clone, Clones, random_tree
from tests.support.faulty_store import Call, FaultyStore
from tests.support.trees import Tree, read_tree, write_tree

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


def _behind_by(clones: Clones, before: Tree, after: Tree) -> Clone:
    """Clone two has `before`, the store has `after`."""
    one, two = clones["one"], clones["two"]
    one.make(before)
    one.sync()
    two.pull()
    one.make(after)
    one.sync()
    return two


def test_a_pull_does_not_write_behind_a_link(clones: Clones, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    write_tree(outside, {"in/a": b"1", "in/b": b"2"})
    two = clones["two"]
    two.make({"own": b"3"})
    (two.root / "link").symlink_to(outside)
    two.sync()
    one = clones["one"]
    one.pull()
    (one.root / "link/in/a").unlink()
    write_tree(one.root, {"link/in/b": b"changed", "own": b"changed"})
    one.sync()
    with pytest.raises(Conflict, match="are links") as caught:
        two.pull()
    assert caught.value.details == (f"link -> {outside}",)
    assert read_tree(outside) == {"in/a": b"1", "in/b": b"2"}
    assert (two.root / "own").read_bytes() == b"3"


def test_a_dataset_may_itself_be_a_link(clones: Clones, tmp_path: Path) -> None:
    one, two = clones["one"], clones["two"]
    one.make({"a": b"1"})
    one.sync()
    (tmp_path / "disk").mkdir()
    two.root.parent.mkdir(parents=True)
    two.root.symlink_to(tmp_path / "disk")
    two.pull()
    assert read_tree(tmp_path / "disk") == {"a": b"1"}


def test_a_dataset_that_was_one_file_becomes_a_folder_and_back(clones: Clones) -> None:
    one, two = clones["one"], clones["two"]
    for clone in (one, two):
        clone.root.parent.mkdir(parents=True)
    one.root.write_bytes(b"one file")
    one.sync()
    two.pull()
    assert two.root.read_bytes() == b"one file"
    one.root.unlink()
    one.make({"in/a": b"a folder"})
    one.sync()
    two.pull()
    assert two.tree == {"in/a": b"a folder"}
    shutil.rmtree(one.root)
    one.root.write_bytes(b"one file again")
    one.sync()
    two.pull()
    assert two.root.read_bytes() == b"one file again"


def test_one_file_and_a_folder_of_the_same_name_are_a_conflict(clones: Clones) -> None:
    one, two = clones["one"], clones["two"]
    one.make({"in/a": b"a folder"})
    one.sync()
    two.root.parent.mkdir(parents=True)
    two.root.write_bytes(b"one file")
    for operation in (two.pull, two.sync):
        with pytest.raises(Conflict):
            operation()
    assert two.root.read_bytes() == b"one file"
    assert clones.stored() == {"in/a": b"a folder"}
    two.pull(theirs=True)
    assert two.tree == {"in/a": b"a folder"}


def test_an_edit_that_keeps_size_and_time_during_a_pull_stays(clones: Clones) -> None:
    def act(root: Path) -> None:
        before = (root / "f").stat()
        (root / "f").write_bytes(b"mine")
        os.utime(root / "f", ns=(before.st_atime_ns, before.st_mtime_ns))

    two = _pull_where(clones, {"f": b"1234", "g": b"1"}, {"f": b"5678", "g": b"2"}, act)
    assert two.tree == {"f": b"mine", "g": b"2"}


def test_an_edit_in_the_moment_of_arrival_is_seen(clones: Clones) -> None:
    """What arrives is older than the coarsest clock of a file system, so that a write in the same tick shows."""
    two = _behind_by(clones, {"f": b"1234", "g": b"1"}, {"f": b"5678", "g": b"9" * 5_000})
    started_ns = time.time_ns()

    def act(call: Call) -> None:
        if call.key.startswith("objects/") and (two.root / "f").read_bytes() == b"5678":
            assert (two.root / "f").stat().st_mtime_ns < started_ns - RACY_NS
            (two.root / "f").write_bytes(b"mine")

    two.store = FaultyStore(clones.store, act, is_remote=True)
    two.pull(jobs=1)
    two.store = clones.store
    assert (two.root / "f").read_bytes() == b"mine"
    assert two.status().modified == ["f"]


def test_what_a_pull_has_written_is_not_read_again(clones: Clones) -> None:
    one, two = clones["one"], clones["two"]
    one.make(random_tree(3, 20))
    one.sync()
    two.pull()
    assert two.sync().hashed_bytes == 0
    write_tree(two.root, {"d1/f1": b"x" * (two.root / "d1/f1").stat().st_size})
    assert two.status().modified == ["d1/f1"]


@pytest.fixture
def deep(clones: Clones) -> Iterator[Clones]:
    """shutil.rmtree, which pytest cleans up with, recurses."""
    yield clones
    subprocess.run(["rm", "-rf", os.fspath(clones.folder)], check=True)


def test_a_folder_a_thousand_deep_comes_back(deep: Clones) -> None:
    one, two = deep["one"], deep["two"]
    one.root.mkdir(parents=True)
    inner = os.fspath(one.root)
    for _ in range(1000):
        inner += "/d"
        os.mkdir(inner)
    Path(inner, "f").write_bytes(b"deep")
    one.sync()
    two.pull()
    there = Path(inner.replace(os.fspath(one.root), os.fspath(two.root)))
    assert (there / "f").read_bytes() == b"deep"
    Path(inner, "f").unlink()
    Path(inner).rmdir()
    Path(inner).write_bytes(b"a file now")
    one.sync()
    two.pull()
    assert there.read_bytes() == b"a file now"


@pytest.mark.skipif(sys.platform != "linux", reason="leases tell of writers on Linux alone")
def test_a_change_through_a_memory_map_that_leaves_no_time_is_seen(clones: Clones) -> None:
    one = clones["one"]
    one.make({"f": bytes(65_536)})
    with (one.root / "f").open("r+b") as file, mmap.mmap(file.fileno(), 65_536) as memory:
        memory[:5] = b"EARLY"
        past_s = time.time() - 60
        os.utime(one.root / "f", (past_s, past_s))
        while time.time_ns() - (one.root / "f").stat().st_ctime_ns < RACY_NS:
            time.sleep(0.05)
        one.sync()
        memory[:5] = b"LATER"
    one.sync()
    stored = clones.stored()
    assert stored is not None
    assert stored["f"][:5] == b"LATER"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"d/e/f": b"1"}, {"d/": b""}),
        ({"d/e/f": b"1", "d/g": b"2"}, {"d/e/": b""}),
        ({"d": b"a file"}, {"d/": b""}),
        ({"d/": b""}, {"d": b"a file"}),
    ],
)
def test_a_path_becomes_an_empty_folder_and_back(clones: Clones, before: Tree, after: Tree) -> None:
    one, two = clones["one"], clones["two"]
    for tree in (before, after, before):
        one.make({**tree, "kept": b"kept"})
        one.sync()
        two.pull()
        assert two.tree == one.tree == {**tree, "kept": b"kept"}
        assert two.sync().uploaded_blobs == 0
        assert one.pull().downloaded_files == 0


def test_an_ignored_file_where_an_empty_folder_is_to_come_stays(clones: Clones) -> None:
    one, two = clones["one"], clones["two"]
    one.make({"a": b"1", ".amlctlignore": b"d.*\n"})
    one.sync()
    two.pull()
    write_tree(two.root, {"d.x": b"mine"})
    one.make({"a": b"1", "d.x/": b""})
    one.sync()
    with pytest.raises(Conflict) as caught:
        two.pull()
    assert list(caught.value.details) == ["d.x"]
    assert (two.root / "d.x").read_bytes() == b"mine"


def _outside(clones: Clones) -> Path:
    outside = clones.folder / "outside"
    write_tree(outside, {"keep": b"of somebody else", "sub/keep": b"too"})
    return outside


def _link_in_place_of(folder: Path, outside: Path) -> None:
    folder.rename(outside.with_name("moved away"))
    folder.symlink_to(outside)


LINKED = {f"d{n}/f{n}": b"%d" % n * 300 for n in range(6)} | {"d1/large": b"x" * 9000, "d1/sub/deep": b"deep"}


@pytest.mark.parametrize("number", range(12))
def test_a_folder_that_becomes_a_link_during_a_pull_is_named_and_nothing_is_written_behind_it(
    clones: Clones, number: int
) -> None:
    """The link is there before, after or between the first reads of bytes: packs, then objects."""
    one, two = clones["one"], clones["two"]
    one.make(LINKED)
    one.sync()
    two.pull()
    one.make({path: data + b" new" for path, data in LINKED.items()} | {"d1/sub/other/new": b"new", "d2/new": b"new"})
    one.sync()
    outside = _outside(clones)
    before = read_tree(outside)
    seen: list[Call] = []

    def act(call: Call) -> None:
        if call.method in ("get", "download") and call.key.startswith(("packs/", "objects/", "datasets/")):
            seen.append(call)
            if len(seen) == number + 1:
                _link_in_place_of(two.root / "d1", outside)

    two.store = FaultyStore(clones.store, act, is_remote=True)
    reported = ""
    try:
        two.pull(jobs=1)
    except Conflict as error:
        reported = " ".join([error.message, *error.details])
    # Without a conflict the link came too late, or was there before the pull looked at the folder.
    assert "d1" in reported or len(seen) <= number or seen[number].is_done or seen[number].key.startswith("datasets/")
    assert read_tree(outside) == before
    two.store = clones.store
    if (two.root / "d1").is_symlink():
        (two.root / "d1").unlink()
        outside.with_name("moved away").rename(two.root / "d1")
    two.pull(theirs=True)
    assert two.tree == one.tree


def test_an_empty_folder_behind_a_link_is_not_removed(clones: Clones) -> None:
    one, two = clones["one"], clones["two"]
    one.make({"d/sub/": b"", "d/f": b"1", "e": b"2"})
    one.sync()
    two.pull()
    one.make({"e": b"changed"})
    one.sync()
    outside = clones.folder / "outside"
    (outside / "sub").mkdir(parents=True)

    def act(call: Call) -> None:
        if call.key.startswith(("packs/", "objects/")) and not (two.root / "d").is_symlink():
            _link_in_place_of(two.root / "d", outside)

    two.store = FaultyStore(clones.store, act, is_remote=True)
    with pytest.raises(Conflict, match="links"):
        two.pull()
    assert (outside / "sub").is_dir()
