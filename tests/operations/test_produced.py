"""What a run produces becomes the newest snapshot without taking away what others have synced meanwhile."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from amlctl.core.events import Warned, null_sink
from amlctl.core.manifest import Kind
from amlctl.errors import Conflict
from amlctl.operations.store.gc import gc
from amlctl.operations.store.needed import KeepRules
from amlctl.operations.sync.pull import pull
from amlctl.operations.sync.sync import SyncOptions, sync
from amlctl.runs.produced import Publisher, make_newest
from amlctl.snapshots.heads import read_head
from amlctl.snapshots.manifests import read_manifest
from tests.support.bench import Bench, wait_for_state
from tests.support.clones import DATASET, OPTIONS, Clone, Clones, random_tree
from tests.support.faulty_store import Call, FaultyStore
from tests.support.trees import Tree, read_tree, write_tree


@pytest.fixture
def clones(tmp_path: Path) -> Clones:
    return Clones(tmp_path)


def _head_key(clones: Clones) -> str | None:
    head = read_head(clones.store, DATASET)
    return None if head is None else head.manifest_key


def _publish(clones: Clones, tree: Tree, base: str | None = None) -> str:
    """As a run does it that was submitted when HEAD was `base`; the key of the manifest."""
    folder = clones.folder / "container"
    write_tree(folder, tree)
    return Publisher(clones.store, folder, DATASET, base_key=base).publish().manifest_key


def _synced(clone: Clone, tree: Tree) -> None:
    clone.make(tree)
    clone.sync()


def test_the_first_snapshot(clones: Clones) -> None:
    tree = random_tree(1, 20)
    make_newest(clones.store, DATASET, _publish(clones, tree), None)
    assert clones.stored() == tree


def test_a_head_that_stood_still_is_replaced(clones: Clones) -> None:
    _synced(clones["one"], random_tree(1, 20))
    base = _head_key(clones)
    tree = random_tree(2, 10)
    make_newest(clones.store, DATASET, _publish(clones, tree), base)
    assert clones.stored() == tree


@pytest.mark.parametrize("had_head", [True, False])
def test_what_others_have_synced_meanwhile_stays(clones: Clones, had_head: bool) -> None:
    before: Tree = {}
    if had_head:
        before = random_tree(1, 20)
        _synced(clones["one"], before)
    base = _head_key(clones)
    _synced(clones["one"], {**before, "theirs": b"theirs" * 100})
    produced = {**before, "ours": b"ours" * 100}
    newest = make_newest(clones.store, DATASET, _publish(clones, produced), base)
    assert clones.stored() == {**before, "theirs": b"theirs" * 100, "ours": b"ours" * 100}
    assert clones.manifest().snapshot == newest.snapshot


def test_the_same_file_changed_on_both_sides_leaves_head_alone(clones: Clones) -> None:
    before = random_tree(1, 20)
    _synced(clones["one"], before)
    base = _head_key(clones)
    theirs = {**before, "d1/f1": b"theirs"}
    _synced(clones["one"], theirs)
    ours = {**before, "d1/f1": b"ours"}
    key = _publish(clones, ours)
    with pytest.raises(Conflict) as caught:
        make_newest(clones.store, DATASET, key, base)
    assert caught.value.details == ("d1/f1",)
    assert clones.stored() == theirs
    snapshot = key.rpartition("/")[2].partition("-")[0]
    assert snapshot in caught.value.message
    clones["two"].pull(snapshot=snapshot)
    assert clones["two"].tree == ours


def test_a_sync_in_the_last_moment_loses_nothing(clones: Clones) -> None:
    one = clones["one"]
    before = random_tree(1, 20)
    _synced(one, before)
    base = _head_key(clones)
    key = _publish(clones, {**before, "ours": b"ours"})
    others = iter([{**before, "first": b"1"}, {**before, "first": b"1", "second": b"2"}])

    def act(call: Call) -> None:
        if call.method == "swap" and not call.is_done and (tree := next(others, None)) is not None:
            _synced(one, tree)

    make_newest(FaultyStore(clones.store, act), DATASET, key, base)
    assert next(others, None) is None
    assert clones.stored() == {**before, "ours": b"ours", "first": b"1", "second": b"2"}


def test_doing_it_again_changes_nothing(clones: Clones) -> None:
    before = random_tree(1, 20)
    _synced(clones["one"], before)
    base = _head_key(clones)
    _synced(clones["one"], {**before, "theirs": b"1"})
    key = _publish(clones, {**before, "ours": b"2"})
    first = make_newest(clones.store, DATASET, key, base)
    head = _head_key(clones)
    assert make_newest(clones.store, DATASET, key, base) == first
    assert _head_key(clones) == head


@pytest.mark.parametrize("count", [3, 20])
def test_a_mirror_that_moved_keeps_its_newer_files(clones: Clones, count: int) -> None:
    one, before = clones["one"], random_tree(1, count)
    name = sorted(before)[0]
    one.make(before)
    one.sync(layout="mirror")
    base = _head_key(clones)
    one.make({**before, name: b"theirs"})
    one.sync()
    make_newest(clones.store, DATASET, _publish(clones, {**before, "ours": b"ours"}, base), base)
    merged = {**before, name: b"theirs", "ours": b"ours"}
    assert clones.stored() == merged
    # The plain file of what came from the run follows with the next change.
    one.pull()
    one.make({**merged, "more": b"more"})
    one.sync()
    assert read_tree(Path(clones.store.url) / "mirror" / DATASET) == {**merged, "more": b"more"}


def test_what_is_not_on_this_machine_becomes_plain_files_with_the_next_sync(clones: Clones) -> None:
    """What a node of Azure ML has produced."""
    one, before = clones["one"], random_tree(1, 20)
    one.make(before)
    one.sync(layout="mirror")
    base = _head_key(clones)
    after = {**before, "ours": b"ours", sorted(before)[0]: b"changed"}
    write_tree(clones.folder / "container", after)
    key = Publisher(clones.store, clones.folder / "container", DATASET, base_key=base).publish().manifest_key
    assert read_tree(Path(clones.store.url) / "mirror" / DATASET) == before
    make_newest(clones.store, DATASET, key, base)
    assert (clones.stored(), clones.manifest().layout) == (after, "mirror")
    one.pull()
    one.make({**after, "more": b"more"})
    one.sync()
    assert read_tree(Path(clones.store.url) / "mirror" / DATASET) == {**after, "more": b"more"}


PRODUCES = """
    import os, pathlib, time
    made = pathlib.Path(os.environ["AMLCTL_DATA_BLOBS_DIR"]) / "working/made"
    made.mkdir(parents=True, exist_ok=True)
    made.joinpath("file").write_text("by the run")
    limit = time.monotonic() + 60
    while not pathlib.Path(os.environ["GO"]).exists():
        assert time.monotonic() < limit
        time.sleep(0.02)
"""


@pytest.mark.parametrize("theirs", ["file", "other"])
def test_a_run_while_somebody_syncs_what_it_produces(bench: Bench, tmp_path: Path, theirs: str) -> None:
    def synced(text: str, name: str) -> str:
        bench.write(f"data_blobs/working/made/{name}", text)
        return sync(bench, "working/made", OPTIONS).snapshot

    synced("before", "file")
    bench.script(PRODUCES)
    variables = {"GO": str(tmp_path / "go")}
    run = bench.submit("train.py", produces=("working/made",), variables=variables, is_detached=True).record.run
    wait_for_state(bench, run, "Running")
    moved = synced("by somebody", theirs)
    (tmp_path / "go").touch()
    record = wait_for_state(bench, run, "Completed", "Failed")
    assert record.status == "Completed"
    head = read_head(bench.store, "working/made")
    assert head is not None
    clone = Clone(tmp_path / "clone", bench.store)
    made = clone.project.dataset_path("working/made")
    if theirs == "other":
        assert record.error is None
        assert record.published == {"working/made": head.snapshot}
        clone.pull("working/made")
        assert read_tree(made) == {"file": b"by the run", "other": b"by somebody"}
        return
    assert head.snapshot == moved
    assert record.published == {}
    assert record.error is not None
    assert "is kept, but is not the latest" in record.error["message"]
    assert record.error["hint"].startswith("amlctl sync --pull --snapshot ")
    assert record.error["hint"] in bench.workspace.read_log(run, 0).data.decode()
    # It stays, however old it is and however many snapshots come after it.
    for number in range(12):
        synced(str(number), "other")
    gc(bench.store, KeepRules(datetime.now(UTC) + timedelta(days=9)), delete=True, sink=null_sink)
    clone.pull("working/made", snapshot=record.error["hint"].split()[4])
    assert read_tree(made) == {"file": b"by the run"}


def test_a_submit_that_waits_says_what_is_not_the_newest(bench: Bench, tmp_path: Path) -> None:
    """The script itself is the somebody else."""
    bench.write("data_blobs/working/made/file", "before")
    sync(bench, "working/made", OPTIONS)
    bench.write("data_blobs/working/made/file", "by somebody")
    bench.script(PRODUCES.replace("    limit =", "    os.system(os.environ['SYNC'])\n    limit ="))
    amlctl = [sys.executable, "-m", "amlctl", "--quiet", "--project", str(bench.project.root)]
    command = shlex.join(["env", "-i", f"HOME={tmp_path}", *amlctl, "sync", "data_blobs/working/made"])
    (bench.project.root / ".amlctl.toml").touch()
    (tmp_path / "go").touch()
    variables = {"GO": str(tmp_path / "go"), "SYNC": command}
    result = bench.submit("train.py", produces=("working/made",), variables=variables)
    assert result.failure is None
    reported = [event.message for event in bench.reported(Warned)]
    assert any("amlctl sync --pull --snapshot" in message for message in reported)
    document = result.to_json()
    assert document["status"] == "Completed"
    assert document["error"]["kind"] == "conflict"


def test_a_produced_dataset_is_what_a_sync_would_make_of_it(bench: Bench) -> None:
    script = """
        import os, pathlib
        root = pathlib.Path(os.environ["AMLCTL_DATA_BLOBS_DIR"], "working/new")
        root.mkdir(parents=True)
        for number in range(12):
            root.joinpath(f"{number}.txt").write_bytes(os.urandom(900))
            root.joinpath(f"{number}.tmp").write_bytes(b"x")
        root.joinpath("a.bak").write_bytes(b"x")
        root.joinpath("large").write_bytes(os.urandom(2_000))
        root.joinpath("scratch").mkdir()
        root.joinpath("scratch/x").write_bytes(b"x")
    """
    bench.write("data_blobs/.amlctlignore", "*.tmp\n")
    bench.write("data_blobs/working/.amlctlignore", "scratch/\n")
    sizes = replace(bench.settings.sync, pack_below=1_000, pack_size=3_000, ignore=("*.bak",))
    bench = bench.with_settings(sync=sizes)
    bench.script(script)
    record = bench.submit("train.py", produces=("working/new",)).record
    assert record.status == "Completed"
    head = read_head(bench.store, "working/new")
    assert head is not None
    manifest = read_manifest(bench.store, head.manifest_key)
    assert {entry.path for entry in manifest.entries} == {"large", *(f"{number}.txt" for number in range(12))}
    assert len(manifest.pack_sizes) == 3
    assert {place.kind for place in manifest.places.values()} == {Kind.PACK, Kind.OBJECT}
    options = SyncOptions("auto", sizes.pack_below, sizes.pack_size, sizes.ignore)
    pull(bench, "working/new", options)
    again = sync(bench, "working/new", replace(options, checksum=True))
    assert (again.snapshot, again.uploaded_blobs) == (head.snapshot, 0)
