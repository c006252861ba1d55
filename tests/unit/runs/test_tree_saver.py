"""What a run leaves in its outputs is kept as it is at the end, or named with the reason."""

from __future__ import annotations

import mmap
import os
import shutil
import stat
from pathlib import Path

import pytest

from amlctl.core.store_keys import outputs_tree
from amlctl.errors import IntegrityError
from amlctl.runs import tree_saver
from amlctl.runs.tree import (
    Place,
    TreeFile,
    TreeIndex,
    encode_index,
    read_tree_index,
    restore_tree,
    stored_key,
    tree_file,
)
from amlctl.runs.tree_saver import TreeSaver
from amlctl.stores.directory import DirectoryStore
from tests.support.faulty_store import Call, FaultyStore
from tests.support.trees import Tree, read_tree, write_tree

TREE = outputs_tree("r")
PREFIX, INDEX, _ = TREE
DATA = Path(__file__).parents[2] / "data" / "outputs"


class Killed(BaseException):
    """Not an error that the code under test could handle."""


def restored(store: DirectoryStore, target: Path) -> Tree:
    restore_tree(store, TREE, Place(target))
    return read_tree(target)


def saver_of(store: DirectoryStore, source: Path) -> TreeSaver:
    return TreeSaver(store, source, TREE)


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


@pytest.fixture
def trusted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stat data counts however young a file is, as it would two seconds later."""
    monkeypatch.setattr(tree_saver, "RACY_NS", -(10**15))


@pytest.mark.usefixtures("trusted_at_once")
def test_the_last_save_reads_what_no_stat_data_shows(store: DirectoryStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_tree(source, {"metrics": b"EARLY" + bytes(4091), "stays": b"x"})
    with (source / "metrics").open("r+b") as file, mmap.mmap(file.fileno(), 4096) as memory:
        memory[5:6] = b"!"  # the first change of a page is the one that moves the times
        saver = saver_of(store, source)
        assert saver.save() == 2
        memory[:5] = b"FINAL"
        assert saver.save() == 0
        assert saver.save(is_last=True) == 1
    assert restored(store, tmp_path / "target")["metrics"][:6] == b"FINAL!"


@pytest.mark.usefixtures("trusted_at_once")
def test_a_file_of_the_same_size_and_time_is_saved_again(store: DirectoryStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_tree(source, {"model": b"EARLY"})
    os.utime(source / "model", (10**9, 10**9))
    saver = saver_of(store, source)
    saver.save()
    write_tree(source, {"model": b"FINAL"})
    os.utime(source / "model", (10**9, 10**9))
    assert saver.save() == 1
    assert restored(store, tmp_path / "target") == {"model": b"FINAL"}


def test_links_are_followed_as_in_datasets(store: DirectoryStore, tmp_path: Path) -> None:
    source, scratch = tmp_path / "source", tmp_path / "scratch"
    write_tree(source, {"step-10/model": b"m"})
    write_tree(scratch, {"deep/weights": b"w"})
    links = {
        "latest": "step-10",
        "weights": str(scratch),
        "one": str(scratch / "deep/weights"),
        "nowhere": "gone",
        "loop": "loop",
        "above": str(tmp_path),
        "root": "/",
        "system": "/proc",
    }
    for name, target in links.items():
        (source / name).symlink_to(target)
    os.mknod(source / "socket", stat.S_IFSOCK | 0o600)
    saver = saver_of(store, source)
    saver.save(is_last=True)
    assert restored(store, tmp_path / "target") == {
        "step-10/model": b"m",
        "latest/model": b"m",
        "weights/deep/weights": b"w",
        "one": b"w",
    }
    assert saver.refused == {}
    expected = {"nowhere", "loop", "above", "root", "socket"} | ({"system"} if os.path.ismount("/proc") else set())
    assert set(saver.left_out) == expected
    assert "outputs/nowhere was left out: the link leads nowhere" in saver.not_kept()


def test_empty_folders_and_times_come_back(store: DirectoryStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    steps = [f"checkpoint-{step}" for step in (900, 100, 1000)]
    write_tree(source, {**dict.fromkeys(steps, b"x"), "empty/deep/": b""})
    for number, name in enumerate(steps):
        os.utime(source / name, ns=(0, 1_700_000_000_000_000_001 + number))
    saver = saver_of(store, source)
    assert saver.save() == 3
    target = tmp_path / "target"
    assert restored(store, target) == read_tree(source)
    assert [(target / name).stat().st_mtime_ns % 10 for name in steps] == [1, 2, 3]
    os.utime(source / steps[0], ns=(0, 1_700_000_000_000_000_009))
    assert saver.save() == 0
    restore_tree(store, TREE, Place(target))
    assert (target / steps[0]).stat().st_mtime_ns % 10 == 9
    shutil.rmtree(source / "empty")
    saver.save()
    assert set(restored(store, tmp_path / "again")) == set(steps)


def kind_changes() -> list[tuple[Tree, Tree]]:
    one: Tree = {"ckpt": b"a file", "stays": b"x"}
    other: Tree = {"ckpt/a": b"in it", "ckpt/deep/b": b"deeper", "stays": b"x"}
    return [(one, other), (other, one), (one, {**one, "ckpt": b"changed"})]


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("is_after", [False, True])
def test_a_path_whose_kind_changes_is_there_whenever_the_kill_comes(
    tmp_path: Path, number: int, is_after: bool
) -> None:
    old, new = kind_changes()[number]
    calls = 0
    for at in range(1, 100):
        store, source = DirectoryStore(tmp_path / f"{at}/store"), tmp_path / f"{at}/source"
        write_tree(source, old)
        saver_of(store, source).save()
        shutil.rmtree(source)
        write_tree(source, new)

        def die(call: Call, at: int = at) -> None:
            if call.number >= at and call.is_done == is_after:
                raise Killed

        faulty = FaultyStore(store, die)
        try:
            TreeSaver(faulty, source, TREE).save(is_last=True)
        except Killed:
            calls += 1
        found = restored(store, tmp_path / f"{at}/found")
        assert any(tree.items() <= found.items() for tree in (old, new)), found
        # The next one starts from there, and leaves nothing behind.
        saver_of(store, source).save(is_last=True)
        assert restored(store, tmp_path / f"{at}/after") == new
        named = {stored_key(PREFIX, file) for file in (read_tree_index(store, INDEX) or TreeIndex()).files}
        assert {entry.key for entry in store.list("")} == named | {INDEX}
        if len(faulty.calls) < at:
            break
    assert calls >= 4


def test_a_kind_that_changes_all_the_time(store: DirectoryStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    saver = saver_of(store, source)
    for number in range(7):
        shutil.rmtree(source, ignore_errors=True)
        tree: Tree = [{"a": b"1"}, {"a/b": b"2"}, {"a/b/c": b"3"}][number % 3]
        write_tree(source, tree)
        saver.save()
        assert restored(store, tmp_path / f"target{number}") == tree
    index = read_tree_index(store, INDEX)
    assert index is not None
    assert max(file.layer for file in index.files) <= 2


def test_a_list_that_is_damaged_is_written_again(store: DirectoryStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_tree(source, {"f": b"1"})
    saver_of(store, source).save()
    store.put(INDEX, b"{", replace=True)
    with pytest.raises(IntegrityError, match=r"outputs\.json"):
        restored(store, tmp_path / "target")
    saver_of(store, source).save(is_last=True)
    assert restored(store, tmp_path / "target") == {"f": b"1"}


def test_a_name_that_is_too_long_for_the_store_costs_no_other_file(tmp_path: Path) -> None:
    source = tmp_path / "s"
    deep = "/".join(["d" * 200] * 19)
    write_tree(source, {"f": b"1"})
    descriptor = os.open(source, os.O_RDONLY)
    for part in deep.split("/"):
        os.mkdir(part, dir_fd=descriptor)
        below = os.open(part, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=descriptor))
    os.close(descriptor)
    store = DirectoryStore(tmp_path / ("t" * 200) / "store")
    saver = saver_of(store, source)
    saver.save(is_last=True)
    assert list(saver.refused.values()) == ["cannot be stored: File name too long"]
    assert restored(store, tmp_path / "target") == {"f": b"1"}


def test_a_file_that_still_changes_at_the_last_save_is_named(store: DirectoryStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_tree(source, {"log": b"line\n", "f": b"1"})

    def append(call: Call) -> None:
        if call.key == f"{PREFIX}log" and not call.is_done:
            with (source / "log").open("ab") as file:
                file.write(b"line\n")

    saver = TreeSaver(FaultyStore(store, append), source, TREE)
    saver.save(is_last=True)
    assert saver.not_kept() == ["outputs/log could not be saved: still changing"]
    assert restored(store, tmp_path / "target") == {"f": b"1"}


def test_a_file_that_settles_during_the_last_save_is_kept(store: DirectoryStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_tree(source, {"log": b"line\n"})
    saver_of(store, source).save()
    write_tree(source, {"log": b"more\n"})

    def append(call: Call) -> None:
        is_first = sum(one.key == f"{PREFIX}log" for one in faulty.calls) == 1
        if call.key == f"{PREFIX}log" and not call.is_done and is_first:
            write_tree(source, {"log": b"most\n"})

    faulty = FaultyStore(store, append)
    saver = TreeSaver(faulty, source, TREE)
    assert saver.save(is_last=True) == 1
    assert saver.refused == {}
    assert restored(store, tmp_path / "target") == {"log": b"most\n"}


def test_a_folder_that_was_removed_costs_nothing_that_was_saved(store: DirectoryStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_tree(source, {"f": b"1"})
    saver = saver_of(store, source)
    saver.save()
    shutil.rmtree(source)
    for text in (None, "a file"):
        if text is not None:
            source.write_text(text)
        saver.save(is_last=True)
        assert len(saver.not_kept()) == 1
        assert restored(store, tmp_path / "target") == {"f": b"1"}


def test_lists_of_both_formats_can_be_read(store: DirectoryStore) -> None:
    ids = ["b4d9e0c1f6b9e4a1f6d1f6a5c2b7a9d0", "00112233445566778899aabbccddeeff", "ffeeddccbbaa99887766554433221100"]
    empty = "99aa06d3014798d86001c324468d497f"
    store.put(INDEX, (DATA / "outputs-1.json").read_bytes())
    assert read_tree_index(store, INDEX) == TreeIndex(
        [TreeFile("checkpoint-2", 3, False, ids[0]), TreeFile("run.sh", 2, True, ids[1])],
        [TreeFile("checkpoint-2", 4, False, ids[2])],
        1,
    )
    store.put(INDEX, (DATA / "outputs-2.json").read_bytes(), replace=True)
    assert read_tree_index(store, INDEX) == TreeIndex(
        [
            TreeFile("checkpoint-2", 3, False, ids[0], 1700000000123456789),
            TreeFile("empty/", 0, False, empty),
            TreeFile("model/weights", 2, True, ids[1], 1700000001000000000, 1),
        ],
        [TreeFile("checkpoint-2", 4, False, ids[2], 1700000002000000000)],
    )


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}x",
        '{"format": 3, "files": []}',
        '{"format": true, "files": []}',
        '{"files": [["a", "1", false, "00112233445566778899aabbccddeeff"]]}',
        '{"files": [["a", -1, false, "00112233445566778899aabbccddeeff"]]}',
        '{"files": [["a", 1, false, "0011"]]}',
        '{"files": [["../a", 1, false, "00112233445566778899aabbccddeeff"]]}',
        '{"files": [["a", 1, false, "00112233445566778899aabbccddeeff", 1, -1]]}',
        '{"files": 7}',
        "[" * 100_000,
    ],
)
def test_what_is_not_a_list_of_outputs_is_damage(store: DirectoryStore, text: str) -> None:
    store.put(INDEX, text.encode())
    with pytest.raises(IntegrityError, match=r"outputs\.json"):
        read_tree_index(store, INDEX)


def test_further_nodes_of_an_old_run_are_found(store: DirectoryStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_tree(source, {"x": b"of node 1"})
    tree = outputs_tree("r", 1)
    store.put(f"{tree.first_prefix}x", b"of node 1")
    store.put(tree.index_key, encode_index([tree_file(source / "x", "x")]))
    restore_tree(store, tree, Place(tmp_path / "old"))
    assert read_tree(tmp_path / "old") == {"x": b"of node 1"}
    TreeSaver(store, source, tree).save()
    restore_tree(store, tree, Place(tmp_path / "new"))
    assert read_tree(tmp_path / "new") == {"x": b"of node 1"}


def test_one_damaged_file_does_not_stop_the_others(store: DirectoryStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    tree: Tree = {f"f{number}": b"%d" % number for number in range(9)}
    write_tree(source, tree)
    saver_of(store, source).save()
    for name in ("f3", "f5"):
        store.put(PREFIX + name, b"?", replace=True)
    with pytest.raises(IntegrityError) as raised:
        restored(store, tmp_path / "target")
    assert len(raised.value.details) == 2
    assert read_tree(tmp_path / "target") == {path: data for path, data in tree.items() if path not in ("f3", "f5")}
