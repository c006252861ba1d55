"""One actor runs at a time, from one call of the store to the next; a schedule says who makes the next call.

A schedule is written as `a3b2a`: `a` makes three calls, `b` two, then `a` runs as long as it can, then those that are
left, in the order in which they are given. While an actor that the schedule names is asleep, time passes and the others
do nothing, as if their machines slept. One that waits for a lock is passed over. A killed actor's thread stays where it
is, so that nothing of it is cleaned up, until the world has ended.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from amlctl.errors import ServiceUnavailable
from tests.simulator.virtual import EPOCH_S, Gone, Host

STEP_S = 0.01
_MOST_STEPS = 3_000


class Stuck(AssertionError):
    """No actor can continue, or they never stop."""


class Step(NamedTuple):
    actor: str
    method: str
    key: str

    @property
    def writes(self) -> bool:
        return self.method in ("put", "swap", "delete")


class Fault(NamedTuple):
    """At the `number`th call (from 0) of an actor. `kind`: `kill-before`, `kill-after`, `lost` (the effect is there,
    the answer is not), `refused` (no effect), `jump` (two days pass before it), `cut` (half of what is put arrives, and
    the answer does not say so)."""

    actor: str
    number: int
    kind: str

    def __str__(self) -> str:
        return f"{self.actor}{self.number}!{self.kind}"


KINDS = ("kill-before", "kill-after", "lost", "refused", "jump", "cut")
ALWAYS = KINDS[:4]
"""What every scenario has to bear."""
JUMP_S = 2.1 * 24 * 3600


def parse_fault(text: str) -> Fault | None:
    if text in ("", "-"):
        return None
    found = re.fullmatch(r"([a-z])(\d+)!([a-z-]+)", text)
    if found is None or found[3] not in KINDS:
        raise ValueError(f"{text!r} is not a fault: expected e.g. a3!kill-after")
    return Fault(found[1], int(found[2]), found[3])


Schedule = tuple[tuple[str, int], ...]
"""Actor and number of calls; 0 is as many as it makes."""


def parse_schedule(text: str) -> Schedule:
    return tuple((name, int(count or 0)) for name, count in re.findall(r"([a-z])(\d*)", text))


def written(schedule: Schedule) -> str:
    return "".join(f"{name}{count or ''}" for name, count in schedule)


@dataclass
class Actor:
    """`machine` names whose computer it is; `skew_s` is how far its clock is ahead. `ended`: it has returned, or raised
    `error`."""

    name: str
    machine: str
    run: Callable[[], object]
    skew_s: float = 0.0
    calls: int = 0
    wake_at_s: float = 0.0
    waits_for: Path | None = None
    ended: bool = False
    killed: bool = False
    error: BaseException | None = None
    result: object = None
    start_s: float = 0.0
    go: threading.Lock = field(default_factory=threading.Lock, repr=False)
    thread: threading.Thread | None = field(default=None, repr=False)


class Scheduler(Host):
    """Runs actors once. Also the product's `Host` while they run."""

    def __init__(self, actors: Sequence[Actor], schedule: Schedule, fault: Fault | None) -> None:
        super().__init__()
        self.now_s = EPOCH_S + 1_000.0
        self.actors = {actor.name: actor for actor in actors}
        self._schedule = list(schedule)
        self._fault = fault
        self._current: Actor | None = None
        self._segment_calls = 0
        self._locks: dict[Path, Actor] = {}
        self._finished = threading.Lock()
        self._finished.acquire()
        self._stuck: Stuck | None = None
        self._is_closed = False
        self._in_step = False
        self.fault_came = False
        self.is_cut = False
        """Half of the bytes of this call arrive."""
        self.trace: list[Step] = []

    def run_all(self) -> None:
        """Until every actor has ended or was killed. Raises Stuck."""
        for actor in self.actors.values():
            actor.go.acquire()
            actor.thread = threading.Thread(target=self._run, args=(actor,), daemon=True)
            actor.thread.start()
        self._hand_over(None)
        self._finished.acquire()
        self._current = None
        if self._stuck is not None:
            raise self._stuck

    def close(self) -> None:
        """The threads of killed actors end; nothing that they do has an effect any more."""
        self._is_closed = True
        for actor in self.actors.values():
            if actor.thread is not None and actor.thread.is_alive():
                actor.go.release()
                actor.thread.join()

    # --- the product's host -------------------------------------------------------------------------------

    def now(self) -> float:
        actor = self._current
        return self.now_s + (0.0 if actor is None else actor.skew_s)

    def machine(self) -> str:
        return "machine" if self._current is None else self._current.machine

    def sleep(self, seconds: float) -> None:
        actor = self._current
        if actor is None or self._is_closed:
            self.now_s += seconds
            return
        actor.wake_at_s = self.now_s + seconds
        self._pause(actor)

    @contextmanager
    def locked(self, path: Path) -> Iterator[None]:
        actor = self._current
        if actor is None or self._is_closed:
            yield
            return
        while path in self._locks:
            actor.waits_for = path
            self._pause(actor)
        actor.waits_for = None
        self._locks[path] = actor
        try:
            yield
        finally:
            if self._locks.get(path) is actor:
                del self._locks[path]

    # --- calls of the store ------------------------------------------------------------------------------

    @contextmanager
    def call(self, actor: Actor, method: str, key: str) -> Iterator[None]:
        """Around the effect of a call: waits until it is this actor's turn, and does it harm if that is due."""
        if self._is_closed or actor.killed:
            raise Gone
        if self._in_step or self._current is not actor:  # asked by another call, before its effect: one step with it
            yield
            return
        self._pause(actor)
        number, actor.calls = actor.calls, actor.calls + 1
        if self._schedule and self._schedule[0][0] == actor.name:
            self._segment_calls += 1
        self.now_s += STEP_S
        self.trace.append(Step(actor.name, method, key))
        if len(self.trace) > _MOST_STEPS:
            self._fail(Stuck(f"more than {_MOST_STEPS} calls: the last ones are {self.trace[-6:]}"))
        fault = self._fault
        kind = fault.kind if fault is not None and (fault.actor, fault.number) == (actor.name, number) else ""
        self.fault_came |= bool(kind)
        if kind == "kill-before":
            self._kill(actor)
        if kind == "refused":
            raise ServiceUnavailable(f"{method} {key}: the simulator refuses it", hint="run it again")
        if kind == "jump":
            self.now_s += JUMP_S
        self._in_step, self.is_cut = True, kind == "cut"
        try:
            yield
        finally:
            self._in_step = self.is_cut = False
        if kind == "kill-after":
            self._kill(actor)
        if kind == "lost":
            raise ServiceUnavailable(f"{method} {key}: the simulator loses the answer", hint="run it again")

    # --- who is next -------------------------------------------------------------------------------------

    def _run(self, actor: Actor) -> None:
        actor.go.acquire()
        if not self._is_closed:
            actor.start_s = self.now_s
            try:
                actor.result = actor.run()
            except Gone:
                return
            except BaseException as error:  # noqa: BLE001 - judged by the checks
                actor.error = error
        if not self._is_closed:
            actor.ended = True
            self._hand_over(actor)

    def _pause(self, actor: Actor) -> None:
        """Let the next actor continue, if that is another one, and wait for the next turn."""
        chosen = self._next(actor)
        if chosen is actor:
            return
        self._give_turn(chosen)
        actor.go.acquire()
        if self._is_closed:
            raise Gone

    def _kill(self, actor: Actor) -> None:
        actor.killed = True
        for path in [path for path, holder in self._locks.items() if holder is actor]:
            del self._locks[path]
        self._hand_over(actor)
        actor.go.acquire()
        raise Gone

    def _fail(self, stuck: Stuck) -> None:
        self._stuck = stuck
        assert self._current is not None
        self._kill_all()

    def _kill_all(self) -> None:
        actor = self._current
        for other in self.actors.values():
            other.killed = True
        self._finished.release()
        if actor is not None:
            actor.go.acquire()
        raise Gone

    def _hand_over(self, actor: Actor | None) -> None:
        """`actor` does not continue."""
        try:
            chosen = self._next(actor)
        except Stuck as stuck:
            self._stuck = stuck
            self._finished.release()
            return
        if chosen is None:
            self._finished.release()
        else:
            self._give_turn(chosen)

    def _give_turn(self, chosen: Actor | None) -> None:
        assert chosen is not None
        self._current = chosen
        chosen.go.release()

    def _next(self, current: Actor | None) -> Actor | None:
        self._wake_next()
        while True:
            able = [actor for actor in self.actors.values() if self._can_go_on(actor)]
            if able:
                return self._by_schedule(current, able)
            left = [actor for actor in self.actors.values() if not actor.ended and not actor.killed]
            if not left:
                return None
            asleep = [actor.wake_at_s for actor in left if actor.wake_at_s > self.now_s and actor.waits_for is None]
            if not asleep:
                raise Stuck(f"{[actor.name for actor in left]} wait for one another")
            self.now_s = min(asleep)

    def _wake_next(self) -> None:
        """The actor that the schedule names sleeps, and no other does anything meanwhile."""
        for name, count in self._schedule:
            wanted = self.actors.get(name)
            if wanted is None or wanted.ended or wanted.killed or 0 < count <= self._segment_calls:
                return
            if wanted.waits_for is None:
                self.now_s = max(self.now_s, wanted.wake_at_s)
            return

    def _can_go_on(self, actor: Actor) -> bool:
        if actor.ended or actor.killed or actor.wake_at_s > self.now_s:
            return False
        return actor.waits_for is None or actor.waits_for not in self._locks

    def _by_schedule(self, current: Actor | None, able: Sequence[Actor]) -> Actor:
        while self._schedule:
            name, count = self._schedule[0]
            is_over = 0 < count <= self._segment_calls
            wanted = self.actors.get(name)
            if not is_over and wanted is not None and wanted in able:
                return wanted
            if not is_over and wanted is not None and not wanted.ended and not wanted.killed:
                break  # it waits: another actor continues for now
            self._schedule.pop(0)
            self._segment_calls = 0
        return current if current is not None and current in able else able[0]
