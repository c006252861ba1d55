"""One order: run it, look at what is there, let every clone run plain commands, look again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from amlctl.core.store_keys import dataset_of_key, head_key, is_head_key
from amlctl.errors import AmlctlError, Conflict, IntegrityError, NotFound
from tests.simulator import checks, virtual
from tests.simulator.checks import Broken
from tests.simulator.scenario import Role, Scenario, collect, pass_days
from tests.simulator.scenarios import SCENARIOS
from tests.simulator.scheduler import (
    Actor,
    Fault,
    Schedule,
    Scheduler,
    Step,
    Stuck,
    parse_fault,
    parse_schedule,
    written,
)
from tests.simulator.stepped_store import SteppedStore
from tests.simulator.world import Picture, World, new_world
from tests.support.trees import Tree

_AFTERWARDS_S = 2 * 3600.0
"""Every lease of a killed command has expired by then."""


class Order(NamedTuple):
    """`then` is the first plain command of each clone afterwards: `pull` or `sync`."""

    scenario: str
    schedule: Schedule
    fault: Fault | None = None
    then: str = "pull"

    def __str__(self) -> str:
        return f"{self.scenario}:{written(self.schedule)}:{self.fault or '-'}:{self.then}"


def parse_order(text: str) -> Order:
    scenario, schedule, fault, then = [*text.split(":"), *("", "-", "pull")[text.count(":") :]]
    if scenario not in SCENARIOS:
        raise ValueError(f"{scenario!r} is not a scenario: {', '.join(SCENARIOS)}")
    return Order(scenario, parse_schedule(schedule), parse_fault(fault), then)


@dataclass
class Outcome:
    """`problem` is empty where all is as it must be. `refusals`: errors that commands have ended with, by actor."""

    order: Order
    trace: list[Step]
    fault_came: bool
    problem: str = ""
    refusals: dict[str, str] = field(default_factory=dict)


class Stage:
    """Runs the orders of one scenario, each from the same picture. Not thread-safe; within `virtual.simulated`."""

    def __init__(self, scenario: Scenario, base: Path) -> None:
        self.scenario = scenario
        self._base = base
        self._picture = self._start()
        self._agreed: set[tuple[bytes, str]] = set()
        """States from which all clones came to agree, with the first command."""

    def _start(self) -> Picture:
        virtual.set_host(virtual.Host())
        world = new_world(self._base)
        try:
            self.scenario.build(world)
            self._trees = {clone: world.tree(clone) for clone in self.scenario.clones}
            return world.picture()
        finally:
            world.close()

    def run(self, order: Order) -> Outcome:
        world = new_world(self._base, picture=self._picture)
        actors = {
            role.name: Actor(role.name, role.clone or role.name, lambda: None, role.skew_s) for role in self.roles
        }
        scheduler = Scheduler(list(actors.values()), order.schedule, order.fault)
        scheduler.now_s = self._picture.now_s + 1_000.0
        virtual.set_host(scheduler)
        heads = _Heads(world)
        for role in self.roles:
            command = self.scenario.command(role)
            store = SteppedStore(world.store, scheduler, actors[role.name], heads.note)
            actors[role.name].run = lambda command=command, store=store: command(world, store)  # type: ignore[misc]
        outcome = Outcome(order, scheduler.trace, False)
        try:
            scheduler.run_all()
            outcome.refusals = {
                name: f"{type(actor.error).__name__}: {actor.error}" for name, actor in actors.items() if actor.error
            }
            self._judge(world, order, actors, heads)
            self._agree(world, order, scheduler.now_s, actors)
        except (Broken, Stuck) as broken:
            outcome.problem = str(broken)
        finally:
            outcome.fault_came = scheduler.fault_came
            scheduler.close()
            world.close()
        return outcome

    @property
    def roles(self) -> list[Role]:
        return list(self.scenario.roles)

    # --- right after the order -----------------------------------------------------------------------------

    def _judge(self, world: World, order: Order, actors: Mapping[str, Actor], heads: _Heads) -> None:
        scenario = self.scenario
        results = {name: actor.result for name, actor in actors.items() if actor.ended and actor.error is None}
        for role in self.roles:
            self._judge_error(role, actors[role.name], order)
        is_repaired = not scenario.is_damaged or results.get("a") is not None
        if is_repaired:
            found = checks.all_heads(world.store, self._underway(world, order, results)).get(scenario.dataset)
            is_removed = found is None and any(role.kind == "remove" for role in self.roles)
            head = checks.removed_tree(world.store, scenario.dataset) if is_removed else found or {}
        for role in self.roles:
            if role.dataset != scenario.dataset:
                continue
            mine = scenario.edits.get(role.clone, {})
            has_succeeded = results.get(role.name) is not None
            if role.kind == "sync" and is_repaired and has_succeeded and head is not None:
                open_paths = {*scenario.rivals, *(() if scenario.overlay is None else scenario.overlay(world))}
                wrong = [path for path, data in mine.items() if head.get(path) != data and path not in open_paths]
                if wrong:
                    raise Broken(f"{role.name}'s sync ended well, but the store has not: {', '.join(wrong)}")
            elif role.kind == "pull" and has_succeeded:
                self._judge_pulled(world, role, mine, heads)
            elif role.kind == "pull" and role.name not in results:
                self._judge_broken_off(world, role, mine, heads)
        if scenario.rivals and sum(results.get(role.name) is not None for role in self.roles) > 1:
            raise Broken(f"both have synced {', '.join(scenario.rivals)}, and neither was told")
        if scenario.at_once is not None:
            scenario.at_once(world, results)

    def _underway(self, world: World, order: Order, results: Mapping[str, Any]) -> checks.Underway:
        """A mirror has each file once: of a sync that did not come to its end, some are new already.

        Where nothing broke off, that was before the last commit: after it, one that has lost the lease does not write.
        """
        found: dict[str, list[bytes]] = {}
        failed = {role.clone for role in self.roles if results.get(role.name) is None}
        head = world.store.values.get(f"datasets/{self.scenario.dataset}/HEAD")
        for clone in failed if self.scenario.layout == "mirror" and head is not None else ():
            for path, data in self.scenario.edits.get(clone, {}).items():
                value = world.store.values.get(f"mirror/{self.scenario.dataset}/{path}")
                if order.fault is not None or value is None or head is None or value.modified_at <= head.modified_at:
                    found.setdefault(path, []).append(data or b"")
        return found

    def _judge_error(self, role: Role, actor: Actor, order: Order) -> None:
        error = actor.error
        if error is None:
            return
        if not isinstance(error, AmlctlError):
            raise Broken(f"{role.name} ({role.kind}) ends with a fault of amlctl: {error!r}") from error
        if isinstance(error, Conflict) and error.details:
            if not set(error.details) <= set(self.scenario.rivals):
                raise Broken(f"{role.name} ({role.kind}) sees a false conflict: {error} {list(error.details)}")
        elif isinstance(error, IntegrityError):
            is_mirror = self.scenario.layout == "mirror"
            if not self.scenario.is_damaged and not is_mirror:
                raise Broken(f"{role.name} ({role.kind}) sees damage where there is not any: {error}")
        elif not isinstance(error, (Conflict, NotFound)) and (order.fault is None or order.fault.actor != role.name):
            raise Broken(f"{role.name} ({role.kind}) ends with {error!r}")

    def _judge_pulled(self, world: World, role: Role, mine: Mapping[str, bytes | None], heads: _Heads) -> None:
        """What a pull leaves is one of the HEADs that there were, with this clone's own edits."""
        base = self.scenario.base
        ours = _edited(base, mine)
        found = world.tree(role.clone)
        wrong = ""
        for tree in heads.trees(world):
            wanted = _merged(base, ours, tree)
            wrong = checks.differences(found, wanted)
            if not wrong:
                return
        raise Broken(f"{role.name}'s pull ended well, but leaves a state that the store never had: {wrong}")

    def _judge_broken_off(self, world: World, role: Role, mine: Mapping[str, bytes | None], heads: _Heads) -> None:
        """A pull that did not come to its end has deleted nothing before everything new was here."""
        base, found = self._trees[role.clone], world.tree(role.clone)
        gone: list[str] = []
        missing: list[str] = []
        for tree in heads.trees(world):
            gone = [path for path in base if path not in tree and path not in mine and path not in found]
            missing = [path for path in tree if path not in mine and found.get(path) != tree[path]]
            if not gone or not missing:
                return
        if gone:
            raise Broken(f"{role.name}'s pull has deleted {', '.join(gone)} before {', '.join(missing)} was here")

    # --- afterwards ----------------------------------------------------------------------------------------

    def _agree(self, world: World, order: Order, now_s: float, actors: Mapping[str, Actor]) -> None:
        host = virtual.Host()
        host.now_s = now_s + _AFTERWARDS_S
        virtual.set_host(host)
        state = (world.fingerprint(), order.then)
        if state in self._agreed:
            return
        try:
            self._settle(world, order.then)
        except AmlctlError as error:
            details = f" {list(error.details)}" if error.details else ""
            raise Broken(f"plain commands afterwards do not succeed: {error!r}{details}") from error
        self._agreed.add(state)

    def _settle(self, world: World, then: str) -> None:
        scenario = self.scenario
        if scenario.first is not None:
            scenario.first(world)
        for clone in scenario.clones:
            for command in ("sync", "pull") if then == "sync" else ("pull", "sync"):
                self._plainly(world, clone, command)
        for clone in scenario.clones:
            self._plainly(world, clone, "pull")
        if scenario.settle is not None:
            scenario.settle(world, {})
            for clone in scenario.clones:
                self._plainly(world, clone, "pull")
        self._all_is_as_expected(world)
        pass_days(400)
        collect(world.store)
        self._all_is_as_expected(world)
        if scenario.at_once is not None:
            scenario.at_once(world, {})

    def _plainly(self, world: World, clone: str, command: str) -> None:
        scenario = self.scenario
        has_head = scenario.dataset in checks.committed(world.store)
        if not has_head if command == "pull" else not world.root(clone, scenario.dataset).exists():
            return  # there is nothing yet, and that is what it would say
        options: dict[str, Any] = {"layout": scenario.layout} if command == "sync" else {}
        call = world.sync if command == "sync" else world.pull
        try:
            call(clone, dataset=scenario.dataset, **options)
        except Conflict as conflict:
            if not conflict.details or not set(conflict.details) <= set(scenario.rivals):
                raise
            world.pull(clone, dataset=scenario.dataset, theirs=True)
            call(clone, dataset=scenario.dataset, **options)

    def _all_is_as_expected(self, world: World) -> None:
        scenario = self.scenario
        expected = scenario.expected
        if scenario.overlay is not None:
            expected = _edited(expected, scenario.overlay(world))
        trees = {
            f"HEAD of {name}": tree for name, tree in checks.all_heads(world.store).items() if name == scenario.dataset
        }
        trees |= {f"clone {clone}": world.tree(clone, scenario.dataset) for clone in scenario.clones}
        rivals = []
        for what, tree in trees.items():
            rest = {path: data for path, data in tree.items() if path not in scenario.rivals}
            if wrong := checks.differences(rest, expected):
                raise Broken(f"in the end {what}: {wrong}")
            rivals.append({path: tree.get(path) for path in scenario.rivals})
        if any(one != rivals[0] for one in rivals):
            raise Broken(f"in the end the clones do not agree: {rivals}")
        for path in scenario.rivals:
            if rivals[0][path] not in [edits.get(path) for edits in scenario.edits.values()]:
                raise Broken(f"in the end {path} was written by neither: {rivals[0][path]!r}")


class _Heads:
    """Every HEAD that the dataset had."""

    def __init__(self, world: World) -> None:
        self._found: list[tuple[str, Tree]] = []
        self._world = world
        for dataset in checks.datasets(world.store):
            self.note(head_key(dataset))

    def note(self, key: str) -> None:
        """HEAD has moved just now; one that is not whole is told by others."""
        if is_head_key(key):
            dataset = dataset_of_key(key)
            try:
                self._found.append((dataset, checks.head_tree(self._world.store, dataset)))
            except Broken:
                return

    def trees(self, world: World) -> list[Tree]:
        from tests.simulator.world import DATASET

        return [tree for dataset, tree in self._found if dataset == DATASET]


def _edited(base: Mapping[str, bytes], edits: Mapping[str, bytes | None]) -> Tree:
    tree: dict[str, bytes | None] = {**base, **edits}
    return {path: data for path, data in tree.items() if data is not None}


def _merged(base: Tree, ours: Tree, theirs: Tree) -> Tree:
    """Path by path the side that changed; ours where both did."""
    result = {}
    for path in {*ours, *theirs}:
        chosen = theirs.get(path) if ours.get(path) == base.get(path) else ours.get(path)
        if chosen is not None:
            result[path] = chosen
    return result
