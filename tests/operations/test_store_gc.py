"""gc keeps what somebody needs or may need, and never takes what a sync is reusing, however they interleave."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from amlctl.core.events import null_sink
from amlctl.errors import Conflict, IntegrityError
from amlctl.localfs.atomic import TEMPORARY_PREFIX
from amlctl.operations.store_gc import GcResult, gc
from amlctl.operations.store_verify import verify
from amlctl.stores.contract import Store
from amlctl.transfer.heads import head_key
from amlctl.transfer.known import GC_MARK
from tests.support.clock import NOW, YEAR_LATER
from tests.support.clones import DATASET, Clone, Clones, random_tree
from tests.support.faulty_store import Call, FaultyStore
from tests.support.trees import Tree, age


@pytest.fixture
def clones(tmp_path: Path) -> Clones:
    return Clones(tmp_path)


@pytest.fixture
def one(clones: Clones) -> Clone:
    return clones["one"]


def _collect(store: Store) -> GcResult:
    return gc(store, delete=True, now=YEAR_LATER, sink=null_sink)


def _snapshots(one: Clone, count: int) -> list[str]:
    """Each of them with contents of its own."""
    found = []
    for number in range(count):
        one.make(random_tree(number, 12))
        found.append(one.sync().snapshot)
    return found


def test_the_last_ten_snapshots_are_kept(clones: Clones, one: Clone) -> None:
    snapshots = _snapshots(one, 12)
    listed = gc(clones.store, delete=False, now=YEAR_LATER, sink=null_sink)
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


def test_what_is_younger_than_a_day_is_kept(clones: Clones, one: Clone) -> None:
    _snapshots(one, 12)
    clones.store.put("packs/ab/" + "ab" * 16 + ".zip", b"on its way")
    for hours, is_dead in ((0, False), (23, False), (25, True)):
        found = gc(clones.store, delete=False, now=NOW + timedelta(hours=hours), sink=null_sink)
        assert bool(found.keys) is is_dead


def test_what_a_killed_writer_has_left_goes_after_a_day(clones: Clones, one: Clone) -> None:
    _snapshots(one, 1)
    folder = clones.folder / "store/packs/ab"
    folder.mkdir(parents=True, exist_ok=True)
    old, young = folder / f"{TEMPORARY_PREFIX}old-1", folder / f"{TEMPORARY_PREFIX}young-1"
    old.write_bytes(b"half a pack")
    age(folder, 25 * 3600)
    young.write_bytes(b"half a pack")
    gc(clones.store, delete=False, now=NOW, sink=null_sink)
    assert old.exists()
    gc(clones.store, delete=True, now=NOW, sink=null_sink)
    assert not old.exists()
    assert young.exists()


def test_what_a_run_names_is_kept(clones: Clones, one: Clone) -> None:
    one.make(random_tree(100, 12))
    old = one.sync()
    record = {"manifests": {DATASET: old.manifest_key}, "code": "c0de"}
    clones.store.put("runs/r1/record.json", json.dumps(record).encode())
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
        for key in (f"code/{code}/pipeline/a.py", f"code/{code}/zz.py", f"code/{code}.json"):
            clones.store.put(key, b"x")
    age(clones.folder / "store/code", 48 * 3600)
    clones.store.put("code/again.json", b"x", replace=True)
    kept = {key for key in clones.stored_keys() if "/again" in key}
    faulty = FaultyStore(clones.store, lambda call: None)
    gc(faulty, delete=True, now=NOW, sink=null_sink)
    assert {key for key in clones.stored_keys() if key.startswith("code/")} == kept
    deleted = [call.key for call in faulty.calls if call.method == "delete" and not call.is_done]
    assert deleted[0] == "code/dead.json"
    assert len(deleted) == 4  # and the mark


def test_nothing_is_deleted_where_head_cannot_be_followed(clones: Clones, one: Clone) -> None:
    _snapshots(one, 12)
    head = json.loads(clones.store.get(head_key(DATASET)))
    clones.store.delete(head["manifest"])
    before = clones.stored_keys()
    with pytest.raises(IntegrityError):
        _collect(clones.store)
    assert clones.stored_keys() == before


def test_an_older_snapshot_that_cannot_be_read_is_named(clones: Clones, one: Clone) -> None:
    _snapshots(one, 2)
    head = json.loads(clones.store.get(head_key(DATASET)))["manifest"]
    [older] = [key for key in clones.stored_keys() if key.endswith(".gz") and key != head]
    clones.store.put(older, b"no manifest", replace=True)
    with pytest.raises(IntegrityError) as caught:
        _collect(clones.store)
    assert caught.value.hint.startswith("that older snapshot is lost")
    assert older in caught.value.hint


def test_the_mark_of_a_killed_gc_is_told(clones: Clones, one: Clone) -> None:
    tree = random_tree(1, 12)
    one.make(tree)
    one.sync()
    clones.store.put(GC_MARK, b'{"started_at": "2026-01-02T03:04:05+00:00"}\n')
    # New bytes need nobody's leave; bytes that are reused do.
    (one.root / "new").write_bytes(b"new")
    one.sync()
    two = clones["two"]
    two.make(tree, "raw/copy")
    with pytest.raises(Conflict, match="2026-01-02T03:04:05") as caught:
        two.sync("raw/copy")
    assert "store gc --yes" in caught.value.hint
    with pytest.raises(Conflict, match="another gc"):
        gc(clones.store, delete=True, now=NOW, sink=null_sink)
    _collect(clones.store)
    assert GC_MARK not in clones.stored_keys()
    two.sync("raw/copy")


def _collect_old(store: Store) -> GcResult:
    return gc(store, delete=True, now=datetime.now(UTC), sink=null_sink)


def _prepare(folder: Path, tree: Tree, kind: str) -> tuple[Clones, Clone]:
    """A store in which all bytes of `tree` are dead, and a clone that is about to sync them again."""
    clones = Clones(folder)
    one = clones["one"]
    one.make(tree)
    one.sync()
    for number in range(10):
        one.make({f"f{number}": b"%d" % number})
        one.sync(yes=True)
    if kind == "unknown":
        # Nobody remembers what was sent: the same packs and objects are met when they are sent again.
        one = clones["two"]
        one.make({"f9": b"9"})
        one.sync()
    # All of it is a week old; what a sync writes from now on is young.
    age(Path(clones.store.url), 7 * 24 * 3600)
    one.make(tree | {"extra": b"of its own" * 900})
    return clones, one


@pytest.mark.parametrize("kind", ["known", "unknown"])
@pytest.mark.parametrize("who", ["sync inside gc", "gc inside sync"])
@pytest.mark.parametrize("shape", ["packs and objects", "objects", "shards"])
def test_a_sync_that_reuses_old_content_never_loses_it(
    tmp_path: Path, kind: str, who: str, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one runs whole at every single call of the other."""
    if shape == "shards":
        monkeypatch.setattr("amlctl.transfer.manifests.SHARD_FROM", 8)
        monkeypatch.setattr("amlctl.transfer.manifests.SHARD_MEAN", 4)
    tree = random_tree(1, 6 if shape == "objects" else 12)
    met = 0
    for at in range(1, 200):
        clones, one = _prepare(tmp_path / f"{at}", tree, kind)
        happened = False

        def act(call: Call, at: int = at, clones: Clones = clones, one: Clone = one) -> None:
            nonlocal happened
            if call.number == at and not call.is_done and not happened:
                happened = True
                try:
                    if who == "sync inside gc":
                        one.sync()
                    else:
                        _collect_old(clones.store)
                except Conflict:
                    pass

        faulty = FaultyStore(clones.store, act)
        try:
            if who == "sync inside gc":
                _collect_old(faulty)
            else:
                one.store = faulty
                one.sync()
        except Conflict:
            pass
        if not happened:
            break
        met += 1
        assert verify(clones.store, null_sink).damaged == [], (at, faulty.calls[at - 1])
        one.store = clones.store
        one.sync()
        assert clones.stored() == one.tree
    assert met > 10
