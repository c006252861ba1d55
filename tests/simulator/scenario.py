"""What a scenario consists of: who runs what, on which state, and what a plain dict says must come out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from amlctl.core.events import null_sink
from amlctl.operations.store.gc import gc
from amlctl.operations.store.needed import KeepRules
from amlctl.stores.contract import Store
from tests.simulator import virtual
from tests.simulator.world import DATASET, World
from tests.support.trees import Tree

Edits = Mapping[str, "bytes | None"]

BIG = b"0123456789" * 30
"""Larger than a pack takes: an object."""
BASE: Tree = {"a": b"one", "d/b": b"two", "d/c": BIG, "e": b"four", "gone": b"five", "gone too": b"six"}
OTHER = "working/y"
NEWER: Edits = {"gone": None, "e": b"four, newer", "d/c": BIG + b"newer", "new": b"seven"}
NEWER_LIST: Edits = {"gone": None, "e": b"four, newer", "new": b"seven"}
EDITS_A: Edits = {"a": b"one, by a", "new a": b"by a", "gone": None, "d/large a": BIG + b"by a"}
EDITS_B: Edits = {"d/b": b"two, by b", "new b": b"by b", "gone too": None, "d/c": BIG + b"by b"}
LATE_A: Edits = {path: data for path, data in EDITS_A.items() if path != "gone"}
SAME_A: Edits = {"e": b"four, newest", "d/c": BIG + b"newest", "new": None, "a": b"one, by a"}
AHEAD_S = 2.5 * 24 * 3600
OLD_AGAIN: Edits = {f"again/{number}": b"old %d" % number for number in range(4)} | {"again/big": BIG + b"old"}


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
    """What runs side by side, and what comes out of it, whatever the order.

    `edits` are made by each clone before the commands start; they touch different files, but for `rivals`, the paths
    that two clones change. `prepare` builds the state that all orders start from; a plain one is that every clone has
    `base`, synced three days ago. `at_once` is looked at right after the order, with the results of those that ended
    well; then come `first`, plain commands of all clones until they agree, and `settle`. `extra` is in `expected`
    besides, and so is `overlay`, of the world as it is in the end. `faults`: what may happen at a call besides
    what may always happen. `is_damaged`: HEAD is not whole at the start.
    """

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
    faults: Sequence[str] = ()
    is_damaged: bool = False
    first: Callable[[World], object] | None = None
    overlay: Callable[[World], Edits] | None = None
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
    return gc(store, KeepRules(now()), delete=True, sink=null_sink)


def _sync(scenario: Scenario, role: Role) -> Command:
    options = {"layout": scenario.layout, **role.options}
    return lambda world, store: world.sync(role.clone, store=store, dataset=role.dataset, **options)


def _pull(scenario: Scenario, role: Role) -> Command:
    return lambda world, store: world.pull(role.clone, store=store, dataset=role.dataset, **role.options)


def _gc(scenario: Scenario, role: Role) -> Command:
    return lambda world, store: collect(store)


_COMMANDS: Mapping[str, Callable[[Scenario, Role], Command]] = {"sync": _sync, "pull": _pull, "gc": _gc}
