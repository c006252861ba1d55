"""The layout `mirror`: plain files under their own names, the newest bytes only."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event, Lock
from typing import Any

import pytest

from amlctl.core.events import Note
from amlctl.core.store_keys import dataset_folder, head_key
from amlctl.errors import Conflict, IntegrityError, NeedsConfirmation, NotFound
from amlctl.operations.sync.sync import SyncResult, sync
from amlctl.snapshots.contents import read_content
from tests.support.clones import DATASET, OPTIONS, Clone, Clones, random_tree
from tests.support.context import Context
from tests.support.faulty_store import Call, FaultyStore
from tests.support.trees import Tree, read_tree


@pytest.fixture
def clones(tmp_path: Path) -> Clones:
    return Clones(tmp_path)


@pytest.fixture
def one(clones: Clones) -> Clone:
    return clones["one"]


def _mirror(clones: Clones) -> Path:
    return Path(clones.store.url) / "mirror" / DATASET


def test_files_stand_under_their_own_names(clones: Clones, one: Clone) -> None:
    tree = random_tree(1) | {"empty": b""}
    one.make(tree)
    one.sync(layout="mirror")
    assert read_tree(_mirror(clones)) == tree
    assert clones.stored() == tree


def test_what_is_gone_here_stays_there_until_delete(clones: Clones, one: Clone) -> None:
    tree = random_tree(1)
    one.make(tree)
    one.sync(layout="mirror")
    (one.root / "d1/f1").unlink()
    one.sync()
    assert read_tree(_mirror(clones)) == tree
    assert clones.stored() == one.tree
    one.sync(delete=True)
    assert read_tree(_mirror(clones)) == one.tree


def test_delete_stops_at_a_tenth_unless_it_is_meant(clones: Clones, one: Clone) -> None:
    tree = random_tree(1)
    one.make(tree)
    one.sync(layout="mirror")
    for path in sorted(tree)[:7]:
        (one.root / path).unlink()
    with pytest.raises(NeedsConfirmation, match="7 of 60") as caught:
        one.sync(delete=True)
    assert caught.value.hint == f"if that is intended: amlctl sync --delete data_blobs/{DATASET} --yes"
    assert read_tree(_mirror(clones)) == tree
    one.sync(delete=True, yes=True)
    assert read_tree(_mirror(clones)) == one.tree


def test_delete_leaves_the_datasets_inside_alone(clones: Clones, one: Clone) -> None:
    inner = f"{DATASET}/inner"
    one.make(random_tree(1))
    one.make({"a": b"1"}, inner)
    one.sync(inner, layout="mirror")
    two = clones["two"]
    two.make(random_tree(1))
    two.sync(layout="mirror", delete=True)
    assert clones.stored(inner) == {"a": b"1"}


def test_an_older_snapshot_is_gone(clones: Clones, one: Clone) -> None:
    one.make({"changed": b"old", "same": b"same"})
    old = one.sync(layout="mirror")
    (one.root / "changed").write_bytes(b"new")
    one.sync()
    two = clones["two"]
    two.make({})
    with pytest.raises(NotFound, match="newest") as caught:
        two.pull(snapshot=old.snapshot)
    assert caught.value.details == ("changed",)
    assert two.tree == {}


def test_an_older_snapshot_that_was_packed_once_is_still_there(clones: Clones, one: Clone) -> None:
    one.make({"changed": b"old", "same": b"same"})
    old = one.sync()
    one.sync(layout="mirror")
    (one.root / "changed").write_bytes(b"new")
    one.sync()
    clones["two"].pull(snapshot=old.snapshot)
    assert clones["two"].tree == {"changed": b"old", "same": b"same"}


@pytest.mark.parametrize("then", ["went back", "went again", "changed again", "continued", "became packs"])
def test_an_interrupted_sync_is_completed_by_the_next(clones: Clones, one: Clone, then: str) -> None:
    before: Tree = {"a": b"before", "b": b"before", "c": b"before"}
    one.make(before)
    one.sync(layout="mirror")
    one.sync_until_settled()
    one.make({**before, "new": b"stopped"} if then == "went again" else dict.fromkeys(before, b"stopped"))

    def stop(call: Call) -> None:
        if call.method == "put" and call.key.startswith("mirror/") and call.is_done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Clone(one.project.root, FaultyStore(clones.store, stop)).sync(jobs=1)
    if then != "continued":
        one.make({**before, "a": b"later"} if then == "changed again" else before)
    one.sync(layout="pack" if then == "became packs" else "auto")
    assert clones.stored() == one.tree
    if then != "became packs":
        assert read_tree(_mirror(clones)).items() >= one.tree.items()
    one.sync()
    watched = FaultyStore(clones.store, lambda call: None)
    Clone(one.project.root, watched).sync()
    assert len(watched.calls) == 1


def test_a_reader_of_a_file_being_replaced_gets_try_again(clones: Clones, one: Clone) -> None:
    one.make(random_tree(1))
    first = one.sync(layout="mirror")
    manifest = clones.manifest()
    one.make(dict.fromkeys(random_tree(1), b"newer"))
    one.sync()
    assert clones.manifest().snapshot != first.snapshot
    with pytest.raises(IntegrityError, match="replaced by a sync") as caught:
        read_content(clones.store, manifest, manifest.entries[0])
    assert caught.value.hint.startswith("run it again")


@pytest.mark.parametrize("harm", ["flip", "delete"])
def test_damage_at_head_is_reported_and_repaired(clones: Clones, one: Clone, harm: str) -> None:
    tree = random_tree(1)
    one.make(tree)
    one.sync(layout="mirror")
    victim = _mirror(clones) / "d1/f1"
    if harm == "flip":
        victim.write_bytes(b"not this")
    else:
        victim.unlink()
    with pytest.raises(IntegrityError if harm == "flip" else NotFound):
        clones.stored()
    with pytest.raises(IntegrityError) as caught:
        one.sync(verify=True)
    assert caught.value.details == ("d1/f1",)
    one.sync(repair=True)
    assert read_tree(_mirror(clones)) == tree


class TestTwoMachines:
    """Both write the same plain files: one after the other, so that none ends with the other's bytes."""

    @pytest.fixture
    def both(self, clones: Clones) -> tuple[Clone, Clone]:
        one = clones["one"]
        one.make({"same": b"base", "mine": b"base", "yours": b"base"})
        one.sync(layout="mirror")
        other = clones["other"]
        other.pull()
        return one, other

    def _meanwhile(self, one: Clone, other: Clone, **options: Any) -> SyncResult:
        """What `one` gets that begins to sync while `other` is at its first plain file."""
        is_waiting = Event()

        def sink(event: object) -> None:
            if isinstance(event, Note) and "waiting until" in event.message:
                is_waiting.set()

        with ThreadPoolExecutor(1) as pool:
            started: list[Future[SyncResult]] = []
            first = iter([True])

            def act(call: Call) -> None:
                if call.method == "put" and call.key.startswith("mirror/") and next(first, False):
                    wanted = replace(OPTIONS, **options)
                    started.append(pool.submit(sync, Context(one.project, one.store, sink), DATASET, wanted))
                    assert is_waiting.wait(20)

            Clone(other.project.root, FaultyStore(other.store, act)).sync()
            return started[0].result()

    def test_changes_of_different_files_merge(self, clones: Clones, both: tuple[Clone, Clone]) -> None:
        one, other = both
        (one.root / "mine").write_bytes(b"changed by one")
        (other.root / "yours").write_bytes(b"changed by the other")
        self._meanwhile(one, other)
        merged = {"same": b"base", "mine": b"changed by one", "yours": b"changed by the other"}
        assert clones.stored() == merged
        assert read_tree(_mirror(clones)) == merged

    def test_the_loser_has_overwritten_nothing(self, clones: Clones, both: tuple[Clone, Clone]) -> None:
        one, other = both
        (one.root / "same").write_bytes(b"changed by one")
        (other.root / "same").write_bytes(b"changed by the other")
        with pytest.raises(Conflict) as caught:
            self._meanwhile(one, other)
        assert caught.value.details == ("same",)
        assert clones.stored() == other.tree

    def test_delete_takes_nothing_that_is_being_committed(self, clones: Clones, both: tuple[Clone, Clone]) -> None:
        one, other = both
        (other.root / "new").write_bytes(b"on its way")
        self._meanwhile(one, other, delete=True)
        assert clones.stored() == other.tree


@pytest.mark.parametrize("doing", ["put", "delete"])
def test_a_suspended_writer_writes_nothing_after_another_took_over(clones: Clones, one: Clone, doing: str) -> None:
    """As after SIGSTOP, or a closed lid, in the middle of it."""
    one.make(random_tree(1))
    one.sync(layout="mirror")
    for path in sorted(random_tree(1))[:20]:
        (one.root / path).unlink() if doing == "delete" else (one.root / path).write_bytes(b"changed")
    now, taking_over = [1000.0], Lock()

    def act(call: Call) -> None:
        if call.method != doing or not call.key.startswith("mirror/"):
            return
        with taking_over:
            if now[0] == 1000:
                key = f"{dataset_folder(DATASET)}/mirror.lease"
                held = clones.store.get_versioned(key)
                assert held is not None
                clones.store.swap(
                    key, b'{"host": "someone else", "machine": "0", "process": 1, "started": 1}', expected=held.version
                )
                now[0] += 61

    store = FaultyStore(one.store, act)
    options = replace(OPTIONS, delete=True, yes=True, jobs=1)
    with pytest.raises(Conflict, match="another machine writes the mirror"):
        sync(Context(one.project, store, one.events.append), DATASET, options, clock=lambda: now[0])
    written = [call for call in store.calls if call.method == doing and call.key.startswith("mirror/")]
    assert len(written) <= (1 if doing == "put" else one.store.concurrency)


def test_a_suspended_writer_does_not_commit_over_another(clones: Clones, one: Clone) -> None:
    two = clones["two"]
    one.make({"e": b"of one"})
    two.make({"e": b"of two"})
    has_written, may_commit = Event(), Event()
    now, moment = [1000.0], iter(range(0, 1_000_000, 61))
    pool = ThreadPoolExecutor(1)
    takes_over: list[Future[SyncResult]] = []

    def sleeps(call: Call) -> None:
        if call.method == "swap" and call.key == head_key(DATASET) and not takes_over:
            takes_over.append(pool.submit(sync_two))
            assert has_written.wait(30)
            now[0] += 61

    def wakes(call: Call) -> None:
        is_commit = call.method == "swap" and call.key == head_key(DATASET)
        if is_commit and read_tree(_mirror(clones)) == {"e": b"of two"}:
            has_written.set()
            assert may_commit.wait(30)

    def sync_two() -> SyncResult:
        try:
            store = FaultyStore(two.store, wakes)
            return sync(Context(two.project, store, two.sink), DATASET, options, clock=lambda: float(next(moment)))
        finally:
            has_written.set()

    options = replace(OPTIONS, layout="mirror")
    with pool:
        with suppress(Conflict):
            store = FaultyStore(one.store, sleeps)
            sync(Context(one.project, store, one.events.append), DATASET, options, clock=lambda: now[0])
        may_commit.set()
        takes_over[0].exception(30)
    assert clones.stored() == read_tree(_mirror(clones))


def test_dry_run_lists_what_would_be_deleted(clones: Clones, one: Clone) -> None:
    one.make(random_tree(1))
    one.sync(layout="mirror")
    (one.root / "d1/f1").unlink()
    one.events.clear()
    one.foresee(delete=True)
    assert one.messages == [f"no longer in {DATASET}: mirror/{DATASET}/d1/f1"]
    assert (_mirror(clones) / "d1/f1").exists()


def test_the_stop_comes_before_anything_is_written(clones: Clones, one: Clone) -> None:
    tree = random_tree(1)
    one.make(tree)
    one.sync(layout="mirror")
    for path in sorted(tree)[:7]:
        (one.root / path).unlink()
    with pytest.raises(NeedsConfirmation):
        one.sync(delete=True)
    assert clones.stored() == tree


def test_delete_of_what_is_not_a_mirror_is_reported(one: Clone) -> None:
    one.make(random_tree(1))
    one.sync(delete=True)
    assert any("is not a mirror" in message for message in one.messages)
