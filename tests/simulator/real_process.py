"""Real commands on real files, harmed at each of their writes: killed, killed in the middle, or failed by the disk.

Each command is a process of its own, forked from this one, which has imported everything already: a hundred times
faster than an interpreter for each. After the harm come plain commands, and what they leave is compared with a dict.

`python -m tests.simulator.real_process` tries every write of every case with every kind of harm.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import amlctl
from tests.simulator.real_cases import CASES
from tests.simulator.real_place import Broken, Place
from tests.simulator.world import memory_folder
from tests.support.write_faults import KINDS

_INTERNAL = 70


@dataclass
class Tally:
    trials: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


class Bench:
    """One case: its state is made once, and copied for each trial."""

    def __init__(self, base: Path, name: str) -> None:
        self.name = name
        self.case = CASES[name]
        self.place = Place(base)
        self._picture = base / "picture"
        self.place.root.mkdir()
        for project in "abc":
            self.place.make_project(project)
        (self.place.root / "home").mkdir()
        self.case.prepare(self.place)
        self.place.root.rename(self._picture)

    def writes(self) -> Sequence[str]:
        """Of the command when it is not harmed."""
        self._set()
        ended = self.place.run(self.case.clone, *self._command(), number=0)
        if ended.code != 0:
            raise Broken(f"{self.name} without harm ends with {ended.code}: {ended.err}")
        self.case.check(self.place, True, 0)
        return ended.writes

    def trial(self, number: int, kind: str) -> str:
        """What is wrong after the harm; empty where nothing is."""
        self._set()
        ended = self.place.run(self.case.clone, *self._command(), number=number, kind=kind)
        if ended.code == _INTERNAL or "Traceback" in ended.err:
            return f"ends with {ended.code}: {ended.err.strip()[-500:]}"
        try:
            self.case.check(self.place, ended.code == 0, number)
        except Broken as broken:
            return str(broken)
        left = self.place.temporaries()
        if any(path.startswith("store/") for path in left):  # swept by a command that writes there
            self.place.run("c", "store", "gc", "--yes")
            left = self.place.temporaries()
        return f"left behind: {', '.join(left)}" if left else ""

    def _command(self) -> list[str]:
        known = {}
        with suppress(FileNotFoundError):
            known["SNAPSHOT"] = json.loads((self.place.root / "snapshot").read_text())["snapshot"]
        with suppress(FileNotFoundError):
            known["RUN"] = (self.place.root / "run").read_text()
        return [known.get(word, word) for word in self.case.command]

    def _set(self) -> None:
        shutil.rmtree(self.place.root, ignore_errors=True)
        shutil.copytree(self._picture, self.place.root, symlinks=True)


def harm(name: str, kinds: Sequence[str], every: int, tally: Tally, ends: float, *, start: int = 1) -> None:
    """Every `every`th write of a case with every kind of harm, until the monotonic time `ends`."""
    base = memory_folder()
    try:
        bench = Bench(base, name)
        count = len(bench.writes())
        for number in range(start, count + 1, every):
            for kind in kinds:
                if time.monotonic() > ends:
                    return
                problem = bench.trial(number, kind)
                tally.trials[kind] += 1
                if problem:
                    tally.failures.append(f"{name}:{number}:{kind}  {problem}")
    finally:
        shutil.rmtree(base, ignore_errors=True)


def import_everything() -> None:
    """Once, here, instead of in each process that is forked."""
    for found in pkgutil.walk_packages(amlctl.__path__, "amlctl."):
        if not found.name.startswith(("amlctl.stores.azure_blob", "amlctl.workspaces.azureml", "amlctl.__main__")):
            with suppress(ImportError):
                importlib.import_module(found.name)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulator.real_process", description=__doc__)
    parser.add_argument("--case", action="append", choices=list(CASES))
    parser.add_argument("--kinds", default=",".join(KINDS), help="separated by commas")
    parser.add_argument("--every", type=int, default=1, help="only one write of so many")
    parser.add_argument("--start", type=int, default=1, help="the first write that is harmed")
    parser.add_argument("--seconds", type=float, default=6 * 3600.0)
    parser.add_argument("--replay", metavar="CASE:WRITE:KIND")
    wanted = parser.parse_args(arguments)
    import_everything()
    if wanted.replay:
        return _replay(wanted.replay)
    ends = time.monotonic() + wanted.seconds
    total = Tally()
    for name in wanted.case or CASES:
        tally = Tally()
        harm(name, wanted.kinds.split(","), wanted.every, tally, ends, start=wanted.start)
        print(f"{name:12} {_counted(tally.trials)}; failed: {len(tally.failures)}", flush=True)
        for reported in tally.failures:
            print(f"    {reported}", flush=True)
        total.trials += tally.trials
        total.failures += tally.failures
    print(f"\n{sum(total.trials.values())} trials: {_counted(total.trials)}; failed: {len(total.failures)}")
    return bool(total.failures)


def _replay(text: str) -> int:
    name, number, kind = text.split(":")
    base = memory_folder()
    try:
        bench = Bench(base, name)
        writes = bench.writes()
        print("\n".join(f"{at:4} {write}" for at, write in enumerate(writes, 1)))
        print(f"{kind} at {number}")
        problem = bench.trial(int(number), kind)
        print(problem or "all is as it must be")
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return bool(problem)


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items())) or "none"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
