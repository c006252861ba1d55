"""What gc keeps, and what it never does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from amlctl.core.events import null_sink
from amlctl.errors import Conflict, IntegrityError
from amlctl.localfs.project import Project
from amlctl.operations.pull import pull
from amlctl.operations.store_gc import gc
from amlctl.operations.sync import SyncOptions, sync
from amlctl.stores.directory import DirectoryStore
from amlctl.transfer.heads import read_head
from amlctl.transfer.known import GC_MARK
from tests.support.clock import NOW, YEAR_LATER
from tests.support.trees import Tree, read_tree, write_tree

DATASET = "working/x"
OPTIONS = SyncOptions()


class Pair:
    """Two clones and their store."""

    def __init__(self, folder: Path) -> None:
        self.store = DirectoryStore(folder / "store")
        self.one, self.two = Project(folder / "one"), Project(folder / "two")
        for project in (self.one, self.two):
            project.dataset_path(DATASET).mkdir(parents=True)

    def write(self, project: Project, tree: Tree) -> None:
        write_tree(project.dataset_path(DATASET), tree)

    def sync(self, project: Project) -> str:
        return sync(project, self.store, DATASET, OPTIONS, null_sink).snapshot

    def pulled(self, project: Project, snapshot: str | None = None) -> Tree:
        pull(project, self.store, DATASET, SyncOptions(theirs=True), null_sink, snapshot=snapshot)
        return read_tree(project.dataset_path(DATASET))


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_the_last_ten_snapshots_stay_and_older_ones_go(pair: Pair) -> None:
    snapshots = []
    for number in range(13):
        pair.write(pair.one, {"file": b"%d" % number})
        snapshots.append(pair.sync(pair.one))
    assert gc(pair.store, delete=True, now=NOW, sink=null_sink).keys == []
    listed = gc(pair.store, delete=False, now=YEAR_LATER, sink=null_sink)
    assert gc(pair.store, delete=True, now=YEAR_LATER, sink=null_sink).keys == listed.keys
    assert len([key for key in listed.keys if key.startswith("objects/")]) == 3
    assert pair.pulled(pair.two, snapshots[3]) == {"file": b"3"}
    assert [key for key in listed.keys if key.endswith("/HEAD")] == []


def test_what_a_run_names_stays(pair: Pair) -> None:
    pair.write(pair.one, {"file": b"of the run"})
    first = pair.sync(pair.one)
    head = read_head(pair.store, DATASET)
    assert head is not None
    record = {"run": "r", "code": "c" * 32, "manifests": {DATASET: head.manifest_key}}
    pair.store.put("runs/r/record.json", json.dumps(record).encode())
    for number in range(12):
        pair.write(pair.one, {"file": b"%d" % number})
        pair.sync(pair.one)
    gc(pair.store, delete=True, now=YEAR_LATER, sink=null_sink)
    assert pair.pulled(pair.two, first) == {"file": b"of the run"}


def test_a_manifest_that_lost_a_part_stops_gc(pair: Pair) -> None:
    pair.write(pair.one, {f"d/{number:05}": b"%d" % number for number in range(10_500)})
    pair.sync(pair.one)
    shard = next(entry.key for entry in pair.store.list("datasets/") if "/shards/" in entry.key)
    pair.store.delete(shard)
    with pytest.raises(IntegrityError, match="a part of"):
        gc(pair.store, delete=True, now=YEAR_LATER, sink=null_sink)
    assert list(pair.store.list("packs/"))


def test_a_sync_that_finds_old_bytes_by_luck_looks_out_for_gc(pair: Pair) -> None:
    """The store has an object that nothing names; this sync did not know, and gc has begun to look."""
    pair.write(pair.one, {"file": b"old bytes"})
    pair.sync(pair.one)
    pair.write(pair.one, {"file": b"newer bytes"})
    pair.sync(pair.one)
    pair.store.put(GC_MARK, b'{"started_at": "just now"}')
    pair.write(pair.two, {"file": b"old bytes"})
    with pytest.raises(Conflict, match="gc"):
        sync(pair.two, pair.store, DATASET, SyncOptions(ours=True), null_sink)
    with pytest.raises(Conflict, match="another gc"):
        gc(pair.store, delete=True, now=NOW, sink=null_sink)
    gc(pair.store, delete=True, now=YEAR_LATER, sink=null_sink)
    sync(pair.two, pair.store, DATASET, SyncOptions(ours=True), null_sink)
    assert pair.pulled(pair.one) == {"file": b"old bytes"}


def test_a_merge_leaves_no_snapshot_of_one_side_in_the_store(pair: Pair) -> None:
    pair.write(pair.one, {"a": b"1"})
    pair.sync(pair.one)
    pair.pulled(pair.two)
    pair.write(pair.one, {"of one": b"1"})
    pair.sync(pair.one)
    pair.write(pair.two, {"of two": b"2"})
    merged = pair.sync(pair.two)
    before = {entry.key for entry in pair.store.list("datasets/")}
    assert pair.sync(pair.two) == merged
    assert {entry.key for entry in pair.store.list("datasets/")} == before
    assert len([key for key in before if key.endswith(".gz")]) == 3
    assert pair.pulled(pair.one) == {"a": b"1", "of one": b"1", "of two": b"2"}


def test_pull_spares_what_no_snapshot_has_seen(pair: Pair) -> None:
    pair.write(pair.one, {"notes.tmp": b"theirs"})
    pair.sync(pair.one)
    pair.write(pair.two, {"notes.tmp": b"mine", ".amlctlignore": b"*.tmp\n"})
    with pytest.raises(Conflict, match="unsynced"):
        pull(pair.two, pair.store, DATASET, OPTIONS, null_sink)
    assert read_tree(pair.two.dataset_path(DATASET))["notes.tmp"] == b"mine"
