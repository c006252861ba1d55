"""`sync --adopt`: plain files beside a store become a dataset without being sent, and without depending on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from amlctl.core.events import null_sink
from amlctl.errors import Conflict, NotFound, UsageError
from amlctl.operations.dataset.removal import remove
from amlctl.operations.store.gc import gc
from amlctl.operations.store.needed import KeepRules
from amlctl.operations.store.verify import verify
from amlctl.operations.sync.adopt import adopt, adopted_name
from amlctl.operations.sync.result import SyncResult
from amlctl.stores.azure_blob.store import AzureBlobStore
from amlctl.stores.contract import PlainFile, PlainFiles
from amlctl.stores.directory import DirectoryStore
from amlctl.stores.folder_files import FolderFiles
from tests.support.azurite import Azurite
from tests.support.clock import NOW
from tests.support.clones import DATASET, OPTIONS, Clone
from tests.support.trees import Tree, write_tree

TREE: Tree = {
    "a.txt": b"one",
    "deep/b.bin": b"2" * 70_000,
    "deep/same.bin": b"2" * 70_000,
    "empty": b"",
    "ü ä.txt": b"3",
}


class Place:
    """A store, and plain files beside it."""

    def __init__(self, one: Clone, plain: PlainFiles, write: Callable[[Tree], None]) -> None:
        self.one = one
        self.plain = plain
        self.write = write

    def adopt(self, *, is_dry_run: bool = False) -> SyncResult:
        return adopt(self.one, self.plain, DATASET, OPTIONS, is_dry_run=is_dry_run)


@pytest.fixture(params=["folder", "azure"])
def place(request: pytest.FixtureRequest, tmp_path: Path, azurite: Azurite) -> Iterator[Place]:
    if request.param == "folder":
        folder = tmp_path / "shared"

        def write(tree: Tree) -> None:
            write_tree(folder / "data/faces", tree)

        write(TREE)
        store = DirectoryStore(folder / "amlctl")
        yield Place(Clone(tmp_path / "one", store), FolderFiles(store, folder / "data/faces"), write)
        return
    url = f"{azurite.url}/{azurite.new_container()}"
    variables = {"AZURE_STORAGE_KEY": azurite.key}
    with (
        closing(AzureBlobStore(url, variables)) as blobs,
        closing(AzureBlobStore(url, variables, prefix="")) as whole,
    ):

        def put(tree: Tree) -> None:
            _put_all(whole, tree)

        put(TREE)
        yield Place(Clone(tmp_path / "one", blobs), blobs.plain_files("data/faces"), put)


def _put_all(whole: AzureBlobStore, tree: Tree) -> None:
    for path, data in tree.items():
        whole.put(f"data/faces/{path}", data, replace=True)


def test_it_is_a_dataset_like_every_other(place: Place, tmp_path: Path) -> None:
    assert place.adopt(is_dry_run=True).files == 5
    sent = place.one.store.traffic.sent_bytes
    done = place.adopt()
    assert (done.files, done.bytes, done.uploaded_bytes) == (5, sum(map(len, TREE.values())), 0)
    if place.one.store.folder is None:
        assert place.one.store.traffic.sent_bytes - sent < 10_000, "only documents are sent"
    two = Clone(tmp_path / "two", place.one.store)
    two.pull()
    assert two.tree == TREE
    two.make(TREE | {"new": b"n"})
    assert two.sync().added == 1
    assert verify(place.one.store, null_sink).damaged == []
    with pytest.raises(Conflict, match="already"):
        place.adopt()


def test_the_plain_files_do_not_matter_afterwards(place: Place, tmp_path: Path) -> None:
    place.adopt()
    place.write(dict.fromkeys(TREE, b"changed"))
    gc(place.one.store, KeepRules(NOW + timedelta(days=400)), delete=True, sink=null_sink)
    assert verify(place.one.store, null_sink).damaged == []
    two = Clone(tmp_path / "two", place.one.store)
    two.pull()
    assert two.tree == TREE


def test_what_is_here_already_is_not_downloaded(place: Place) -> None:
    place.one.make({**TREE, "a.txt": b"ONE", "more": b"only here"})
    before = place.one.store.traffic.received_bytes
    place.adopt()
    if place.one.store.folder is None:
        assert place.one.store.traffic.received_bytes - before < 20_000, "only lists, and the file that differs"
    place.one.pull(theirs=True)
    assert place.one.tree == {**TREE, "more": b"only here"}


def test_a_file_that_changes_meanwhile_is_noticed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    real = place.plain.copy

    def copy(file: PlainFile, version: str, key: str, content_id: str) -> None:
        if file.path == "a.txt":
            place.write({"a.txt": b"ONE"})
        real(file, version, key, content_id)

    monkeypatch.setattr(place.plain, "copy", copy)
    with pytest.raises(Conflict, match="changed while it was read"):
        place.adopt()
    monkeypatch.setattr(place.plain, "copy", real)
    assert place.adopt().files == 5


def test_what_cannot_be_adopted(place: Place, tmp_path: Path) -> None:
    store = place.one.store
    empty = store.plain_files("nothing") if isinstance(store, AzureBlobStore) else FolderFiles(store, tmp_path / "none")
    with pytest.raises(NotFound, match="no files found"):
        adopt(place.one, empty, DATASET, OPTIONS, is_dry_run=False)
    place.adopt()
    remove(store, DATASET, now=NOW, is_sure=True)
    with pytest.raises(Conflict, match="was removed"):
        place.adopt()


def test_empty_blobs_that_stand_for_folders_are_left_out(place: Place, tmp_path: Path) -> None:
    if place.one.store.folder is not None:
        pytest.skip("a folder has real ones")
    place.write({"deep": b"", "other": b"1", "other/x": b"2"})
    with pytest.raises(UsageError, match="'other' is a file and a folder"):
        place.adopt()
    place.write({"other": b""})
    assert place.adopt().files == len(TREE) + 1
    two = Clone(tmp_path / "two", place.one.store)
    two.pull()
    assert two.tree == {**TREE, "other/x": b"2"}


def test_files_of_the_store_itself_are_left_out(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "shared/amlctl")
    store.put("objects/ab/" + "ab" * 16, b"1")
    write_tree(tmp_path / "shared", {"x": b"1"})
    assert [file.path for file in FolderFiles(store, tmp_path / "shared").files()] == ["x"]


@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        ("data/faces/", "data/faces"),
        ("project/data_blobs/working/faces", "working/faces"),
        ("/mnt/share/faces", "faces"),
        ("../old/data_blobs/raw/x", "raw/x"),
    ],
)
def test_the_name_of_the_dataset(prefix: str, name: str) -> None:
    assert adopted_name(prefix) == name
