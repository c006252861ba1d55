"""gc beside submits and runs: code and produced datasets are whole once their record, or HEAD, names them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from amlctl.core.content_id import content_id
from amlctl.core.events import null_sink
from amlctl.core.manifest import FileEntry, snapshot_id
from amlctl.operations.store.gc import gc
from amlctl.operations.store.needed import KeepRules
from amlctl.operations.store.verify import verify
from amlctl.operations.submit.start import ensure_run_kept
from amlctl.runs.code import CodeFiles, send_code
from amlctl.runs.produced import make_newest, publish_produced
from amlctl.runs.records import read_published, save_record
from amlctl.snapshots.gc_mark import GcWatch
from amlctl.snapshots.heads import read_head
from amlctl.snapshots.manifests import read_manifest
from amlctl.stores.contract import Store
from tests.support.clock import YEAR_LATER
from tests.support.clones import DATASET, Clones, random_tree
from tests.support.faulty_store import Call, FaultyStore
from tests.support.runs import run_record
from tests.support.trees import write_tree


def _collecting(store: Store, at: int) -> tuple[FaultyStore, Callable[[], bool]]:
    """A store at whose call of that number a whole gc runs, to which nothing is young; and whether it has."""
    happened = False

    def act(call: Call) -> None:
        nonlocal happened
        if call.number >= at and not call.is_done and not happened:
            happened = True
            gc(store, KeepRules(YEAR_LATER, snapshots=0), delete=True, sink=null_sink)

    return FaultyStore(store, act), lambda: happened


def _code(folder: Path) -> CodeFiles:
    files = {f"pipeline/m{number}.py": b"print(%d)\n" % number for number in range(4)}
    write_tree(folder, files)
    entries = [FileEntry(path, len(data), False, content_id(data)) for path, data in sorted(files.items())]
    return CodeFiles(snapshot_id(entries), entries, {path: folder / path for path in files})


def _send(store: Store, code: CodeFiles) -> None:
    send_code(store, code)


def test_code_that_a_gc_has_deleted_is_sent_again(tmp_path: Path) -> None:
    code = _code(tmp_path / "code")
    for at in range(1, 200):
        clones = Clones(tmp_path / f"{at}")
        send_code(clones.store, code)  # by an earlier run, which was deleted since
        store, has_happened = _collecting(clones.store, at)
        watch = GcWatch(store, null_sink)
        watch.note()
        send_code(store, code)
        record = run_record("r", "m0.py", code=code.id)
        save_record(store, record)
        ensure_run_kept(store, watch, record, partial(_send, store, code))
        if not has_happened():
            assert at > 10
            return
        gc(clones.store, KeepRules(YEAR_LATER), delete=True, sink=null_sink)
        assert verify(clones.store, null_sink).damaged == []
        assert {f"code/{code.id}/{entry.path}" for entry in code.entries} <= clones.stored_keys()


def test_what_a_run_publishes_is_whole_when_head_names_it(tmp_path: Path) -> None:
    before, produced = random_tree(1, 20), random_tree(2, 20) | {"big": b"b" * 9000}
    for at in range(1, 300):
        clones = Clones(tmp_path / f"{at}")
        one = clones["one"]
        one.make(produced)  # the same bytes are there, and dead
        one.sync()
        one.make(before)
        head = one.sync(yes=True)
        store, has_happened = _collecting(clones.store, at)
        record = run_record(
            "r",
            "a.py",
            produces=[DATASET],
            heads={DATASET: head.manifest_key},
            status="Running",
            sync={"pack_below": 4_000, "pack_size": 20_000},
        )
        save_record(clones.store, record)
        root = tmp_path / f"{at}/container"
        write_tree(root / "data_blobs" / DATASET, produced)
        publish_produced(store, record, root / "data_blobs", lambda reported: None)
        published = read_published(store, "r")[DATASET]
        make_newest(store, DATASET, str(published["manifest_key"]), head.manifest_key)
        if not has_happened():
            assert at > 10
            return
        found = read_head(clones.store, DATASET)
        assert found is not None
        assert read_manifest(clones.store, found.manifest_key).snapshot == published["snapshot"]
        record.status = "Completed"
        clones.store.put("runs/r/outputs.json", b'{"files": []}')
        save_record(clones.store, record)
        gc(clones.store, KeepRules(YEAR_LATER, snapshots=0), delete=True, sink=null_sink)
        assert verify(clones.store, null_sink).damaged == []
        assert clones.stored() == produced
