"""A mirror that a run has produced: its plain files are written when HEAD moves, and by one writer at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event as Flag

import pytest

from amlctl.core.events import Event, Note, null_sink
from amlctl.core.manifest import MIRROR
from amlctl.core.store_keys import dataset_folder
from amlctl.errors import Conflict
from amlctl.operations.sync.sync import sync
from amlctl.runs.produced import Publisher, make_newest
from amlctl.snapshots.heads import read_head
from amlctl.snapshots.manifests import read_manifest
from tests.support.bench import Bench
from tests.support.clones import DATASET, OPTIONS, Clone, Clones, random_tree
from tests.support.context import Context
from tests.support.faulty_store import Call, FaultyStore
from tests.support.trees import Tree, read_tree, write_tree


@pytest.fixture
def clones(tmp_path: Path) -> Clones:
    return Clones(tmp_path)


@pytest.fixture
def one(clones: Clones) -> Clone:
    """It has the mirror as it was when the run was submitted."""
    one = clones["one"]
    one.make(random_tree(1, 20))
    one.sync(layout="mirror")
    return one


def _head_key(clones: Clones) -> str:
    head = read_head(clones.store, DATASET)
    assert head is not None
    return head.manifest_key


def _plain_files(clones: Clones) -> Tree:
    return read_tree(Path(clones.store.url) / "mirror" / DATASET)


def _produced(clones: Clones, tree: Tree, base: str | None) -> str:
    """The manifest of what a run leaves whose workspace moves HEAD."""
    folder = clones.folder / "container"
    write_tree(folder, tree)
    return Publisher(clones.store, folder, DATASET, base_key=base).publish().manifest_key


def _make_newest(clones: Clones, key: str, base: str | None, sink: Callable[[Event], None] = null_sink) -> None:
    make_newest(clones.store, DATASET, key, base, source=clones.store, sink=sink)


def test_a_run_leaves_the_plain_files_to_the_mover_of_head(clones: Clones, one: Clone) -> None:
    before, base = one.tree, _head_key(clones)
    changed = sorted(before)[0]
    after = {**before, changed: b"changed", "new": b"new", "copy": before[sorted(before)[1]], "empty": b""}
    key = _produced(clones, after, base)
    assert _plain_files(clones) == before
    assert clones.stored() == before
    _make_newest(clones, key, base)
    assert _plain_files(clones) == after
    assert clones.stored() == after
    manifest = clones.manifest()
    assert (manifest.layout, set(manifest.places.values()), manifest.pack_sizes) == ("mirror", {MIRROR}, {})
    one.pull()
    assert one.sync().uploaded_blobs == 0


def test_a_run_sends_only_what_no_plain_file_has(clones: Clones, one: Clone) -> None:
    sent = clones.store.traffic.sent_bytes
    _produced(clones, {**one.tree, "new": b"new" * 100}, _head_key(clones))
    assert clones.store.traffic.sent_bytes - sent < 5_000 < sum(map(len, one.tree.values()))


def test_what_a_merge_takes_of_both_stands_in_plain_files(clones: Clones, one: Clone) -> None:
    before, base = one.tree, _head_key(clones)
    one.make({**before, "theirs": b"theirs"})
    one.sync()
    _make_newest(clones, _produced(clones, {**before, "ours": b"ours"}, base), base)
    merged = {**before, "theirs": b"theirs", "ours": b"ours"}
    assert clones.stored() == merged
    assert _plain_files(clones) == merged


def test_a_conflict_overwrites_nothing(clones: Clones, one: Clone) -> None:
    before, base = one.tree, _head_key(clones)
    both = sorted(before)[0]
    key = _produced(clones, {**before, both: b"ours", "ours": b"ours"}, base)
    theirs = {**before, both: b"theirs"}
    one.make(theirs)
    one.sync()
    with pytest.raises(Conflict, match="is kept, but is not the latest"):
        _make_newest(clones, key, base)
    assert clones.stored() == theirs
    assert _plain_files(clones) == theirs


@contextmanager
def _joined_by(clones: Clones, other: Callable[[Callable[[Event], None]], object]) -> Iterator[FaultyStore]:
    """A store at whose first plain file `other` begins, which then has to wait for the writer."""
    is_waiting = Flag()
    started: list[Future[object]] = []

    def sink(event: Event) -> None:
        if isinstance(event, Note) and "waiting until" in event.message:
            is_waiting.set()

    with ThreadPoolExecutor(1) as pool:

        def act(call: Call) -> None:
            if call.method == "put" and call.key.startswith("mirror/") and not started:
                started.append(pool.submit(other, sink))
                assert is_waiting.wait(20)

        yield FaultyStore(clones.store, act)
        started[0].result()


def test_head_moves_when_a_sync_of_the_mirror_has_ended(clones: Clones, one: Clone) -> None:
    before, base = one.tree, _head_key(clones)
    key = _produced(clones, {**before, "ours": b"ours"}, base)
    (one.root / "theirs").write_bytes(b"theirs")
    with _joined_by(clones, lambda sink: _make_newest(clones, key, base, sink)) as store:
        Clone(one.project.root, store).sync()
    merged = {**before, "ours": b"ours", "theirs": b"theirs"}
    assert clones.stored() == merged
    assert _plain_files(clones) == merged


def test_a_sync_waits_until_head_has_moved(clones: Clones, one: Clone) -> None:
    before, base = one.tree, _head_key(clones)
    key = _produced(clones, {**before, "ours": b"ours"}, base)
    (one.root / "theirs").write_bytes(b"theirs")
    with _joined_by(clones, lambda sink: sync(Context(one.project, clones.store, sink), DATASET, OPTIONS)) as store:
        make_newest(store, DATASET, key, base, source=clones.store)
    merged = {**before, "ours": b"ours", "theirs": b"theirs"}
    assert clones.stored() == merged
    assert _plain_files(clones) == merged


def test_a_stopped_writer_does_not_move_head(clones: Clones, one: Clone) -> None:
    before, base = one.tree, _head_key(clones)
    key = _produced(clones, {**before, "ours": b"ours"}, base)
    lease = f"{dataset_folder(DATASET)}/mirror.lease"

    def act(call: Call) -> None:
        if call.method == "put" and call.key.startswith("mirror/") and not call.is_done:
            held = clones.store.get_versioned(lease)
            assert held is not None
            clones.store.swap(
                lease, b'{"host": "someone else", "machine": "0", "process": 1, "started": 1}', expected=held.version
            )

    with pytest.raises(Conflict, match="another machine writes the mirror") as caught:
        make_newest(FaultyStore(clones.store, act), DATASET, key, base, source=clones.store)
    assert "--pull --snapshot" in caught.value.hint
    assert _head_key(clones) == base


def test_a_plain_file_that_went_back_meanwhile_is_replaced_by_ours(clones: Clones, one: Clone) -> None:
    """Somebody syncs just what the run makes, too, and then what was there before."""
    before, base = one.tree, _head_key(clones)
    path = sorted(before)[0]
    ours = {**before, path: b"ours"}
    one.make(ours)
    one.sync()
    key = _produced(clones, ours, base)
    one.make(before)
    one.sync()
    _make_newest(clones, key, base)
    assert clones.stored() == ours
    assert _plain_files(clones) == ours


def test_a_plain_file_that_is_gone_is_not_taken_for_there_where_the_base_is_lost(clones: Clones, one: Clone) -> None:
    before, base = one.tree, _head_key(clones)
    key = _produced(clones, {**before, "ours": b"ours"}, base)
    path = sorted(path for path, data in before.items() if data)[0]
    theirs = {name: data for name, data in before.items() if name != path}
    one.make(theirs)
    one.sync(delete=True, yes=True)
    clones.store.delete(base)
    with pytest.raises(Conflict, match="is kept, but is not the latest"):
        _make_newest(clones, key, base)
    assert clones.stored() == theirs


PRODUCES = """
    import os, pathlib, sys
    made = pathlib.Path(os.environ["AMLCTL_DATA_BLOBS_DIR"]) / "working/made"
    made.mkdir(parents=True)
    for number in range(12):
        made.joinpath(f"{number}.txt").write_text(f"{os.environ['TEXT']} {number}")
    made.joinpath("large").write_bytes(os.environ['TEXT'].encode() * 300_000)
"""


def test_a_run_produces_a_mirror_and_changes_it(bench: Bench) -> None:
    bench = bench.with_settings(sync=replace(bench.settings.sync, layout="mirror"))
    bench.script(PRODUCES)
    for text in ("first", "second"):
        result = bench.submit("train.py", produces=("working/made",), variables={"TEXT": text})
        assert result.record.status == "Completed", result.record.error
        head = read_head(bench.store, "working/made")
        assert head is not None
        assert (head.layout, head.snapshot) == ("mirror", result.record.published["working/made"])
        plain = read_tree(Path(bench.store.url) / "mirror/working/made")
        assert plain == {
            **{f"{number}.txt": f"{text} {number}".encode() for number in range(12)},
            "large": text.encode() * 300_000,
        }
        assert set(read_manifest(bench.store, head.manifest_key).places.values()) == {MIRROR}
