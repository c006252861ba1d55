"""A store, or a HEAD, that was there and is not there now: not taken for one that never was, nor replaced unasked."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient

from amlctl.core.events import Warned
from amlctl.core.store_keys import head_key
from amlctl.errors import IntegrityError, NeedsConfirmation, NotFound, StoreGone
from amlctl.localfs.known_stores import known_store
from amlctl.operations.dataset.listing import list_stored, show_stored
from amlctl.operations.dataset.removal import remove
from amlctl.operations.status import all_datasets
from amlctl.snapshots.store_format import require_format
from amlctl.stores.azure_blob.store import AzureBlobStore
from amlctl.stores.directory import DirectoryStore
from amlctl.stores.presence import RememberedStore
from tests.support.azurite import Azurite
from tests.support.clock import YEAR_LATER
from tests.support.clones import DATASET, Clone, Clones
from tests.support.trees import Tree

BEFORE: Tree = {"a": b"1", "d/b": b"2", "large": b"6" * 5_000}


@pytest.fixture
def clones(tmp_path: Path) -> Clones:
    return Clones(tmp_path)


@pytest.fixture
def one(tmp_path: Path) -> Clone:
    """It has synced with a store, and is about to look at it again."""
    clone = Clone(tmp_path / "one", DirectoryStore(tmp_path / "store"))
    clone.make(BEFORE)
    _remembering(clone).sync()
    return _remembering(clone)


def _remembering(clone: Clone) -> Clone:
    """With its store as a new command opens it."""
    store = clone.store.store if isinstance(clone.store, RememberedStore) else clone.store
    clone.store = RememberedStore(store, clone.project)
    return clone


@pytest.fixture(params=["removed", "unmounted", "container"])
def gone(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Clone]:
    """A clone whose store was there at its last command."""
    if request.param != "container":
        clone = request.getfixturevalue("one")
        shutil.rmtree(tmp_path / "store")
        if request.param == "unmounted":
            (tmp_path / "store").mkdir()
        yield clone
        return
    azurite: Azurite = request.getfixturevalue("azurite")
    url = f"{azurite.url}/{azurite.new_container()}"
    with closing(AzureBlobStore(f"{url}/prefix", {"AZURE_STORAGE_KEY": azurite.key})) as store:
        clone = Clone(tmp_path / "one", store)
        clone.make(BEFORE)
        _remembering(clone).sync()
        with ContainerClient.from_container_url(url, credential=azurite.key) as container:
            container.delete_container()
        yield _remembering(clone)


def _version_6(clone: Clone) -> None:
    """The databases as version 6 had them."""
    with sqlite3.connect(clone.project.state_dir / "sync_state.sqlite") as database:
        database.executescript("CREATE TABLE place (url TEXT PRIMARY KEY, store TEXT); PRAGMA user_version = 6;")


def _version_5(clone: Clone) -> None:
    with sqlite3.connect(clone.project.state_dir / "sync_state.sqlite") as database:
        database.execute("PRAGMA user_version = 5")


@pytest.mark.parametrize("make_older", [_version_5, _version_6])
def test_bases_and_packs_of_older_versions_are_kept(clones: Clones, make_older: Callable[[Clone], None]) -> None:
    one, two = clones["one"], clones["two"]
    one.make(BEFORE)
    one.sync()
    two.pull()
    make_older(one)
    (one.root / "a").unlink()
    result = one.sync()
    assert result.uploaded_blobs == 0
    assert clones.stored() == {path: data for path, data in BEFORE.items() if path != "a"}


def test_state_of_a_newer_version_is_not_forgotten_without_a_word(clones: Clones) -> None:
    one = clones["one"]
    one.make(BEFORE)
    one.sync()
    with sqlite3.connect(one.project.state_dir / "sync_state.sqlite") as database:
        database.execute("PRAGMA user_version = 99")
    one.sync()
    assert [one for one in one.messages if "another version of amlctl" in one and "is forgotten" in one]


def test_a_store_that_is_gone_is_not_created_again_unasked(gone: Clone) -> None:
    with pytest.raises(NeedsConfirmation, match="is gone") as caught:
        gone.sync()
    assert caught.value.exit_code == 5
    assert gone.store.folder is None or not list(gone.store.folder.rglob("*"))
    gone.sync(yes=True)
    assert {one.dataset for one in list_stored(gone.store).datasets} == {DATASET}
    gone.make({**BEFORE, "new": b"new"})
    assert _remembering(gone).sync().added == 1


READ: dict[str, Callable[[Clone], object]] = {
    "pull": lambda clone: clone.pull(),
    "dataset list": lambda clone: list_stored(clone.store),
    "dataset show": lambda clone: show_stored(clone.store, DATASET),
    "store gc, stats, verify": lambda clone: require_format(clone.store),
    "a folder": lambda clone: clone.store.folders("runs/"),
    "a value": lambda clone: clone.store.info("code/x"),
    "a download": lambda clone: clone.store.download("code/x", clone.project.root / "x"),
    "a write": lambda clone: clone.store.put("runs/x/record.json", b"{}"),
}


@pytest.mark.parametrize("read", READ.values(), ids=READ.keys())
def test_it_is_not_taken_for_an_empty_store(one: Clone, read: Callable[[Clone], object], tmp_path: Path) -> None:
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    with pytest.raises(StoreGone, match="is gone") as caught:
        read(one)
    assert caught.value.exit_code == 6
    assert "amlctl sync PATH --yes" in caught.value.hint
    (tmp_path / "elsewhere").rename(tmp_path / "store")
    assert _remembering(one).sync().added == 0


def test_a_container_that_was_deleted_is_gone(gone: Clone) -> None:
    with pytest.raises(StoreGone):
        list_stored(gone.store)
    with pytest.raises(StoreGone):
        gone.pull()


def test_status_compares_with_the_last_sync(gone: Clone) -> None:
    assert [*all_datasets(gone)] == [DATASET]
    assert [event.message for event in gone.events if isinstance(event, Warned)][-1].startswith("the store ")
    (gone.root / "a").unlink()
    found = gone.status()
    assert (found.store_gone, *found.new, *found.modified, *found.deleted) == (True, "a")
    with pytest.raises(StoreGone):
        gone.status("working/other")


def test_an_empty_place_that_was_never_used_is_an_empty_store(clones: Clones) -> None:
    one = _remembering(clones["one"])
    assert not all_datasets(one)
    assert not list_stored(_remembering(one).store).datasets
    with pytest.raises(NotFound, match="does not exist"):
        one.pull()
    one.make(BEFORE)
    assert one.sync().added == len(BEFORE)
    assert known_store(one.project.state_dir, one.store.url) is not None


def test_a_store_that_is_there_costs_no_request(one: Clone) -> None:
    one.sync_until_settled()
    assert _remembering(one).sync().requests == 1


def test_a_store_whose_format_is_lost_is_not_gone(one: Clone, tmp_path: Path) -> None:
    (tmp_path / "store/format.json").unlink()
    assert one.store.info("code/x") is None
    assert [found.dataset for found in list_stored(_remembering(one).store).datasets] == [DATASET]


def test_a_dataset_without_a_head_is_named(clones: Clones) -> None:
    """To clones that never synced it, too; it is not offered, nor passed over, nor taken for one that never was."""
    one, two = clones["one"], clones["two"]
    one.make(BEFORE)
    one.sync()
    clones.store.delete(head_key(DATASET))
    for command in (lambda: all_datasets(two), two.status, two.pull, lambda: show_stored(two.store, DATASET)):
        with pytest.raises(IntegrityError, match="but no HEAD") as caught:
            command()
        assert f"sync --repair data_blobs/{DATASET}" in caught.value.hint
    with pytest.raises(IntegrityError, match="but no HEAD"):
        remove(two.store, DATASET, now=YEAR_LATER, is_sure=True)
    one.make({"b": b"b"}, "working/other")
    one.sync("working/other")
    assert [*all_datasets(two)] == ["working/other"]
    assert "but no HEAD" in two.messages[-1]
    assert list_stored(two.store).without_head == [DATASET]
    with pytest.raises(NotFound) as caught_:
        two.pull("working/y")
    assert caught_.value.hint == "did you mean working/x?"


def test_a_clone_that_starts_such_a_dataset_is_warned_and_nothing_is_lost(clones: Clones) -> None:
    one, two = clones["one"], clones["two"]
    one.make(BEFORE)
    one.sync()
    clones.store.delete(head_key(DATASET))
    two.make({"theirs": b"theirs"})
    two.sync()
    assert any("but no HEAD" in message for message in two.messages)
    one.sync()
    assert clones.stored() == {**BEFORE, "theirs": b"theirs"}
