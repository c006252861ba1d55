"""`dataset`: what a store has, for everybody; a removal loses nothing and can be undone."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from amlctl.core.events import null_sink
from amlctl.errors import Conflict, NeedsConfirmation, NotFound
from amlctl.operations.dataset.listing import list_stored, show_stored
from amlctl.operations.dataset.removal import remove, restore
from amlctl.operations.store.gc import gc
from amlctl.operations.store.needed import KeepRules
from amlctl.operations.store.verify import verify
from amlctl.runs.produced import Publisher, make_newest
from amlctl.runs.records import save_record
from amlctl.snapshots.heads import read_head
from amlctl.stores.azure_blob.store import AzureBlobStore
from tests.support.azurite import Azurite
from tests.support.clock import NOW
from tests.support.clones import DATASET, Clone, Clones, random_tree
from tests.support.runs import run_record

LATER = NOW + timedelta(days=29)
MUCH_LATER = NOW + timedelta(days=31)
TREE = random_tree(1, 12)


@pytest.fixture
def clones(tmp_path: Path) -> Clones:
    found = Clones(tmp_path)
    found["one"].make(TREE)
    found["one"].sync()
    found["two"].pull()
    return found


def _remove(clones: Clones, dataset: str = DATASET) -> None:
    remove(clones.store, dataset, now=NOW, is_sure=True)


def test_a_list_says_who_has_written_what(clones: Clones) -> None:
    clones["two"].make({"a": b"1"}, "working/y")
    clones["two"].sync("working/y")
    x, y = list_stored(clones.store).datasets
    assert (x.dataset, x.files, len(x.snapshots)) == (DATASET, 12, 1)
    assert (y.dataset, y.files, y.bytes) == ("working/y", 1, 1)
    assert "@" in x.written_by
    assert x.written_at


def test_what_a_run_has_made_is_written_by_the_run(clones: Clones) -> None:
    made = Publisher(clones.store, clones["one"].root, "working/made", made_by="run r").publish()
    make_newest(clones.store, "working/made", made.manifest_key, None)
    assert [one.written_by for one in list_stored(clones.store).datasets if one.dataset == "working/made"] == ["run r"]


def test_a_removal_asks_and_names_the_runs(clones: Clones) -> None:
    head = read_head(clones.store, DATASET)
    assert head is not None
    more = {"datasets": {DATASET: head.snapshot}, "manifests": {DATASET: head.manifest_key}}
    for run in ("done", "done2"):
        save_record(clones.store, run_record(run, "a.py", status="Completed", **more))
    save_record(clones.store, run_record("busy", "a.py", status="Running", produces=[DATASET]))
    with pytest.raises(NeedsConfirmation) as caught:
        remove(clones.store, DATASET, now=NOW, is_sure=False)
    assert list(caught.value.details) == [
        "run busy is active and will produce it",
        "2 runs have read it; those snapshots are kept as long as the runs",
    ]
    assert read_head(clones.store, DATASET) == head
    shown = show_stored(clones.store, DATASET)
    assert [list(one.runs) for one in shown.snapshots] == [["done2", "done"]]
    assert list(shown.produced_by) == ["busy"]


def test_a_removed_dataset_is_gone_for_everybody_and_comes_back_whole(clones: Clones) -> None:
    _remove(clones)
    found = list_stored(clones.store)
    assert not found.datasets
    assert [one.dataset for one in found.removed] == [DATASET]
    assert verify(clones.store, null_sink).damaged == []
    with pytest.raises(NotFound, match="was removed"):
        clones["three"].pull()
    with pytest.raises(NotFound):
        _remove(clones)
    assert not gc(clones.store, KeepRules(LATER), delete=True, sink=null_sink).keys
    assert restore(clones.store, DATASET, null_sink).files == 12
    clones["three"].pull()
    assert clones["three"].tree == TREE
    assert clones["two"].sync().added == 0
    with pytest.raises(NotFound, match="not removed"):
        restore(clones.store, DATASET, null_sink)


def test_a_clock_that_is_behind_shortens_nothing(clones: Clones) -> None:
    remove(clones.store, DATASET, now=NOW - timedelta(days=365), is_sure=True)
    assert not gc(clones.store, KeepRules(LATER), delete=True, sink=null_sink).keys
    assert restore(clones.store, DATASET, null_sink).files == 12


def test_edits_made_meanwhile_are_merged_after_a_restore(clones: Clones) -> None:
    two = clones["two"]
    two.make(TREE | {"new": b"by two"})
    _remove(clones)
    with pytest.raises(Conflict, match="was removed"):
        two.sync()
    restore(clones.store, DATASET, null_sink)
    assert two.sync().added == 1
    clones["one"].pull()
    assert clones["one"].tree == TREE | {"new": b"by two"}


def test_a_sync_starts_it_again_only_by_force(clones: Clones) -> None:
    _remove(clones)
    two = clones["two"]
    two.make({"other": b"1"})
    two.sync(force=True)
    clones["one"].pull(yes=True)
    assert clones["one"].tree == {"other": b"1"}
    assert [one.dataset for one in list_stored(clones.store).datasets] == [DATASET]


@pytest.mark.parametrize("layout", ["pack", "mirror"])
def test_gc_deletes_a_removed_dataset_in_the_end(clones: Clones, layout: str) -> None:
    one = clones["one"]
    one.make({"sub/a": b"of the dataset inside"}, f"{DATASET}/inside")
    one.sync(f"{DATASET}/inside", layout=layout)
    one.make(TREE)
    one.sync(layout=layout)
    _remove(clones)
    assert gc(clones.store, KeepRules(MUCH_LATER), delete=True, sink=null_sink).is_deleted
    with pytest.raises(NotFound):
        restore(clones.store, DATASET, null_sink)
    assert verify(clones.store, null_sink).damaged == []
    clones["two"].pull(f"{DATASET}/inside")
    kept = [key for key in clones.stored_keys() if key.startswith(("packs/", "objects/", "mirror/"))]
    assert len(kept) == 1
    assert not list_stored(clones.store).removed
    clones["two"].sync(yes=True)  # nothing stands in the way of a new one
    assert [one.dataset for one in list_stored(clones.store).datasets] == [DATASET, f"{DATASET}/inside"]


@pytest.mark.parametrize("layout", ["pack", "mirror"])
def test_what_a_run_reads_survives_its_dataset(clones: Clones, layout: str) -> None:
    clones["one"].sync(layout=layout)
    head = read_head(clones.store, DATASET)
    assert head is not None
    more = {"datasets": {DATASET: head.snapshot}, "manifests": {DATASET: head.manifest_key}}
    save_record(clones.store, run_record("r", "a.py", status="Failed", **more))
    _remove(clones)
    gc(clones.store, KeepRules(MUCH_LATER), delete=True, sink=null_sink)
    assert verify(clones.store, null_sink).damaged == []
    restore(clones.store, DATASET, null_sink)
    clones["three"].pull()
    assert clones["three"].tree == TREE


def test_a_run_does_not_bring_a_removed_dataset_back(clones: Clones) -> None:
    head = read_head(clones.store, DATASET)
    assert head is not None
    made = Publisher(clones.store, clones["one"].root, DATASET, base_key=head.manifest_key).publish()
    _remove(clones)
    with pytest.raises(Conflict, match="removed"):
        make_newest(clones.store, DATASET, made.manifest_key, head.manifest_key)
    assert read_head(clones.store, DATASET) is None


@pytest.mark.parametrize(("keep", "days", "kept"), [(1, 2, 1), (3, 2, 3), (1, 40, 4), (10, 2, 4)])
def test_gc_keeps_as_many_snapshots_as_wanted_and_what_is_young(
    tmp_path: Path, keep: int, days: int, kept: int
) -> None:
    clones = Clones(tmp_path)
    for number in range(4):
        clones["one"].make(random_tree(number, 12))
        clones["one"].sync(yes=True)
    older_than_s = days * 86400.0
    gc(
        clones.store,
        KeepRules(MUCH_LATER, keep, young_s=older_than_s, removed_s=older_than_s),
        delete=True,
        sink=null_sink,
    )
    assert len(list_stored(clones.store).datasets[0].snapshots) == kept


@pytest.mark.parametrize("layout", ["pack", "mirror"])
def test_the_same_in_a_container(tmp_path: Path, azurite: Azurite, layout: str) -> None:
    url = f"{azurite.url}/{azurite.new_container()}"
    with closing(AzureBlobStore(url, {"AZURE_STORAGE_KEY": azurite.key})) as store:
        one, two = Clone(tmp_path / "one", store), Clone(tmp_path / "two", store)
        one.make(TREE)
        one.sync(layout=layout)
        remove(store, DATASET, now=NOW, is_sure=True)
        with pytest.raises(Conflict, match="was removed"):
            one.sync()
        restore(store, DATASET, null_sink)
        two.pull()
        assert two.tree == TREE
        remove(store, DATASET, now=NOW, is_sure=True)
        gc(store, KeepRules(MUCH_LATER), delete=True, sink=null_sink)
        left = {entry.key.partition("/")[0] for entry in store.list("")}
        assert left <= {"datasets", "gc", "format.json"}
        assert one.sync().added == len(TREE)
