"""gc beside other commands: nothing that is committed is ever lost, whatever the clocks and ages say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from threading import Event as Flag
from threading import Thread

import pytest

from amlctl.core.events import Event, Note, null_sink
from amlctl.core.store_keys import GC_KEY, dataset_folder, head_key
from amlctl.errors import Conflict
from amlctl.operations.store.gc import GcResult, gc
from amlctl.operations.store.needed import KeepRules
from amlctl.operations.store.verify import verify
from amlctl.snapshots.gc_mark import GcLease, GcWatch
from amlctl.snapshots.heads import fence, list_datasets, read_head
from amlctl.stores.contract import Store
from tests.support.clock import YEAR_LATER
from tests.support.clones import DATASET, Clone, Clones, random_tree
from tests.support.faulty_store import Call, FaultyStore
from tests.support.trees import Tree
from tests.support.warm_command import WarmCommand


def _collect(store: Store, snapshots: int = 10) -> GcResult:
    """As on a machine whose clock is a year ahead: to it nothing is young."""
    return gc(store, KeepRules(YEAR_LATER, snapshots), delete=True, sink=null_sink)


@pytest.fixture
def clones(tmp_path: Path) -> Clones:
    return Clones(tmp_path)


@pytest.fixture
def one(clones: Clones) -> Clone:
    return clones["one"]


def _prepare(folder: Path, tree: Tree, kind: str) -> tuple[Clones, Clone]:
    """A store in which all bytes of `tree` are dead, and a clone that is about to sync them again."""
    clones = Clones(folder)
    one = clones["one"]
    if kind == "first":
        # Sent once, as by a sync that was killed before its HEAD; no dataset of that name has a HEAD.
        one.make(tree)
        one.sync(yes=True)
        clones.store.delete(head_key(DATASET))
        one.project = type(one.project)(folder / "other")
        one.make(tree | {"extra": b"of its own" * 900})
        return clones, one
    one.make(tree)
    one.sync(yes=True)
    one.make({"f9": b"9"})
    one.sync(yes=True)
    if kind == "unknown":
        # Not recorded on this machine: the same packs and objects are met when they are sent again.
        one = clones["two"]
        one.make({"f9": b"9"})
        one.sync(yes=True)
    one.make(tree | {"extra": b"of its own" * 900})
    return clones, one


def test_what_a_command_knows_of_other_datasets_may_be_deleted_meanwhile(clones: Clones, one: Clone) -> None:
    two, tree = clones["two"], random_tree(1)
    two.make(tree, "other")
    two.sync("other")
    one.make({"a": b"1"}, "first")
    one.sync("first")
    two.make({"b": b"2"}, "other")
    two.sync("other", yes=True)
    assert _collect(clones.store, snapshots=1).keys
    one.make(tree)
    assert one.sync().reused_bytes == 0
    assert clones.stored() == tree
    one.make(tree, "again")
    assert one.sync("again").uploaded_blobs == 0


class _SyncInThread:
    """Runs beside a gc; `reached` is set once it has ended or waits for the gc."""

    def __init__(self, one: Clone) -> None:
        self._one = one
        self.reached = Flag()
        self.error: BaseException | None = None
        self._thread = Thread(target=self._run)
        one.sink = self._hear

    def _hear(self, event: Event) -> None:
        if isinstance(event, Note) and event.message.startswith("waiting until the gc"):
            self.reached.set()

    def _run(self) -> None:
        try:
            self._one.sync(yes=True)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error
        finally:
            self.reached.set()

    def start(self) -> None:
        self._thread.start()
        assert self.reached.wait(30)

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.mark.parametrize("kind", ["known", "unknown", "first"])
@pytest.mark.parametrize("who", ["sync inside gc", "gc inside sync"])
def test_a_sync_never_commits_what_a_gc_deletes(
    tmp_path: Path, kind: str, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one runs, as far as it can, at every single call of the other. Manifests have shards, unlike those of the
    simulator."""
    monkeypatch.setattr("amlctl.snapshots.manifests.SHARD_FROM", 8)
    monkeypatch.setattr("amlctl.snapshots.manifests.SHARD_MEAN", 4)
    tree = random_tree(1, 12)
    met = 0
    work, prepared = tmp_path / "work", tmp_path / "prepared"
    clones, one = _prepare(work, tree, kind)
    shutil.copytree(work, prepared)
    for at in range(1, 300):
        shutil.rmtree(work)
        shutil.copytree(prepared, work)
        beside: list[_SyncInThread] = []
        happened = False

        def act(call: Call, at: int = at, beside: list[_SyncInThread] = beside) -> None:
            nonlocal happened
            if call.number == at and not call.is_done and not happened:
                happened = True
                if who == "gc inside sync":
                    _collect(clones.store, snapshots=0)
                else:
                    beside.append(_SyncInThread(one))
                    beside[0].start()

        faulty = FaultyStore(clones.store, act)
        if who == "gc inside sync":
            one.store = faulty
            one.sync(yes=True)
        else:
            _collect(faulty, snapshots=0)
            for sync in beside:
                sync.join()
                assert sync.error is None, (at, sync.error)
        if not happened:
            break
        met += 1
        assert verify(clones.store, null_sink).damaged == [], (at, faulty.calls[at - 1])
        assert clones.stored() == one.tree
    assert met > 10


def test_a_gc_that_was_killed_stops_nothing(clones: Clones, one: Clone, warm: WarmCommand) -> None:
    """Killed for real, at every call; the next commands continue at once and find all they need."""
    for number in range(12):
        one.make(random_tree(number, 12))
        one.sync(yes=True)
    deaths = 0
    for calls in range(2, 200, 5):
        code = warm.program("tests.support.dying_sync", clones.store.url, calls, "after")
        one.make(random_tree(0, 12) if calls % 2 else random_tree(calls, 12))
        one.sync(yes=True)
        two = clones["two"]
        two.make(one.tree, "raw/copy")
        two.sync("raw/copy")
        assert verify(clones.store, null_sink).damaged == []
        assert clones.stored() == clones.stored("raw/copy") == one.tree
        if code == 0:
            break
        deaths += 1
    assert deaths > 5
    assert not any("waiting" in message for message in one.messages)


@pytest.mark.parametrize("mark", [b'{"started_at": "2026-01-02T03:04:05+00:00"}\n', b"", b"\x00" * 40, b"[[[[", b"7"])
def test_a_mark_that_names_no_holder_stops_nothing(clones: Clones, one: Clone, mark: bytes) -> None:
    tree = random_tree(1, 12)
    one.make(tree)
    one.sync(yes=True)
    clones.store.put(GC_KEY, mark)
    two = clones["two"]
    two.make(tree, "raw/copy")
    two.sync("raw/copy")
    _collect(clones.store)
    assert json.loads(clones.store.get(GC_KEY)) == {"generation": 1}


def test_the_generation_continues_after_a_lost_mark(clones: Clones, one: Clone) -> None:
    one.make(random_tree(1, 12))
    one.sync(yes=True)
    for _ in range(3):
        _collect(clones.store)
    clones.store.delete(GC_KEY)
    _collect(clones.store)
    assert json.loads(clones.store.get(GC_KEY)) == {"generation": 4}
    head = read_head(clones.store, DATASET)
    assert head is not None
    assert head.gc == 4


class _Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _of_another_machine(count: int) -> bytes:
    return json.dumps(
        {"host": "far", "machine": "0" * 8, "process": 1, "started": 1, "renewed": count, "generation": 5}
    ).encode()


def test_a_command_waits_only_for_a_gc_that_is_alive(clones: Clones) -> None:
    store, clock = clones.store, _Clock()
    version = store.swap(GC_KEY, _of_another_machine(1), expected=None)
    reported: list[Event] = []
    asked = 0

    def act(call: Call) -> None:
        """Time passes while it waits; the gc renews its lease three times, and then it does not any more."""
        nonlocal asked, version
        if call.method == "get_versioned" and not call.is_done:
            asked += 1
            clock.now += 30
            if asked <= 3:
                version = store.swap(GC_KEY, _of_another_machine(1 + asked), expected=version)

    watch = GcWatch(FaultyStore(store, act), reported.append, ask_every_s=0.01, clock=clock)
    watch.note()
    asked = 0
    watch.wait()
    assert asked >= 5
    assert [event.message for event in reported if isinstance(event, Note)] == [
        "waiting until the gc on far (process 1) has ended",
        "the gc of the store has given no sign of life: continuing without it",
    ]
    assert json.loads(store.get(GC_KEY)) == {"generation": 5}
    assert watch.generation == 5


def test_a_gc_that_was_gone_without_deletes_nothing_more(clones: Clones, one: Clone) -> None:
    """It was suspended right before its first deletion, longer than its lease lasts."""
    for number in range(12):
        one.make(random_tree(number, 12))
        one.sync(yes=True)
    before = clones.stored_keys()
    clock = _Clock()

    def act(call: Call) -> None:
        if call.method == "list" and call.key == "" and call.is_done:
            clock.now += 1000
            other = _Clock()

            def tick(call: Call) -> None:
                other.now += 40

            GcWatch(FaultyStore(clones.store, tick), null_sink, ask_every_s=0.01, clock=other).wait()

    with pytest.raises(Conflict, match="lost its lease"):
        gc(FaultyStore(clones.store, act), KeepRules(YEAR_LATER), delete=True, sink=null_sink, clock=clock)
    assert before <= clones.stored_keys()


def test_a_gc_that_was_suspended_right_before_a_deletion_deletes_nothing(clones: Clones, one: Clone) -> None:
    """Its own clock has not told it yet: the store looks at the lease in one step with the deletion."""
    for number in range(12):
        one.make(random_tree(number, 12))
        one.sync(yes=True)
    before = clones.stored_keys()

    def act(call: Call) -> None:
        if call.method == "delete" and not call.is_done:
            other = _Clock()

            def tick(call: Call) -> None:
                other.now += 40

            GcWatch(FaultyStore(clones.store, tick), null_sink, ask_every_s=0.01, clock=other).wait()

    frozen = _Clock()
    with pytest.raises(Conflict, match="lost its lease"):
        gc(FaultyStore(clones.store, act), KeepRules(YEAR_LATER), delete=True, sink=null_sink, clock=frozen)
    assert before <= clones.stored_keys()


def test_a_second_gc_is_refused_while_the_first_one_is_alive(clones: Clones) -> None:
    with GcLease(clones.store, GC_KEY, null_sink, stale_s=0.2) as first:
        first.take()
        with pytest.raises(Conflict, match="another gc of this store is running"):
            GcLease(clones.store, GC_KEY, null_sink, ask_every_s=0.01).take()


def test_a_dataset_that_has_only_a_fence_is_not_a_dataset(clones: Clones, one: Clone) -> None:
    one.make({"a": b"1"}, "raw/other")
    one.sync("raw/other")
    fence(clones.store, DATASET, 3, "ab" * 16)
    assert read_head(clones.store, DATASET) is None
    assert DATASET in list_datasets(clones.store)
    assert clones.stored() is None
    assert verify(clones.store, null_sink).damaged == []
    one.make({"a": b"1"})
    one.sync(yes=True)  # the fence is of a later gc than the mark knows of: the mark was lost
    assert clones.stored() == {"a": b"1"}
    assert json.loads(clones.store.get(GC_KEY)) == {"generation": 3}


def _cut(clones: Clones, prefix: str) -> None:
    for entry in [*clones.store.list(prefix)]:
        path = clones.path(entry.key)
        path.chmod(0o644)
        path.write_bytes(b"")


@pytest.mark.parametrize("how", ["known", "unknown", "other dataset", "was there"])
def test_what_a_power_cut_has_emptied_is_sent_again(clones: Clones, one: Clone, how: str) -> None:
    tree = random_tree(1, 12) | {"big": b"b" * 9000}
    one.make(tree, "raw/first")
    one.sync("raw/first")
    _cut(clones, "packs/")
    _cut(clones, "objects/")
    syncing = one if how == "known" else clones["two"]
    name = DATASET
    if how == "was there":
        clones.store.delete(head_key("raw/first"))
        name = "raw/first"
        for entry in [*clones.store.list(dataset_folder(name) + "/")]:
            clones.path(entry.key).write_bytes(b"")
    syncing.make(tree, name)
    syncing.sync(name)
    assert clones.stored(name) == tree
