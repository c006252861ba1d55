"""gc keeps what is needed or may be needed; `test_gc_under_way.py` has what happens beside other commands."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest

from amlctl.core.events import null_sink
from amlctl.core.store_keys import GC_KEY, head_key
from amlctl.errors import IntegrityError
from amlctl.localfs.atomic import TEMPORARY_PREFIX
from amlctl.operations.store.gc import GcResult, gc
from amlctl.operations.store.needed import KeepRules
from amlctl.runs.records import save_record
from amlctl.stores.contract import Store
from tests.support.clock import NOW, YEAR_LATER
from tests.support.clones import DATASET, Clone, Clones, random_tree
from tests.support.faulty_store import FaultyStore
from tests.support.runs import run_record
from tests.support.trees import age


@pytest.fixture
def clones(tmp_path: Path) -> Clones:
    return Clones(tmp_path)


@pytest.fixture
def one(clones: Clones) -> Clone:
    return clones["one"]


def _collect(store: Store) -> GcResult:
    return gc(store, KeepRules(YEAR_LATER), delete=True, sink=null_sink)


def _snapshots(one: Clone, count: int) -> list[str]:
    """Each of them with contents of its own."""
    found = []
    for number in range(count):
        one.make(random_tree(number, 12))
        found.append(one.sync().snapshot)
    return found


def test_the_last_ten_snapshots_are_kept(clones: Clones, one: Clone) -> None:
    snapshots = _snapshots(one, 12)
    listed = gc(clones.store, KeepRules(YEAR_LATER), delete=False, sink=null_sink)
    before = clones.sizes()
    assert not listed.is_deleted
    assert listed.bytes == sum(before[key] for key in listed.keys) > 0
    deleted = _collect(clones.store)
    assert set(deleted.keys) == set(listed.keys) == before.keys() - clones.stored_keys()
    for number, snapshot in enumerate(snapshots[2:], 2):
        clones["two"].pull(snapshot=snapshot, theirs=True)
        assert clones["two"].tree == random_tree(number, 12)
    assert not any(snapshot in key for snapshot in snapshots[:2] for key in clones.stored_keys())
    assert _collect(clones.store).keys == []


def test_the_last_ten_are_those_of_head_where_all_times_are_equal(clones: Clones, one: Clone) -> None:
    snapshots = _snapshots(one, 14)
    for folder, _, names in os.walk(clones.store.url):
        for name in names:
            os.utime(Path(folder, name), (1_700_000_000, 1_700_000_000))
    _collect(clones.store)
    kept = [snapshot for snapshot in snapshots if any(snapshot in key for key in clones.stored_keys("datasets/"))]
    assert kept == snapshots[-10:]


def test_what_is_younger_than_a_day_is_kept(clones: Clones, one: Clone) -> None:
    _snapshots(one, 12)
    clones.store.put("packs/ab/" + "ab" * 16 + ".zip", b"on its way")
    for hours, is_dead in ((0, False), (23, False), (25, True)):
        found = gc(clones.store, KeepRules(NOW + timedelta(hours=hours)), delete=False, sink=null_sink)
        assert bool(found.keys) is is_dead


def test_what_a_killed_writer_has_left_goes_after_a_day(clones: Clones, one: Clone) -> None:
    _snapshots(one, 1)
    folder = clones.folder / "store/packs/ab"
    folder.mkdir(parents=True, exist_ok=True)
    old, young = folder / f"{TEMPORARY_PREFIX}old-1", folder / f"{TEMPORARY_PREFIX}young-1"
    old.write_bytes(b"half a pack")
    age(folder, 25 * 3600)
    young.write_bytes(b"half a pack")
    gc(clones.store, KeepRules(NOW), delete=False, sink=null_sink)
    assert old.exists()
    gc(clones.store, KeepRules(NOW), delete=True, sink=null_sink)
    assert not old.exists()
    assert young.exists()


def test_what_a_run_names_is_kept(clones: Clones, one: Clone) -> None:
    one.make(random_tree(100, 12))
    old = one.sync()
    record = run_record("r1", "pipeline/x.py", manifests={DATASET: old.manifest_key}, code="c0de")
    save_record(clones.store, record)
    _snapshots(one, 12)
    _collect(clones.store)
    clones["two"].pull(snapshot=old.snapshot)
    assert clones["two"].tree == random_tree(100, 12)
    clones.store.delete("runs/r1/record.json")
    _collect(clones.store)
    assert old.manifest_key not in clones.stored_keys()


def test_an_index_of_code_that_is_there_has_its_files(clones: Clones) -> None:
    """One that was sent again keeps what is older than itself; of dead code it goes before the files."""
    for code in ("dead", "again"):
        for key in (f"code/{code}/pipeline/a.py", f"code/{code}/z.lease", f"code/{code}.json"):
            clones.store.put(key, b"x")
    age(clones.folder / "store/code", 48 * 3600)
    clones.store.put("code/again.json", b"x", replace=True)
    kept = {key for key in clones.stored_keys() if "/again" in key}
    faulty = FaultyStore(clones.store, lambda call: None)
    gc(faulty, KeepRules(NOW), delete=True, sink=null_sink)
    assert {key for key in clones.stored_keys() if key.startswith("code/")} == kept
    deleted = [call.key for call in faulty.calls if call.method == "delete" and not call.is_done]
    assert deleted[0] == "code/dead.json"
    assert len(deleted) == 3


def test_nothing_is_deleted_where_head_cannot_be_followed(clones: Clones, one: Clone) -> None:
    _snapshots(one, 12)
    head = json.loads(clones.store.get(head_key(DATASET)))
    clones.store.delete(head["manifest"])
    before = clones.stored_keys()
    with pytest.raises(IntegrityError):
        _collect(clones.store)
    assert clones.stored_keys() - {GC_KEY} == before


def test_an_older_snapshot_that_cannot_be_read_is_named(clones: Clones, one: Clone) -> None:
    _snapshots(one, 2)
    head = json.loads(clones.store.get(head_key(DATASET)))["manifest"]
    [older] = [key for key in clones.stored_keys() if key.endswith(".gz") and key != head]
    clones.store.put(older, b"no manifest", replace=True)
    with pytest.raises(IntegrityError) as caught:
        _collect(clones.store)
    assert caught.value.hint.startswith("that older snapshot is lost")
    assert older in caught.value.hint
