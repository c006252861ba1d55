"""What runs side by side, on which state, and what a plain dict says must come out of it.

A scenario's `expected` does not depend on the order: the edits of the clones touch different files, unless `rivals`
names the paths that two of them change. After the order each clone runs plain commands until all agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from amlctl.core.content_id import content_id
from amlctl.core.events import null_sink
from amlctl.core.manifest import FileEntry, snapshot_id
from amlctl.core.run import RunRecord
from amlctl.operations.store_gc import gc
from amlctl.operations.submit import PreparedRun, _start
from amlctl.stores.contract import Store
from amlctl.transfer.code import CodeFiles, send_code
from amlctl.transfer.heads import read_head
from amlctl.transfer.produced import make_newest
from amlctl.transfer.publish import publish
from amlctl.transfer.tree import TreeSaver, restore_tree
from tests.simulator import checks, virtual
from tests.simulator.checks import Broken
from tests.simulator.scheduler import JUMP_S
from tests.simulator.world import DATASET, OPTIONS, World
from tests.support.trees import Tree

Edits = Mapping[str, "bytes | None"]

BIG = b"0123456789" * 30
"""Larger than a pack takes: an object."""
BASE: Tree = {"a": b"one", "d/b": b"two", "d/c": BIG, "e": b"four", "gone": b"five", "gone too": b"six"}
OTHER = "working/y"
_NEWER: Edits = {"gone": None, "e": b"four, newer", "d/c": BIG + b"newer", "new": b"seven"}
_NEWER_LIST: Edits = {"gone": None, "e": b"four, newer", "new": b"seven"}


@dataclass(frozen=True)
class Role:
    """One actor: a letter in schedules, what it does, on whose machine, and how far that one's clock is ahead."""

    name: str
    kind: str
    clone: str = ""
    skew_s: float = 0.0
    dataset: str = DATASET
    options: Mapping[str, Any] = field(default_factory=dict)


Command = Callable[[World, Store], object]


@dataclass
class Scenario:
    """`edits` are made by each clone before the commands start. `rivals`: paths that two clones change. `prepare`
    builds the state that all orders start from; a plain one is that every clone has `base`, synced three days ago.
    `first` comes before the plain commands, `settle` after them, `at_once` right after the order, with the results of
    those that ended well. `extra` is in `expected` besides. `jumps`: a call may take two days. `is_damaged`: HEAD is not
    whole at the start."""

    name: str
    roles: Sequence[Role]
    base: Tree = field(default_factory=lambda: dict(BASE))
    edits: Mapping[str, Edits] = field(default_factory=dict)
    clones: Sequence[str] = ("a", "b")
    rivals: Sequence[str] = ()
    layout: str = "pack"
    dataset: str = DATASET
    prepare: Callable[[Scenario, World], None] | None = None
    settle: Callable[[World, Mapping[str, Any]], None] | None = None
    at_once: Callable[[World, Mapping[str, Any]], None] | None = None
    extra: Edits = field(default_factory=dict)
    jumps: bool = False
    is_damaged: bool = False
    first: Callable[[World], object] | None = None
    commands: Mapping[str, Command] = field(default_factory=dict)

    def build(self, world: World) -> None:
        first, *others = self.clones
        for clone in self.clones:
            world.add_clone(clone)
        if self.base:
            world.edit(first, self.base, self.dataset)
            world.sync(first, dataset=self.dataset, layout=self.layout)
            for clone in others:
                world.pull(clone, dataset=self.dataset)
        if self.prepare is not None:
            self.prepare(self, world)
        pass_days(3)
        for clone, edits in self.edits.items():
            world.edit(clone, edits, self.dataset)

    @property
    def expected(self) -> Tree:
        """What everything comes to; a path of `rivals` is left out."""
        tree = dict(self.base)
        for edits in (self.extra, *self.edits.values()):
            for path, data in edits.items():
                if data is None:
                    tree.pop(path, None)
                else:
                    tree[path] = data
        return {path: data for path, data in tree.items() if path not in self.rivals}

    def command(self, role: Role) -> Command:
        return self.commands.get(role.kind) or _COMMANDS[role.kind](self, role)


def pass_days(days: float) -> None:
    virtual.host().sleep(days * 24 * 3600)


def now() -> datetime:
    return datetime.fromtimestamp(virtual.host().now(), UTC)


def collect(store: Store) -> object:
    return gc(store, delete=True, now=now(), sink=null_sink)


def _sync(scenario: Scenario, role: Role) -> Command:
    options = {"layout": scenario.layout, **role.options}
    return lambda world, store: world.sync(role.clone, store=store, dataset=role.dataset, **options)


def _pull(scenario: Scenario, role: Role) -> Command:
    return lambda world, store: world.pull(role.clone, store=store, dataset=role.dataset, **role.options)


def _gc(scenario: Scenario, role: Role) -> Command:
    return lambda world, store: collect(store)


_COMMANDS: Mapping[str, Callable[[Scenario, Role], Command]] = {"sync": _sync, "pull": _pull, "gc": _gc}

# --- states -----------------------------------------------------------------------------------------------


def _old_packs(scenario: Scenario, world: World) -> None:
    """Clone `a` has sent contents long ago that nothing names any more, and remembers their packs."""
    old = {f"old/{number}": b"old %d" % number for number in range(4)} | {"old/big": BIG + b"old"}
    world.edit("a", old)
    world.sync("a", layout=scenario.layout)
    world.edit("a", dict.fromkeys(old))
    world.sync("a", layout=scenario.layout)
    _forget_old_snapshots(world)
    for clone in scenario.clones:
        world.pull(clone)


def _forget_old_snapshots(world: World) -> None:
    """As if ten more had been synced and collected since; what they alone named is still there."""
    for folder in checks.datasets(world.store):
        kept = read_head(world.store, folder.removeprefix("datasets/"))
        assert kept is not None
        for key in [key for key in world.store.values if key.startswith(f"{folder}/") and key.endswith(".gz")]:
            if key != kept.manifest_key:
                del world.store.values[key]


def _stale_clone(scenario: Scenario, world: World) -> None:
    """Clone `b` is one snapshot behind, and that snapshot's list has gone from the store."""
    world.edit("a", _NEWER_LIST)
    world.sync("a", layout=scenario.layout)
    _forget_old_snapshots(world)


def _behind(scenario: Scenario, world: World) -> None:
    """Clone `b` is one snapshot behind."""
    world.edit("a", _NEWER)
    world.sync("a", layout=scenario.layout)


def _damaged_pack(scenario: Scenario, world: World) -> None:
    """The packs and objects of HEAD were cut to nothing, as by a power cut."""
    for key, value in list(world.store.values.items()):
        if key.startswith(("packs/", "objects/")):
            world.store.values[key] = value._replace(data=value.data[:1])


def _repair(world: World) -> object:
    return world.sync("a", repair=True)


def _old_code(scenario: Scenario, world: World) -> None:
    """The code was sent long ago, and the run that it was for is deleted."""
    send_code(world.store, _code(world))


def _code(world: World) -> CodeFiles:
    folder = world.folder / "code"
    folder.mkdir(exist_ok=True)
    entries, sources = [], []
    for name, data in (("amlctl/x.py", b"pass"), ("pipeline/a.py", b"print(1)"), ("pipeline/b.py", b"print(2)")):
        source = folder / name.replace("/", "-")
        source.write_bytes(data)
        entries.append(FileEntry(name, len(data), False, content_id(data)))
        sources.append(source)
    return CodeFiles(snapshot_id(entries), entries, sources)


class _Workspace:
    """Remembers what was handed over to it."""

    def __init__(self, world: World) -> None:
        self._world = world

    def start(self, record: RunRecord, secrets: Mapping[str, str]) -> None:
        (self._world.folder / f"started-{record.run}").touch()

    def cancel(self, run: str) -> None:
        raise AssertionError("nobody has pressed Ctrl-C")


def _submit(world: World, store: Store) -> object:
    """Code and record, then the start: as `submit` does once the datasets are synced."""
    head = read_head(store, DATASET)
    assert head is not None
    sent = send_code(store, _code(world))
    record = RunRecord(run="run-1", script="a.py", code=sent.id)
    record.manifests[DATASET] = head.manifest_key
    _start(PreparedRun(record, {}), _Workspace(world), store, null_sink, now)  # type: ignore[arg-type]
    return record


def _run_is_whole(world: World, _: Mapping[str, Any]) -> None:
    started = [path.name.removeprefix("started-") for path in world.folder.glob("started-*")]
    checks.runs_whole(world.store, started)


def _submit_again(world: World, _: Mapping[str, Any]) -> None:
    if not list(world.folder.glob("started-*")):
        _submit(world, world.store)
    _run_is_whole(world, {})


_OUTPUTS: Sequence[Tree] = (
    {"log": b"1", "model": b"first", "sub/x": b"x"},
    {"log": b"1 2", "model": b"secnd", "y": b"y"},
)
_PREFIX, _INDEX = "runs/run-1/outputs/", "runs/run-1/outputs.json"


def _save_outputs(world: World, store: Store) -> object:
    """Two rounds, with work in between."""
    folder = world.folder / "container"
    saver = TreeSaver(store, folder, _PREFIX, _INDEX)
    for tree in _OUTPUTS:
        _make(folder, tree)
        saver.save()
    return True


def _make(folder: Any, tree: Tree) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    for path, data in tree.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def _fetch_outputs(world: World, store: Store) -> object:
    from amlctl.errors import NotFound

    try:
        restore_tree(store, _PREFIX, _INDEX, world.folder / "fetched")
    except NotFound:
        return None  # nothing was saved yet
    return True


def _outputs_are_of_the_run(world: World, _: Mapping[str, Any]) -> None:
    """What a fetch has brought are whole files, in a state that they were in."""
    folder = world.folder / "fetched"
    for path in [path for path in folder.rglob("*") if path.is_file() and ".amlctl-tmp" not in path.name]:
        name = path.relative_to(folder).as_posix()
        if path.read_bytes() not in [tree.get(name) for tree in _OUTPUTS]:
            raise Broken(f"the fetched {name} is {path.read_bytes()!r}")


def _save_again(world: World, results: Mapping[str, Any]) -> None:
    _outputs_are_of_the_run(world, results)
    saver = TreeSaver(world.store, world.folder / "container", _PREFIX, _INDEX)
    _make(world.folder / "container", _OUTPUTS[-1])
    saver.save()
    restore_tree(world.store, _PREFIX, _INDEX, world.folder / "fetched again")
    found = {
        path.relative_to(world.folder / "fetched again").as_posix(): path.read_bytes()
        for path in (world.folder / "fetched again").rglob("*")
        if path.is_file()
    }
    if wrong := checks.differences(found, _OUTPUTS[-1]):
        raise Broken(f"the outputs, saved and fetched again: {wrong}")


_PRODUCED: Tree = {**BASE, "made": b"by the run", "d/made": BIG + b"made"}


def _publish(world: World, store: Store) -> object:
    """As a run does that reads the dataset and writes it: its base is the HEAD of when it was submitted."""
    folder = world.folder / "produced"
    _make(folder, _PRODUCED)
    base = (world.folder / "base").read_text()
    done = publish(store, folder, DATASET, base_key=base, layout=OPTIONS.layout_rules(None))
    store.put("runs/run-1/published.json", _published(done), replace=True)
    return make_newest(store, DATASET, done.manifest_key, base)


def _published(done: Any) -> bytes:
    import json

    return json.dumps({DATASET: {"snapshot": done.snapshot, "manifest_key": done.manifest_key}}).encode()


def _remember_base(scenario: Scenario, world: World) -> None:
    head = read_head(world.store, DATASET)
    assert head is not None
    (world.folder / "base").write_text(head.manifest_key)


def _publish_again(world: World, results: Mapping[str, Any]) -> None:
    _publish(world, world.store)


def _copied_dataset(scenario: Scenario, world: World) -> None:
    """A second dataset, without a HEAD, that consists of what the first one once was."""
    _old_packs(scenario, world)
    old = {f"{number}": b"old %d" % number for number in range(4)} | {"big": BIG + b"old"}
    world.edit("a", old, OTHER)


def _new_dataset(scenario: Scenario, world: World) -> None:
    world.edit("a", {"n1": b"new 1", "n2": b"new 2", "n3": b"new 3", "big": BIG + b"new"}, OTHER)


def _other_is_whole(world: World, _: Mapping[str, Any]) -> None:
    """The second dataset, synced again if it must be, is what `a` has."""
    world.sync("a", dataset=OTHER)
    found = checks.all_heads(world.store)[OTHER]
    if wrong := checks.differences(found, world.tree("a", OTHER)):
        raise Broken(f"HEAD of {OTHER}: {wrong}")


def _other_at_once(world: World, results: Mapping[str, Any]) -> None:
    """A sync that has said yes has sent everything."""
    if results.get("a") is None:
        return
    found = checks.all_heads(world.store).get(OTHER, {})
    if wrong := checks.differences(found, world.tree("a", OTHER)):
        raise Broken(f"HEAD of {OTHER} after a sync that ended well: {wrong}")


_EDITS_A: Edits = {"a": b"one, by a", "new a": b"by a", "gone": None, "d/large a": BIG + b"by a"}
_EDITS_B: Edits = {"d/b": b"two, by b", "new b": b"by b", "gone too": None, "d/c": BIG + b"by b"}
_LATE_A: Edits = {path: data for path, data in _EDITS_A.items() if path != "gone"}
_AHEAD_S = 2.5 * 24 * 3600


def _a(kind: str = "sync", **more: Any) -> Role:
    return Role("a", kind, "a", **more)


def _b(kind: str = "sync", **more: Any) -> Role:
    return Role("b", kind, "b", **more)


def _g(**more: Any) -> Role:
    return Role("g", "gc", **more)


_OLD_AGAIN: Edits = {f"again/{number}": b"old %d" % number for number in range(4)} | {"again/big": BIG + b"old"}

SCENARIOS: Mapping[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario("sync+sync", (_a(), _b()), edits={"a": _EDITS_A, "b": _EDITS_B}),
        Scenario("sync+sync-first", (_a(), _b()), base={}, edits={"a": {"a": b"1", "x": BIG}, "b": {"b": b"2", "y": BIG}}),
        Scenario(
            "sync+sync-same-file",
            (_a(), _b()),
            edits={"a": {**_EDITS_A, "e": b"four, by a"}, "b": {**_EDITS_B, "e": b"four, by b"}},
            rivals=("e",),
        ),
        Scenario("sync+pull", (_a(), _b("pull")), edits={"a": _EDITS_A}),
        Scenario("sync+pull-edited", (_a(), _b("pull")), edits={"a": _EDITS_A, "b": _EDITS_B}),
        Scenario("pull-behind+sync", (_a(), _b("pull")), edits={"a": _LATE_A}, extra=_NEWER, prepare=_behind),
        Scenario("sync+pull-one-machine", (_a(), Role("p", "pull", "a")), edits={"a": _LATE_A}, prepare=_behind,
                 extra=_NEWER),
        Scenario("sync+gc", (_a(), _g(skew_s=_AHEAD_S)), edits={"a": _EDITS_A}, jumps=True),
        Scenario("sync-old-packs+gc", (_a(), _g()), edits={"a": _OLD_AGAIN}, prepare=_old_packs, jumps=True),
        Scenario("sync-old-packs+gc-ahead", (_a(), _g(skew_s=_AHEAD_S)), edits={"a": _OLD_AGAIN}, prepare=_old_packs),
        Scenario("sync-copied+gc", (_a(dataset=OTHER), _g()), prepare=_copied_dataset, settle=_other_is_whole,
                 at_once=_other_at_once),
        Scenario("sync-new+gc-ahead", (_a(dataset=OTHER), _g(skew_s=_AHEAD_S)), prepare=_new_dataset,
                 settle=_other_is_whole, at_once=_other_at_once, jumps=True),
        Scenario("sync-renamed+gc-ahead", (_a(), _g(skew_s=_AHEAD_S)),
                 edits={"a": {"d/b": None, "d/c": None, "f/b": b"two", "f/c": BIG}}),
        Scenario("pull-behind+gc-ahead", (_b("pull"), _g(skew_s=_AHEAD_S)), prepare=_behind, extra=_NEWER),
        Scenario("pull-stale+sync", (_a(), _b("pull")), edits={"a": _LATE_A}, prepare=_stale_clone,
                 extra=_NEWER_LIST),
        Scenario("sync-stale+sync", (_a(), _b()), edits={"a": _LATE_A, "b": {"new b": b"by b"}}, prepare=_stale_clone,
                 extra=_NEWER_LIST),
        Scenario("sync+sync+gc", (_a(), _b(), _g(skew_s=_AHEAD_S)), edits={"a": _EDITS_A, "b": _EDITS_B}, jumps=True),
        Scenario("sync+pull+gc", (_a(), _b("pull"), _g(skew_s=_AHEAD_S)), edits={"a": _LATE_A}, prepare=_behind,
                 extra=_NEWER),
        Scenario("gc+gc+sync", (_a(), _g(), Role("h", "gc", skew_s=_AHEAD_S)), edits={"a": _OLD_AGAIN},
                 prepare=_old_packs),
        Scenario("mirror+mirror", (_a(), _b()), layout="mirror", edits={"a": _EDITS_A, "b": _EDITS_B}, jumps=True),
        Scenario("mirror+pull", (_a(), _b("pull")), layout="mirror", edits={"a": _EDITS_A}),
        Scenario("repair+sync", (_a(options={"repair": True}), _b()), edits={"b": {"new b": b"by b"}},
                 prepare=_damaged_pack, is_damaged=True, first=_repair),
        Scenario("repair+gc", (_a(options={"repair": True}), _g(skew_s=_AHEAD_S)), prepare=_damaged_pack,
                 is_damaged=True, first=_repair),
        Scenario("submit+gc", (_a("submit"), _g()), prepare=_old_code, settle=_submit_again, at_once=_run_is_whole,
                 commands={"submit": _submit}, jumps=True),
        Scenario("submit+gc-ahead", (_a("submit"), _g(skew_s=_AHEAD_S)), prepare=_old_code, settle=_submit_again,
                 at_once=_run_is_whole, commands={"submit": _submit}),
        Scenario("submit+sync+gc-ahead", (_a("submit"), _b(), _g(skew_s=_AHEAD_S)), edits={"b": _EDITS_B},
                 prepare=_old_code, settle=_submit_again, at_once=_run_is_whole, commands={"submit": _submit}),
        Scenario("outputs+gc-ahead", (_a("save"), _g(skew_s=_AHEAD_S)), settle=_save_again,
                 commands={"save": _save_outputs}),
        Scenario("outputs+fetch", (_a("save"), Role("f", "fetch", "b")), settle=_save_again,
                 at_once=_outputs_are_of_the_run, commands={"save": _save_outputs, "fetch": _fetch_outputs}),
        Scenario("publish+sync", (_a("publish"), _b()), edits={"b": _EDITS_B}, prepare=_remember_base,
                 extra={"made": b"by the run", "d/made": BIG + b"made"}, settle=_publish_again,
                 commands={"publish": _publish}),
        Scenario("publish+gc-ahead", (_a("publish"), _g(skew_s=_AHEAD_S)), prepare=_remember_base,
                 extra={"made": b"by the run", "d/made": BIG + b"made"}, settle=_publish_again,
                 commands={"publish": _publish}),
    )
}  # fmt: skip
assert JUMP_S < _AHEAD_S
