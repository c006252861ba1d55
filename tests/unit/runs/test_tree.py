"""Trees of outputs: saved again and again while somebody fetches them."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from threading import Lock

import pytest

from amlctl.core.store_keys import outputs_tree
from amlctl.errors import IntegrityError, NotFound, ServiceUnavailable
from amlctl.runs.tree import Place, read_index, restore_tree
from amlctl.runs.tree_saver import TreeSaver
from amlctl.stores.directory import DirectoryStore
from tests.support.faulty_store import Call, FaultyStore
from tests.support.rights import ROOT_READS_ALL, run_without_root_rights
from tests.support.trees import Tree, read_tree, write_tree

TREE = outputs_tree("r")


def _restored(store: DirectoryStore, target: Path) -> Tree:
    restore_tree(store, TREE, Place(target))
    return read_tree(target)


def test_a_reader_at_any_moment_of_a_save_gets_old_or_new_bytes(tmp_path: Path) -> None:
    old: Tree = {f"f{n}": b"old %d" % n for n in range(5)} | {"goes": b"x"}
    new: Tree = {f"f{n}": b"new %d" % n * 9 for n in range(5)} | {"comes": b"y"}
    moments = 0
    for at in range(1, 100):
        store = DirectoryStore(tmp_path / f"{at}/store")
        source = tmp_path / f"{at}/source"
        write_tree(source, old)
        TreeSaver(store, source, TREE).save()
        write_tree(source, new)
        (source / "goes").unlink()
        seen: list[Tree] = []

        def look(call: Call, at: int = at, store: DirectoryStore = store, seen: list[Tree] = seen) -> None:
            if call.number == at and not call.is_done:
                seen.append(_restored(store, tmp_path / f"{at}/target"))

        TreeSaver(FaultyStore(store, look), source, TREE).save()
        if not seen:
            break
        moments += 1
        for path, data in seen[0].items():
            assert data in (old.get(path), new.get(path))
        assert seen[0].keys() >= old.keys() - {"goes"}
        assert _restored(store, tmp_path / f"{at}/after") == new
    assert moments > 8


def test_a_saver_that_was_killed_leaves_a_tree_that_can_be_read(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    old: Tree = {f"f{n}": b"old %d" % n for n in range(5)}
    new: Tree = {f"f{n}": b"new %d" % n for n in range(5)}
    for at in range(1, 9):
        store, source = DirectoryStore(tmp_path / f"{at}/store"), tmp_path / f"{at}/source"
        write_tree(source, old)
        TreeSaver(store, source, TREE).save()
        write_tree(source, new)

        def die(call: Call, at: int = at) -> None:
            if call.number >= at:
                raise Killed

        with pytest.raises(Killed):
            TreeSaver(FaultyStore(store, die), source, TREE).save()
        found = _restored(store, tmp_path / f"{at}/target")
        assert all(data in (old[path], new[path]) for path, data in found.items())
        TreeSaver(store, source, TREE).save()
        assert _restored(store, tmp_path / f"{at}/after") == new


def test_nothing_is_sent_for_what_stayed(tmp_path: Path) -> None:
    store, source = DirectoryStore(tmp_path / "store"), tmp_path / "source"
    write_tree(source, {f"f{n}": random.Random(n).randbytes(100) for n in range(20)})
    saver = TreeSaver(store, source, TREE)
    assert saver.save() == 20
    requests = store.traffic.requests
    assert saver.save() == 0
    assert store.traffic.requests == requests


def test_a_tree_that_is_deleted_while_it_is_downloaded_is_not_restored(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    write_tree(tmp_path / "source", {"a": b"1", "b": b"2"})
    TreeSaver(store, tmp_path / "source", TREE).save()

    def delete(call: Call) -> None:
        if call.key.startswith(TREE.prefix):
            for entry in list(store.list("runs/")):
                store.delete(entry.key)

    with pytest.raises(NotFound, match=r"outputs.json was deleted while"):
        restore_tree(FaultyStore(store, delete), TREE, Place(tmp_path / "target"))


def test_damage_is_still_reported(tmp_path: Path) -> None:
    store, source = DirectoryStore(tmp_path / "store"), tmp_path / "source"
    write_tree(source, {"f": b"right"})
    TreeSaver(store, source, TREE).save()
    store.put(f"{TREE.prefix}f", b"wrong", replace=True)
    with pytest.raises(IntegrityError):
        _restored(store, tmp_path / "target")
    assert [file.path for file in read_index(store, TREE.index_key) or []] == ["f"]


@pytest.mark.parametrize("is_new_saver", [False, True])
def test_a_file_that_goes_back_after_a_save_that_failed(tmp_path: Path, is_new_saver: bool) -> None:
    store, source = DirectoryStore(tmp_path / "store"), tmp_path / "source"
    is_broken = False

    def act(call: Call) -> None:
        if is_broken and call.is_done and call.key == f"{TREE.prefix}state":
            raise ServiceUnavailable("the network is gone")

    write_tree(source, {"also": b"idle", "state": b"idle", "stays": b"x"})
    saver = TreeSaver(FaultyStore(store, act), source, TREE)
    saver.save()
    is_broken = True
    for state in (b"busy", b"more", b"idle"):
        write_tree(source, {"also": state, "state": state})
        with pytest.raises(ServiceUnavailable):
            saver.save()
        assert _restored(store, tmp_path / "target") == {"also": state, "state": state, "stays": b"x"}
    write_tree(source, {"also": b"busy", "state": b"busy"})
    with pytest.raises(ServiceUnavailable):
        saver.save()
    write_tree(source, {"also": b"idle", "state": b"idle"})
    is_broken = False
    if is_new_saver:
        saver = TreeSaver(store, source, TREE)
    saver.save()
    assert _restored(store, tmp_path / "target") == {"also": b"idle", "state": b"idle", "stays": b"x"}
    assert b"pending" not in store.get(TREE.index_key)


def test_a_change_that_the_clock_does_not_show_is_saved(tmp_path: Path) -> None:
    store, source = DirectoryStore(tmp_path / "store"), tmp_path / "source"
    write_tree(source, {"f": b"one"})
    saver = TreeSaver(store, source, TREE)
    saver.save()
    seen = (source / "f").stat()
    write_tree(source, {"f": b"two"})
    os.utime(source / "f", ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert (source / "f").stat().st_ino == seen.st_ino
    saver.save()
    assert _restored(store, tmp_path / "target") == {"f": b"two"}


def test_a_file_that_is_written_all_the_time_is_not_in_doubt(tmp_path: Path) -> None:
    store, source = DirectoryStore(tmp_path / "store"), tmp_path / "source"
    write_tree(source, {"log": b"line\n"})
    TreeSaver(store, source, TREE).save()

    def go_on(call: Call) -> None:
        if call.key == f"{TREE.prefix}log" and not call.is_done:
            with (source / "log").open("ab") as file:
                file.write(b"line\n")

    saver = TreeSaver(FaultyStore(store, go_on), source, TREE)
    write_tree(source, {"log": b"line\nline\n"})
    for _ in range(3):
        assert saver.save() == 0
        assert b"pending" not in store.get(TREE.index_key)
        assert _restored(store, tmp_path / "target") == {"log": b"line\n"}


def test_a_file_that_comes_back_after_its_removal_is_sent_again(tmp_path: Path) -> None:
    store, source = DirectoryStore(tmp_path / "store"), tmp_path / "source"
    is_broken = True

    def act(call: Call) -> None:
        if is_broken and call.is_done and call.method == "delete":
            raise ServiceUnavailable("the network is gone")

    write_tree(source, {"one": b"1", "two": b"2"})
    saver = TreeSaver(FaultyStore(store, act), source, TREE)
    saver.save()
    (source / "one").unlink()
    with pytest.raises(ServiceUnavailable):
        saver.save()
    is_broken = False
    write_tree(source, {"one": b"1"})
    saver.save()
    assert _restored(store, tmp_path / "target") == {"one": b"1", "two": b"2"}


def test_a_file_becomes_a_folder_and_back(tmp_path: Path) -> None:
    store, source = DirectoryStore(tmp_path / "store"), tmp_path / "source"
    file: Tree = {"model": b"one file", "stays": b"x"}
    folder: Tree = {"model/weights": b"a folder", "model/deep/er": b"in it", "stays": b"x"}
    write_tree(source, file)
    saver = TreeSaver(store, source, TREE)
    saver.save()
    for number, tree in enumerate((folder, file)):
        shutil.rmtree(source)
        write_tree(source, tree)
        saver.save()
        assert saver.refused == {}
        assert _restored(store, tmp_path / f"target{number}") == tree


@ROOT_READS_ALL
def test_what_cannot_be_read_costs_no_other_file(tmp_path: Path) -> None:
    store, source = DirectoryStore(tmp_path / "store"), tmp_path / "source"
    write_tree(source, {"closed": b"1", "shut/inside": b"2", "open": b"3"})
    TreeSaver(store, source, TREE).save()
    write_tree(source, {"closed": b"changed", "open": b"changed", "new": b"4"})
    for name in ("closed", "shut"):
        (source / name).chmod(0)
    program = (
        "import sys\nfrom pathlib import Path\nfrom amlctl.stores.directory import DirectoryStore\n"
        "from amlctl.core.store_keys import outputs_tree\n"
        "from amlctl.runs.tree_saver import TreeSaver\n"
        "saver = TreeSaver(DirectoryStore(Path(sys.argv[1])), Path(sys.argv[2]), outputs_tree('r'))\n"
        "saver.save()\nprint(*sorted(map(': '.join, saver.refused.items())), sep='|')\n"
    )
    reported = run_without_root_rights(program, store.url, str(source))
    (source / "shut").chmod(0o755)
    named = ("closed", "shut")
    assert reported.stdout.strip() == "|".join(f"{n}: cannot be read: Permission denied" for n in named), (
        reported.stderr
    )
    expected = {"closed": b"1", "shut/inside": b"2", "open": b"changed", "new": b"4"}
    assert _restored(store, tmp_path / "target") == expected


class _LinkedMeanwhile(Place):
    """It is asked right before each rename: in that moment the folder becomes a link to `elsewhere`."""

    def __init__(self, target: Path, folder: Path, elsewhere: Path) -> None:
        super().__init__(target)
        self._folder = folder
        self._elsewhere = elsewhere
        self._lock = Lock()

    def may_replace(self, path: str) -> bool:
        with self._lock:
            if not self._folder.is_symlink():
                self._folder.rename(self._folder.with_name("moved"))
                self._folder.symlink_to(self._elsewhere)
        return True


def test_nothing_is_written_behind_a_link_that_was_made_meanwhile(tmp_path: Path) -> None:
    store, source, elsewhere = DirectoryStore(tmp_path / "store"), tmp_path / "source", tmp_path / "elsewhere"
    write_tree(source, {"d/one": b"1", "d/two": b"2", "top": b"3"})
    TreeSaver(store, source, TREE).save()
    elsewhere.mkdir()
    target = tmp_path / "target"
    place = _LinkedMeanwhile(target, target / "d", elsewhere)
    restore_tree(store, TREE, place)
    assert list(elsewhere.iterdir()) == []
    assert place.spared == {"d/one", "d/two"}
    assert (target / "top").read_bytes() == b"3"
    assert not list(target.glob(".amlctl-tmp-*"))
