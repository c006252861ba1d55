"""A mirror in a folder store where the kind of a path changes: what is old goes before what is new comes."""

from __future__ import annotations

import shutil
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from amlctl.core.diff import displaced
from amlctl.core.events import null_sink
from amlctl.errors import Conflict
from amlctl.operations.store.verify import verify
from amlctl.runs.produced import Publisher, make_newest
from amlctl.snapshots.heads import read_head
from amlctl.stores.azure_blob.store import AzureBlobStore
from tests.support.azurite import Azurite
from tests.support.clones import DATASET, Clone, Clones
from tests.support.fault_proxy import fault_proxy
from tests.support.faulty_store import Call, FaultyStore
from tests.support.hierarchical import Hierarchical
from tests.support.trees import Tree, read_tree, write_tree


@pytest.fixture
def clones(tmp_path: Path) -> Clones:
    return Clones(tmp_path)


@pytest.fixture
def one(clones: Clones) -> Clone:
    return clones["one"]


def _plain(clones: Clones) -> Tree:
    return read_tree(clones.folder / "store/mirror" / DATASET)


FILE: Tree = {"k": b"k", "x": b"file"}
FOLDER: Tree = {"k": b"k", "x/a": b"a", "x/deep/b": b"b"}


@pytest.mark.parametrize(("before", "after"), [(FILE, FOLDER), (FOLDER, FILE)])
@pytest.mark.parametrize("options", [{}, {"delete": True, "yes": True}, {"repair": True}])
def test_the_kind_of_a_path_changes(
    clones: Clones, one: Clone, before: Tree, after: Tree, options: dict[str, Any]
) -> None:
    one.make(before)
    one.sync(layout="mirror")
    one.make(after)
    one.sync(**options)
    assert _plain(clones) == after
    assert verify(clones.store, null_sink).damaged == []
    one.make(before)
    one.sync(**options)
    assert _plain(clones) == before == clones.stored()


def test_the_kind_of_a_path_changes_in_a_hierarchical_account(clones: Clones, azurite: Azurite) -> None:
    with fault_proxy(azurite.url) as proxy:
        proxy.act = Hierarchical()
        url = f"{proxy.url}/{azurite.new_container()}"
        with closing(AzureBlobStore(url, {"AZURE_STORAGE_KEY": azurite.key})) as store:
            one, two = (Clone(clones.folder / name, store) for name in ("one", "two"))
            for tree in (FOLDER, FILE, FOLDER, {"x": bytes(9 << 20)}, FOLDER):
                one.make(tree)
                one.sync(layout="mirror", delete=True, yes=True)
                two.pull(yes=True)
                assert two.tree == tree
                plain = {entry.key: entry.size_bytes for entry in store.list(f"mirror/{DATASET}/")}
                assert plain == {f"mirror/{DATASET}/{path}": len(data) for path, data in tree.items()}
            assert verify(store, null_sink).damaged == []
            one.make(FILE)
            store.put(f"mirror/{DATASET}/x/theirs", b"1")
            with pytest.raises(Conflict, match=f"mirror/{DATASET}/x in .* is a folder with files"):
                one.sync(layout="mirror")


def test_a_dataset_that_is_one_file_becomes_a_folder_and_back(clones: Clones, one: Clone) -> None:
    one.root.parent.mkdir(parents=True)
    plain = clones.folder / "store/mirror" / DATASET
    for _ in range(2):
        if one.root.is_dir():
            shutil.rmtree(one.root)
        one.root.write_bytes(b"one file")
        one.sync(layout="mirror", delete=True, yes=True)
        assert plain.read_bytes() == b"one file"
        one.root.unlink()
        one.make({"in": b"it", "d/in": b"too"})
        one.sync(delete=True, yes=True)
        assert read_tree(plain) == {"in": b"it", "d/in": b"too"}
        assert verify(clones.store, null_sink).damaged == []


def test_the_next_sync_repairs_a_kill_between_old_and_new(clones: Clones, one: Clone) -> None:
    """At every call; also where the change is taken back in between."""
    for at in range(1, 200):
        shutil.rmtree(clones.folder / "store", ignore_errors=True)
        shutil.rmtree(clones.folder / "one", ignore_errors=True)
        one = Clone(clones.folder / "one", clones.store)
        one.make(FILE)
        one.sync(layout="mirror")
        one.make(FOLDER)
        died = False

        class Killed(BaseException):
            pass

        def act(call: Call, at: int = at, Killed: type[BaseException] = Killed) -> None:
            nonlocal died
            if call.number >= at and "lease" not in call.key:
                died = True
                raise Killed

        one.store = FaultyStore(clones.store, act)
        with suppress(Killed):
            one.sync()
        one.store = clones.store
        one.make(FILE if at % 2 else FOLDER)
        one.sync()
        assert clones.stored() == one.tree
        assert verify(clones.store, null_sink).damaged == []
        if not died:
            assert at > 8
            return


def test_what_no_snapshot_has_is_deleted_only_when_asked(clones: Clones, one: Clone) -> None:
    one.make({"k": b"k", "gone/a": b"a"})
    one.sync(layout="mirror")
    one.make({"k": b"k"})
    one.sync()
    foreign = clones.folder / "store/mirror" / DATASET / "gone/of somebody else"
    foreign.write_bytes(b"put there with another tool")
    one.make({"k": b"k", "gone": b"a file now"})
    with pytest.raises(Conflict, match="in the way") as caught:
        one.sync()
    assert "--delete" in caught.value.hint
    assert f"mirror/{DATASET}/gone/of somebody else" in caught.value.details
    assert foreign.exists()
    one.sync(delete=True, yes=True)
    assert _plain(clones) == {"k": b"k", "gone": b"a file now"}


def test_empty_folders_are_not_in_the_way(clones: Clones, one: Clone) -> None:
    one.make({"k": b"k"})
    one.sync(layout="mirror")
    (clones.folder / "store/mirror" / DATASET / "x/empty").mkdir(parents=True)
    one.make({"k": b"k", "x": b"file"})
    one.sync()
    assert _plain(clones) == {"k": b"k", "x": b"file"}


@pytest.mark.parametrize("options", [{}, {"delete": True, "yes": True}, {"repair": True}])
def test_an_empty_folder_becomes_a_file_and_back(clones: Clones, one: Clone, options: dict[str, Any]) -> None:
    for tree in ({"k": b"k", "x/": b""}, {"k": b"k", "x": b"file"}, {"k": b"k", "x/": b""}, {"x/": b""}):
        one.make(tree)
        one.sync(layout="mirror", **options)
        assert clones.stored() == tree
        assert verify(clones.store, null_sink).damaged == []
    shutil.rmtree(one.root)
    one.root.write_bytes(b"one file")
    one.sync(layout="mirror", delete=True, yes=True)
    assert (clones.folder / "store/mirror" / DATASET).read_bytes() == b"one file"


def test_a_mirror_inside_is_never_in_the_way(clones: Clones, one: Clone) -> None:
    one.make({"a": b"1"}, f"{DATASET}/b/c")
    one.sync(f"{DATASET}/b/c", layout="mirror")
    shutil.rmtree(one.root)
    one.make({"b": b"a file where the folder of the other dataset is"})
    with pytest.raises(Conflict, match="mirror"):
        one.sync(layout="mirror")
    assert clones.stored(f"{DATASET}/b/c") == {"a": b"1"}


def test_what_a_run_has_produced_takes_the_place_as_well(clones: Clones, one: Clone, tmp_path: Path) -> None:
    one.make(FILE)
    one.sync(layout="mirror")
    head = read_head(clones.store, DATASET)
    assert head is not None
    write_tree(tmp_path / "produced", FOLDER)
    found = Publisher(clones.store, tmp_path / "produced", DATASET, base_key=head.manifest_key).publish()
    make_newest(clones.store, DATASET, found.manifest_key, head.manifest_key, source=clones.store)
    assert _plain(clones) == FOLDER
    assert verify(clones.store, null_sink).damaged == []


@pytest.mark.parametrize(
    ("before", "written", "kept", "gone"),
    [
        (["a"], ["a/in"], [], ["a"]),
        (["a/in", "a/b/c", "ab"], ["a"], [], ["a/in", "a/b/c"]),
        (["."], ["in"], [], ["."]),
        (["in", "d/in"], ["."], [], ["in", "d/in"]),
        (["Name"], ["name"], ["name"], ["Name"]),
        (["Name"], ["name"], ["name", "Name"], []),
        (["caf\u00e9"], ["cafe\u0301"], [], ["caf\u00e9"]),
        (["a", "b"], ["a", "c"], [], []),
    ],
)
def test_what_excludes_each_other(before: list[str], written: list[str], kept: list[str], gone: list[str]) -> None:
    assert displaced(before, written, [*kept, *written]) == set(gone)


def test_another_spelling_goes_before_the_new_one_comes(clones: Clones, one: Clone) -> None:
    """So that on a disk which takes both for one name the new file is not deleted with the old name."""
    one.make({"Name": b"1", "k": b"k"})
    one.sync(layout="mirror")
    one.make({"name": b"1", "k": b"k"})
    watched = FaultyStore(clones.store, lambda call: None)
    one.store = watched
    one.sync(delete=True, yes=True)
    done = [(call.method, call.key) for call in watched.calls if call.method in ("put", "delete") and not call.is_done]
    old, new = f"mirror/{DATASET}/Name", f"mirror/{DATASET}/name"
    assert done.index(("delete", old)) < done.index(("put", new))
    assert done.count(("delete", old)) == 1
    assert _plain(clones) == {"name": b"1", "k": b"k"}
