"""A year of a team, drawn from a seed: three clones, two stores, and a dict for each that says what must be there.

`python -m tests.simulator.team --years 20 --seed 1`; one of them again: `--years 1 --seed 7`.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from amlctl.errors import AmlctlError, Conflict
from amlctl.snapshots.heads import read_head
from tests.simulator import checks, virtual
from tests.simulator.checks import Broken
from tests.simulator.scenario import collect, pass_days
from tests.simulator.scheduler import ALWAYS, Actor, Fault, Scheduler
from tests.simulator.stepped_store import SteppedStore
from tests.simulator.world import DATASET, World, memory_folder, new_world
from tests.support.memory_store import MemoryStore, Value
from tests.support.trees import Tree

STEPS = 250
_PATHS = ("a", "b c", "d/e", "d/f", "g/h/i", "ü\n'", "p0", "p1", "p2", "p3")
_CLONES = ("a", "b", "c")
_STORES = ("one", "two")
_KEPT = 5
"""Of the snapshots of a store, so many of the newest may be restored: gc keeps more."""


class Year:
    """`log` is what was done, in words."""

    def __init__(self, seed: int, base: Path) -> None:
        self._rng = random.Random(seed)
        self._world: World = new_world(base)
        self._values: dict[str, dict[str, Value]] = {store: {} for store in _STORES}
        self._folder = {clone: f"{clone}0" for clone in _CLONES}
        self._moves = 0
        self._disk: dict[str, Tree] = {clone: {} for clone in _CLONES}
        self._agreed: dict[tuple[str, str], Tree] = {}
        self._stored: dict[str, Tree | None] = dict.fromkeys(_STORES)
        self._snapshots: dict[str, list[tuple[str, Tree]]] = {store: [] for store in _STORES}
        self._blurred: dict[str, str] = {}
        """Clones whose last pull was cut off, with its store: their folders are between two states."""
        self.log: list[str] = []
        for clone in _CLONES:
            self._world.add_clone(self._folder[clone])
            self._world.root(self._folder[clone]).mkdir(parents=True)

    def run(self, steps: int) -> None:
        """Raises Broken."""
        doings: Sequence[tuple[int, Callable[[], None]]] = (
            (30, self._edit), (22, self._sync), (18, self._pull), (6, self._cut_off_sync), (8, self._cut_off_pull),
            (4, self._collect), (4, self._wait), (3, self._move), (3, self._restore), (2, self._force),
        )  # fmt: skip
        try:
            for _ in range(steps):
                doing = self._rng.choices([doing for _, doing in doings], [weight for weight, _ in doings])[0]
                doing()
                self._look()
        except AmlctlError as error:
            raise Broken(f"{error!r} {list(error.details)}") from error
        finally:
            self._world.close()

    # --- what they do -----------------------------------------------------------------------------------------

    def _edit(self) -> None:
        clone = self._clone()
        if clone in self._blurred:
            return  # people do not work in a folder that a pull has left half way
        path = self._rng.choice(_PATHS)
        if path in self._disk[clone] and self._rng.random() < 0.3:
            self._edited(clone, path, None)
        else:
            size = self._rng.choice([0, 1, 30, 30, 400])
            self._edited(clone, path, self._rng.randbytes(size))

    def _edited(self, clone: str, path: str, data: bytes | None) -> None:
        self.log.append(f"{clone} {'removes' if data is None else 'writes'} {path!r}")
        self._world.edit(self._folder[clone], {path: data})
        if data is None:
            del self._disk[clone][path]
        else:
            self._disk[clone][path] = data

    def _sync(self) -> None:
        clone, store = self._clone(), self._store()
        if self._blurred.get(clone, store) != store:
            return
        prefer = self._rng.choice(["", "", "", "ours", "theirs"])
        expected = self._merged(clone, store, prefer)
        self.log.append(f"{clone} syncs with {store} {prefer} {'(conflict)' if expected is None else ''}")
        try:
            self._run_sync(clone, store, **({prefer: True} if prefer else {}))
        except Conflict as conflict:
            if expected is not None:
                raise Broken(f"a false conflict: {conflict} {list(conflict.details)}") from conflict
            return
        if expected is None:
            raise Broken("a conflict was not told")
        self._has_synced(clone, store, expected)

    def _force(self) -> None:
        clone, store = self._clone(), self._store()
        if clone in self._blurred:
            return
        self.log.append(f"{clone} forces its state on {store}")
        self._run_sync(clone, store, force=True)
        self._has_synced(clone, store, dict(self._disk[clone]))

    def _has_synced(self, clone: str, store: str, expected: Tree) -> None:
        self._stored[store] = expected
        head = read_head(self._open(store), DATASET)
        assert head is not None
        self._snapshots[store].append((head.snapshot, expected))
        # What both sides have in common: what is here, as far as it went there.
        self._agreed[clone, store] = dict(self._disk[clone])

    def _pull(self) -> None:
        clone, store = self._clone(), self._store()
        stored = self._stored[store]
        if stored is None or self._blurred.get(clone, store) != store:
            return
        prefer = self._rng.choice(["", "", "", "ours", "theirs"])
        expected = self._merged(clone, store, prefer)
        self.log.append(f"{clone} pulls from {store} {prefer} {'(conflict)' if expected is None else ''}")
        try:
            self._run_pull(clone, store, **({prefer: True} if prefer else {}))
        except Conflict as conflict:
            if expected is not None:
                raise Broken(f"a false conflict: {conflict} {list(conflict.details)}") from conflict
            return
        if expected is None:
            raise Broken("a conflict was not told")
        self._blurred.pop(clone, None)
        self._disk[clone] = expected
        self._agreed[clone, store] = dict(stored)

    def _cut_off_pull(self) -> None:
        clone, store = self._clone(), self._store()
        if self._stored[store] is None or self._blurred.get(clone, store) != store:
            return
        if self._merged(clone, store, "") is None:
            return
        ended = self._harmed(clone, store, is_pull=True)
        if ended:
            expected = self._merged(clone, store, "")
            assert expected is not None
            self._disk[clone] = expected
            self._agreed[clone, store] = dict(self._stored[store] or {})
            self._blurred.pop(clone, None)
        else:
            self._blurred[clone] = store

    def _cut_off_sync(self) -> None:
        clone, store = self._clone(), self._store()
        if clone in self._blurred:
            return
        expected = self._merged(clone, store, "")
        if expected is None:
            return
        has_ended = self._harmed(clone, store, is_pull=False)
        found = checks.all_heads(self._open(store)).get(DATASET)
        if found == expected and (has_ended or found != self._stored[store]):
            self._has_synced(clone, store, expected)

    def _collect(self) -> None:
        store = self._store()
        if self._stored[store] is None:
            return
        self.log.append(f"gc of {store}")
        collect(self._open(store))

    def _wait(self) -> None:
        days = self._rng.choice([1, 3, 40])
        self.log.append(f"{days} days pass")
        pass_days(days)

    def _move(self) -> None:
        clone = self._clone()
        self._moves += 1
        new = f"{clone}{self._moves}"
        self.log.append(f"{clone} moves its project")
        (self._world.folder / self._folder[clone]).rename(self._world.folder / new)
        self._folder[clone] = new

    def _restore(self) -> None:
        clone, store = self._clone(), self._store()
        if clone in self._blurred or not self._snapshots[store]:
            return
        snapshot, tree = self._rng.choice(self._snapshots[store][-_KEPT:])
        base, disk = self._agreed.get((clone, store), {}), self._disk[clone]
        lost = [path for path, data in disk.items() if base.get(path) != data and tree.get(path) != data]
        self.log.append(f"{clone} restores {snapshot[:6]} of {store} {'(conflict)' if lost else ''}")
        try:
            self._run_pull(clone, store, snapshot=snapshot)
        except Conflict as conflict:
            if not lost:
                raise Broken(f"a false conflict: {conflict} {list(conflict.details)}") from conflict
            return
        if lost:
            raise Broken(f"a restore has overwritten {', '.join(lost)}")
        self._disk[clone] = dict(tree)
        self._agreed[clone, store] = dict(self._stored[store] or {})

    # --- how ----------------------------------------------------------------------------------------------------

    def _clone(self) -> str:
        return self._rng.choice(_CLONES)

    def _store(self) -> str:
        return self._rng.choice(_STORES)

    def _open(self, store: str) -> MemoryStore:
        """The store, now and then by another spelling of its URL."""
        spelled = self._rng.choice([store, store, f"./{store}", f"{store}/"])
        return MemoryStore(lambda: virtual.host().now_s, self._values[store], spelled, is_folder=True)

    def _run_sync(self, clone: str, store: str, **options: Any) -> None:
        self._world.sync(self._folder[clone], store=self._open(store), yes=True, **options)

    def _run_pull(self, clone: str, store: str, **options: Any) -> None:
        self._world.pull(self._folder[clone], store=self._open(store), yes=True, **options)

    def _harmed(self, clone: str, store: str, *, is_pull: bool) -> bool:
        """A pull or a sync that is harmed at one of its calls; whether it has ended well all the same."""
        fault = Fault(clone, self._rng.randrange(14), self._rng.choice(ALWAYS))
        self.log.append(f"{clone} {'pulls from' if is_pull else 'syncs with'} {store}, {fault}")
        before = virtual.host()
        actor = Actor(clone, clone, lambda: None)
        scheduler = Scheduler([actor], (), fault)
        scheduler.now_s = before.now_s
        over = SteppedStore(self._open(store), scheduler, actor, lambda key: None)
        call = self._world.pull if is_pull else self._world.sync
        actor.run = lambda: call(self._folder[clone], store=over, yes=True)
        virtual.set_host(scheduler)
        try:
            scheduler.run_all()
        finally:
            # The folder must not change any more: what a killed command cleans up in its end would be seen.
            moved = self._world.folder / f"dead{len(self.log)}"
            root = self._world.folder / self._folder[clone]
            shutil.copytree(root, moved, symlinks=True)
            scheduler.close()
            shutil.rmtree(root)
            moved.rename(root)
            virtual.set_host(before)
            before.now_s = scheduler.now_s + 2 * 3600
        error = actor.error
        if error is not None and not isinstance(error, AmlctlError):
            raise Broken(f"a fault of amlctl: {error!r}") from error
        if isinstance(error, Conflict) and error.details:
            raise Broken(f"a false conflict: {error} {list(error.details)}") from error
        return actor.ended and error is None

    def _merged(self, clone: str, store: str, prefer: str) -> Tree | None:
        """Path by path; None where both have changed the same, and nothing decides."""
        base, ours = self._agreed.get((clone, store), {}), self._disk[clone]
        theirs = self._stored[store] or {}
        result: Tree = {}
        for path in {*base, *ours, *theirs}:
            b, o, t = base.get(path), ours.get(path), theirs.get(path)
            is_conflict = b not in (o, t) and o != t
            if is_conflict and not prefer:
                return None
            chosen = (o if prefer == "ours" else t) if is_conflict else (t if o == b else o)
            if chosen is not None:
                result[path] = chosen
        return result

    def _look(self) -> None:
        for store, expected in self._stored.items():
            if expected is not None:
                found = checks.all_heads(self._open(store)).get(DATASET, {})
                if wrong := checks.differences(found, expected):
                    raise Broken(f"store {store}: {wrong}")
        for clone, expected in self._disk.items():
            if clone in self._blurred:
                continue
            if wrong := checks.differences(self._files(clone), expected):
                raise Broken(f"clone {clone}: {wrong}")

    def _files(self, clone: str) -> Mapping[str, bytes]:
        found = self._world.tree(self._folder[clone])
        return {path: data for path, data in found.items() if not path.endswith("/")}


def live(seed: int, steps: int) -> str:
    """What went wrong in the year of that seed, with what was done before; empty where nothing did."""
    base = memory_folder()
    virtual.set_host(virtual.Host())
    try:
        with virtual.simulated():
            year = Year(seed, base)
            try:
                year.run(steps)
            except Broken as broken:
                last = "\n  ".join(year.log[-25:])
                again = f"python -m tests.simulator.team --years 1 --seed {seed} --steps {steps}"
                return f"{broken}\n  {last}\n  again: {again}"
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return ""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulator.team", description=__doc__)
    parser.add_argument("--years", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1, help="of the first year")
    parser.add_argument("--steps", type=int, default=STEPS)
    wanted = parser.parse_args(arguments)
    failed = 0
    for seed in range(wanted.seed, wanted.seed + wanted.years):
        reported = live(seed, wanted.steps)
        failed += bool(reported)
        if reported:
            print(f"year {seed}: {reported}", flush=True)
    print(f"{wanted.years} years of {wanted.steps} steps; failed: {failed}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
