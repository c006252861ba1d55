"""Which orders are tried: all of them without preemption, with every fault at every call, and in turn with them every
single preemption; then orders with two to four preemptions, and a fault, drawn from a seed."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.simulator.order import Order, Outcome, Stage
from tests.simulator.scenario import Scenario
from tests.simulator.scheduler import ALWAYS, Fault, Schedule, Step


@dataclass
class Tally:
    """`distinct`: orders that differ in more than the turn of calls that have nothing to do with each other."""

    orders: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    failures: list[Outcome] = field(default_factory=list)
    seconds: float = 0.0
    _seen: set[int] = field(default_factory=set, repr=False)

    @property
    def distinct(self) -> int:
        return len(self._seen)

    def add(self, outcome: Outcome) -> None:
        self.orders += 1
        self.calls += len(outcome.trace)
        fault = outcome.order.fault
        if fault is not None and outcome.fault_came:
            self.faults[fault.kind] += 1
        for reported in outcome.refusals.values():
            self.refusals[reported.partition(":")[0]] += 1
        if outcome.problem:
            self.failures.append(outcome)
        self._seen.add(hash((_normal_form(outcome.trace), fault, outcome.order.then)))


def explore(
    scenario: Scenario,
    base: Path,
    orders: int,
    seed: int,
    *,
    stop_at: Callable[[], bool] = lambda: False,
    most_failures: int = 5,
) -> Tally:
    """Try so many orders of the scenario; fewer where `stop_at` says so, or enough have failed."""
    started = time.process_time()
    stage = Stage(scenario, base)
    tally = Tally()
    for order in _orders(scenario, stage, tally, orders, random.Random(f"{seed} {scenario.name}")):
        if stop_at() or tally.orders >= orders or len(tally.failures) >= most_failures:
            break
        tally.add(stage.run(order))
    tally.seconds = time.process_time() - started
    return tally


def _orders(scenario: Scenario, stage: Stage, tally: Tally, wanted: int, rng: random.Random) -> Iterator[Order]:
    names = [role.name for role in scenario.roles]
    kinds = (*ALWAYS, *scenario.faults)
    plain: list[tuple[Schedule, list[Step]]] = []
    for turn in itertools.permutations(names):
        schedule = tuple((name, 0) for name in turn)
        outcome = stage.run(Order(scenario.name, schedule, None, rng.choice(("pull", "sync"))))
        tally.add(outcome)
        plain.append((schedule, outcome.trace))
    one_by_one = [
        Order(scenario.name, schedule, Fault(name, number, kind), then)
        for schedule, trace in plain
        for name in names
        for number in range(sum(step.actor == name for step in trace))
        for kind in kinds
        for then in ("pull", "sync")
    ]
    preempted = [
        Order(scenario.name, schedule, None, rng.choice(("pull", "sync")))
        for schedule in dict.fromkeys(child for _, trace in plain for child in _preempted(trace, names))
    ]
    if len(one_by_one) + len(preempted) > wanted * 0.6:
        # Not enough room for all of both: a sample that has some of each.
        rng.shuffle(one_by_one)
        rng.shuffle(preempted)
        one_by_one, preempted = one_by_one[: int(wanted * 0.35)], preempted[: int(wanted * 0.25)]
    # In turn: what one of both kinds shows is found soon, however few orders are tried.
    yield from filter(None, itertools.chain.from_iterable(itertools.zip_longest(one_by_one, preempted)))
    calls = {name: max(sum(step.actor == name for step in trace) for _, trace in plain) for name in names}
    writes = {name: sorted({at for _, trace in plain for at in _before_writes(trace, name)}) for name in names}
    while len(names) > 1:  # a single one has no other orders
        schedule = _drawn(names, calls, writes, rng)
        fault = None
        if rng.random() < 0.6:
            name = rng.choice(names)
            fault = Fault(name, rng.randrange(calls[name] + 1), rng.choice(kinds))
        yield Order(scenario.name, schedule, fault, rng.choice(("pull", "sync")))


def _preempted(trace: Sequence[Step], names: Sequence[str]) -> Iterator[Schedule]:
    """The order of the trace, with one actor stopped at one point for as long as another one needs."""
    for at in range(1, len(trace)):
        later = {step.actor for step in trace[at:]}
        for name in names:
            if name in later and name != trace[at].actor:
                yield (*_runs(trace[:at]), (name, 0))


def _runs(trace: Sequence[Step]) -> Schedule:
    return tuple((name, len(list(steps))) for name, steps in itertools.groupby(step.actor for step in trace))


def _before_writes(trace: Sequence[Step], name: str) -> Iterator[int]:
    """How many calls an actor has made before each of those that write."""
    for at, step in enumerate(step for step in trace if step.actor == name):
        if step.writes:
            yield at


def _drawn(
    names: Sequence[str], calls: Mapping[str, int], writes: Mapping[str, Sequence[int]], rng: random.Random
) -> Schedule:
    """Two to four preemptions; half of them right before a call that writes."""
    schedule: list[tuple[str, int]] = []
    made = dict.fromkeys(names, 0)
    for _ in range(rng.randint(3, 5)):
        name = rng.choice([name for name in names if not schedule or name != schedule[-1][0]])
        before = [at - made[name] for at in writes[name] if at > made[name]]
        count = rng.choice(before) if before and rng.random() < 0.5 else rng.randint(1, max(1, calls[name]))
        made[name] += count
        schedule.append((name, count))
    return tuple(schedule)


def _normal_form(trace: Sequence[Step]) -> tuple[tuple[tuple[str, str, str], ...], ...]:
    """Foata's: levels of calls of which none depends on another one of its level."""
    levels: list[list[Step]] = []
    last: dict[str, int] = {}
    written: dict[str, int] = {}
    touched: dict[str, int] = {}
    for step in trace:
        folder = step.key if step.method == "list" else ""
        level = last.get(step.actor, -1)
        if step.method == "list":
            level = max([level, *(at for key, at in written.items() if key.startswith(folder))])
        else:
            level = max(level, written.get(step.key, -1))
            if step.writes:
                level = max(level, touched.get(step.key, -1), touched.get("*", -1))
        level += 1
        last[step.actor] = level
        if step.writes:
            written[step.key] = level
        touched[step.key if step.method != "list" else "*"] = level
        while len(levels) <= level:
            levels.append([])
        levels[level].append(step)
    return tuple(tuple(sorted(level)) for level in levels)
