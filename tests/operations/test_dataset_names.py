"""Datasets with long and unusual names, on both kinds of store, and those that were written in the old spelling."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from amlctl.core import store_keys
from amlctl.core.events import null_sink
from amlctl.core.store_keys import dataset_folder, old_folder
from amlctl.errors import UsageError
from amlctl.operations.dataset.listing import stats
from amlctl.operations.store.gc import gc
from amlctl.operations.store.needed import KeepRules
from amlctl.operations.store.verify import verify
from amlctl.snapshots.heads import list_datasets
from amlctl.stores.azure_blob.store import AzureBlobStore
from amlctl.stores.contract import Store
from amlctl.stores.directory import DirectoryStore
from tests.support.azurite import Azurite
from tests.support.clock import YEAR_LATER
from tests.support.clones import Clone, Clones, random_tree

LONG = [
    "\u6570" * 80,
    "\u0434" * 120,
    "\u0928\u092e\u0938\u094d\u0924\u0947" * 12,
    "caf\u00e9 " * 30 + "x",
    "it's 100% \u2116 7",
]


@pytest.fixture(params=["folder", "container"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "folder":
        yield DirectoryStore(tmp_path / "store")
        return
    azurite: Azurite = request.getfixturevalue("azurite")
    opened = AzureBlobStore(f"{azurite.url}/{azurite.new_container()}/p", {"AZURE_STORAGE_KEY": azurite.key})
    yield opened
    opened.close()


@pytest.mark.parametrize("name", LONG)
def test_a_long_name_is_synced_and_pulled(store: Store, tmp_path: Path, name: str) -> None:
    one, two = Clone(tmp_path / "one", store), Clone(tmp_path / "two", store)
    dataset = f"raw/{name}"
    tree = random_tree(1, 10)
    one.make(tree, dataset)
    one.sync(dataset)
    one.make(tree | {"new": b"1"}, dataset)
    one.sync(dataset)
    two.pull(dataset)
    assert two.project.dataset_path(dataset).joinpath("new").read_bytes() == b"1"
    assert verify(store, null_sink).damaged == []
    assert [found.dataset for found in stats(store).datasets] == [dataset]


@pytest.mark.parametrize("do", ["sync", "foresee"])
def test_a_name_that_is_too_long_is_refused_before_anything_is_done(store: Store, tmp_path: Path, do: str) -> None:
    one = Clone(tmp_path / "one", store)
    dataset = "raw/" + "\U0001f680" * 40
    one.make({"a": b"1"}, dataset)
    with pytest.raises(UsageError, match="480 bytes in a store, and the limit is 255"):
        getattr(one, do)(dataset)
    assert store.traffic.requests == 0


@pytest.mark.parametrize("dataset", ["raw/\u6570\u636e", "raw/it's"])
@pytest.mark.parametrize("is_sharded", [False, True])
def test_what_has_the_old_spelling_is_read_and_continued_in_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str, *, is_sharded: bool
) -> None:
    if is_sharded:
        monkeypatch.setattr("amlctl.snapshots.manifests.SHARD_FROM", 8)
        monkeypatch.setattr("amlctl.snapshots.manifests.SHARD_MEAN", 4)
    clones = Clones(tmp_path)
    one, two = clones["one"], clones["two"]
    with monkeypatch.context() as old:
        old.setattr(
            store_keys,
            "_spelled",
            lambda part: part if store_keys._is_plain(part) else store_keys._escaped(part),
        )
        one.make(random_tree(1, 24), dataset)
        first = one.sync(dataset)
    assert {key for key in clones.stored_keys() if key.endswith("/HEAD")} == {f"{old_folder(dataset)}/HEAD"}
    assert list_datasets(clones.store) == [dataset]
    assert one.sync(dataset).unchanged == 24
    two.pull(dataset)
    assert clones.stored(dataset) == random_tree(1, 24)
    assert verify(clones.store, null_sink).damaged == []
    gc(clones.store, KeepRules(datetime.now(UTC)), delete=True, sink=null_sink)  # the fence makes the new HEAD
    assert f"{dataset_folder(dataset)}/HEAD" in clones.stored_keys()
    assert list_datasets(clones.store) == [dataset]
    one.make(random_tree(1, 24) | {"new": b"1"}, dataset)
    one.sync(dataset)
    two.pull(dataset)
    assert clones.stored(dataset) == random_tree(1, 24) | {"new": b"1"}
    assert verify(clones.store, null_sink).damaged == []
    clones["three"].pull(dataset, snapshot=first.snapshot)
    gc(clones.store, KeepRules(YEAR_LATER), delete=True, sink=null_sink)
    assert f"{old_folder(dataset)}/HEAD" not in clones.stored_keys()
    assert verify(clones.store, null_sink).damaged == []
    clones["four"].pull(dataset, snapshot=first.snapshot)  # one of the last ten
