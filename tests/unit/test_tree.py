"""Trees of outputs: saved again and again while somebody fetches them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from amlctl.errors import IntegrityError
from amlctl.stores.directory import DirectoryStore
from amlctl.transfer.tree import TreeSaver, read_index, restore_tree
from tests.support.faulty_store import Call, FaultyStore
from tests.support.trees import Tree, read_tree, write_tree

PREFIX, INDEX = "runs/r/outputs/", "runs/r/outputs.json"


def _restored(store: DirectoryStore, target: Path) -> Tree:
    restore_tree(store, PREFIX, INDEX, target)
    return read_tree(target)


def test_a_reader_at_any_moment_of_a_save_gets_old_or_new_bytes(tmp_path: Path) -> None:
    old: Tree = {f"f{n}": b"old %d" % n for n in range(5)} | {"goes": b"x"}
    new: Tree = {f"f{n}": b"new %d" % n * 9 for n in range(5)} | {"comes": b"y"}
    moments = 0
    for at in range(1, 100):
        store = DirectoryStore(tmp_path / f"{at}/store")
        source = tmp_path / f"{at}/source"
        write_tree(source, old)
        TreeSaver(store, source, PREFIX, INDEX).save()
        write_tree(source, new)
        (source / "goes").unlink()
        seen: list[Tree] = []

        def look(call: Call, at: int = at, store: DirectoryStore = store, seen: list[Tree] = seen) -> None:
            if call.number == at and not call.is_done:
                seen.append(_restored(store, tmp_path / f"{at}/target"))

        TreeSaver(FaultyStore(store, look), source, PREFIX, INDEX).save()
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
        TreeSaver(store, source, PREFIX, INDEX).save()
        write_tree(source, new)

        def die(call: Call, at: int = at) -> None:
            if call.number >= at:
                raise Killed

        with pytest.raises(Killed):
            TreeSaver(FaultyStore(store, die), source, PREFIX, INDEX).save()
        found = _restored(store, tmp_path / f"{at}/target")
        assert all(data in (old[path], new[path]) for path, data in found.items())
        TreeSaver(store, source, PREFIX, INDEX).save()
        assert _restored(store, tmp_path / f"{at}/after") == new


def test_nothing_is_sent_for_what_stayed(tmp_path: Path) -> None:
    store, source = DirectoryStore(tmp_path / "store"), tmp_path / "source"
    write_tree(source, {f"f{n}": random.Random(n).randbytes(100) for n in range(20)})
    saver = TreeSaver(store, source, PREFIX, INDEX)
    assert saver.save() == 20
    requests = store.traffic.requests
    assert saver.save() == 0
    assert store.traffic.requests == requests


def test_damage_is_still_told(tmp_path: Path) -> None:
    store, source = DirectoryStore(tmp_path / "store"), tmp_path / "source"
    write_tree(source, {"f": b"right"})
    TreeSaver(store, source, PREFIX, INDEX).save()
    store.put(f"{PREFIX}f", b"wrong", replace=True)
    with pytest.raises(IntegrityError):
        _restored(store, tmp_path / "target")
    assert [file.path for file in read_index(store, INDEX) or []] == ["f"]
