"""What runs do with a store: code and record of a submit, outputs that are saved and fetched, a produced dataset."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from amlctl.core.content_id import content_id
from amlctl.core.events import null_sink
from amlctl.core.manifest import FileEntry, snapshot_id
from amlctl.core.run import RunRecord
from amlctl.core.store_keys import outputs_tree
from amlctl.errors import NotFound
from amlctl.operations.submit.start import PreparedRun, start
from amlctl.runs.code import CodeFiles, send_code
from amlctl.runs.produced import make_newest, publish_produced
from amlctl.runs.records import read_published, save_record
from amlctl.runs.tree import Place, restore_tree
from amlctl.runs.tree_saver import TreeSaver
from amlctl.snapshots.gc_mark import GcWatch
from amlctl.snapshots.heads import read_head
from amlctl.stores.contract import Store
from tests.simulator import checks
from tests.simulator.checks import Broken
from tests.simulator.scenario import BASE, BIG, Scenario, now
from tests.simulator.world import DATASET, OPTIONS, World
from tests.support.context import Context
from tests.support.runs import run_record
from tests.support.trees import Tree

_OUTPUTS: Sequence[Tree] = (
    {"log": b"1", "model": b"first", "sub/x": b"x"},
    {"log": b"1 2", "model": b"secnd", "y": b"y"},
)
_TREE = outputs_tree("run-1")
_PRODUCED: Tree = {**BASE, "made": b"by the run", "d/made": BIG + b"made"}


def old_code(scenario: Scenario, world: World) -> None:
    """The code was sent long ago, and the run that it was for is deleted."""
    send_code(world.store, _code(world))


def _code(world: World) -> CodeFiles:
    folder = world.folder / "code"
    folder.mkdir(exist_ok=True)
    entries, sources = [], {}
    for name, data in (("amlctl/x.py", b"pass"), ("pipeline/a.py", b"print(1)"), ("pipeline/b.py", b"print(2)")):
        source = folder / name.replace("/", "-")
        source.write_bytes(data)
        entries.append(FileEntry(name, len(data), False, content_id(data)))
        sources[name] = source
    return CodeFiles(snapshot_id(entries), entries, sources)


class _Workspace:
    """Remembers what was handed over to it."""

    def __init__(self, world: World) -> None:
        self._world = world

    def start(self, record: RunRecord, secrets: Mapping[str, str]) -> None:
        (self._world.folder / f"started-{record.run}").touch()

    def cancel(self, run: str) -> None:
        raise AssertionError("Ctrl-C was not pressed")


def submit(world: World, store: Store) -> object:
    """Code and record, then the start: as `submit` does once the datasets are synced."""
    watch = GcWatch(store, null_sink)
    watch.note()
    head = read_head(store, DATASET)
    assert head is not None
    code = _code(world)
    send_code(store, code)
    record = run_record(run="run-1", script="a.py", code=code.id, manifests={DATASET: head.manifest_key})
    prepared = PreparedRun(record, {}, watch, lambda: _ignore(send_code(store, code)))
    start(Context(world.project("a"), store, workspace=_Workspace(world)), prepared, now)
    return record


def _ignore(value: object) -> None:
    """For a callable that is wanted for its effect."""


def run_is_whole(world: World, _: Mapping[str, Any]) -> None:
    started = [path.name.removeprefix("started-") for path in world.folder.glob("started-*")]
    checks.runs_whole(world.store, started)


def submit_again(world: World, _: Mapping[str, Any]) -> None:
    if not list(world.folder.glob("started-*")):
        submit(world, world.store)
    run_is_whole(world, {})


def save_outputs(world: World, store: Store) -> object:
    """Two rounds, with work in between."""
    folder = world.folder / "container"
    saver = TreeSaver(store, folder, _TREE)
    for tree in _OUTPUTS:
        _make(folder, tree)
        saver.save()
    return True


def _make(folder: Path, tree: Tree) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for path, data in tree.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def fetch_outputs(world: World, store: Store) -> object:
    try:
        restore_tree(store, _TREE, Place(world.folder / "fetched"))
    except NotFound:
        return None  # nothing was saved yet
    return True


def outputs_are_of_the_run(world: World, _: Mapping[str, Any]) -> None:
    """What a fetch has brought are whole files, in a state that they were in."""
    folder = world.folder / "fetched"
    for path in [path for path in folder.rglob("*") if path.is_file() and ".amlctl-tmp" not in path.name]:
        name = path.relative_to(folder).as_posix()
        if path.read_bytes() not in [tree.get(name) for tree in _OUTPUTS]:
            raise Broken(f"the fetched {name} is {path.read_bytes()!r}")


def save_again(world: World, results: Mapping[str, Any]) -> None:
    outputs_are_of_the_run(world, results)
    saver = TreeSaver(world.store, world.folder / "container", _TREE)
    _make(world.folder / "container", _OUTPUTS[-1])
    saver.save()
    restore_tree(world.store, _TREE, Place(world.folder / "fetched again"))
    found = {
        path.relative_to(world.folder / "fetched again").as_posix(): path.read_bytes()
        for path in (world.folder / "fetched again").rglob("*")
        if path.is_file()
    }
    if wrong := checks.differences(found, _OUTPUTS[-1]):
        raise Broken(f"the outputs, saved and fetched again: {wrong}")


def publish(world: World, store: Store) -> object:
    """As a run does that reads the dataset and writes it: its base is the HEAD of when it was submitted."""
    container = world.folder / "producing"
    _make(container / "data_blobs" / DATASET, _PRODUCED)
    record = _record(world)
    publish_produced(store, record, container / "data_blobs", _ignore)
    place = read_published(store, record.run)[DATASET]
    return make_newest(store, DATASET, place["manifest_key"], record.spec.heads[DATASET])


def _record(world: World) -> RunRecord:
    sync = {"pack_below": OPTIONS.pack_below, "pack_size": OPTIONS.pack_size, "layout": OPTIONS.layout}
    heads = {DATASET: (world.folder / "base").read_text()}
    return run_record(run="run-1", script="a.py", produces=[DATASET], heads=heads, sync=sync)


def submitted(scenario: Scenario, world: World) -> None:
    """The store has the record of a run that will produce the dataset."""
    head = read_head(world.store, DATASET)
    assert head is not None
    (world.folder / "base").write_text(head.manifest_key)
    save_record(world.store, _record(world))


def publish_again(world: World, results: Mapping[str, Any]) -> None:
    publish(world, world.store)
