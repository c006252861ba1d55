"""Real commands on real files, harmed at each of their writes: killed, killed in the middle, or failed by the disk.

Each command is a process of its own, forked from this one, which has imported everything already: a hundred times
faster than an interpreter for each. After the harm come plain commands, and what they leave is compared with a dict.

`python -m tests.simulator.real_process` tries every write of every case with every kind of harm.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import amlctl
from tests.simulator.world import files_below, memory_folder
from tests.support.trees import Tree
from tests.support.write_faults import KINDS, WriteFaults

DATASET = "data_blobs/working/x"
_BIG = bytes(range(256)) * 8
BASE: Tree = {**{f"d{n % 3}/f{n}": b"content %d" % n * 9 for n in range(10)}, "big": _BIG * 2, "gone": b"x"}
EDITED: Tree = {
    **{path: data for path, data in BASE.items() if path != "gone"},
    "d0/f0": b"edited",
    "new": b"new",
    "big": _BIG,
}
_OLD_S = 3 * 24 * 3600.0
_SETTINGS = """default_workspace = "local"
experiment = "x"
[workspaces.local]
compute = "local"
store = "{store}"
[sync]
pack_below = "1KiB"
"""
_INTERNAL = 70
_LIMIT_S = 120.0


class Ended(NamedTuple):
    """`code` is negative for a signal."""

    code: int
    out: str
    err: str
    writes: Sequence[str]


class Broken(AssertionError):
    """After the harm something is lost, or a plain command does not succeed."""


class Place:
    """One folder with projects `a`, `b`, `c`, a store and a home; always under the same path."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.root = base / "w"
        self.store = self.root / "store"

    def project(self, name: str) -> Path:
        return self.root / name

    def make_project(self, name: str) -> None:
        root = self.project(name)
        for folder in ("pipeline", "data_blobs/working", "outputs", "compute"):
            (root / folder).mkdir(parents=True)
        (root / ".amlctl.toml").write_text(_SETTINGS.format(store=self.store))
        (root / "pptdaml.yaml").write_text("name: x\ndependencies:\n  - python\n")
        (root / "compute/local.yaml").write_text("type: local\nslots: 2\n")
        (root / "pipeline/a.py").write_text(
            "import pathlib\nfor n in range(4):\n    pathlib.Path(f'outputs/o{n}').write_text(str(n) * 100)\n"
        )

    def tree(self, name: str) -> Tree:
        return dict(files_below(self.project(name) / DATASET))

    def make_tree(self, name: str, tree: Tree) -> None:
        root = self.project(name) / DATASET
        for path, _ in files_below(root):
            if path not in tree and not path.endswith("/"):
                (root / path).unlink()
        for path, data in tree.items():
            target = root / path
            if not target.exists() or target.read_bytes() != data:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                target.write_bytes(data)

    def age(self) -> None:
        """Everything in the store is three days old."""
        moment = time.time() - _OLD_S
        for folder, _, names in os.walk(self.store):
            for name in names:
                os.utime(os.path.join(folder, name), (moment, moment))

    def temporaries(self) -> list[str]:
        """Names that killed commands have left, in the store and among the users' data."""
        found = []
        for top in (self.store, *(self.project(name) / "data_blobs" for name in "abc"), self.project("a") / "outputs"):
            found += [str(path.relative_to(self.root)) for path in top.rglob(".amlctl-tmp-*")]
        return found

    def run(self, name: str, *arguments: str, number: int = 0, kind: str = "") -> Ended:
        """`amlctl ARGUMENTS` in project `name`, harmed at its write `number` (0: not at all)."""
        told = self.base / "told"
        told.mkdir(exist_ok=True)
        process = os.fork()
        if process == 0:
            self._in_child(name, arguments, number, kind, told)
        deadline = time.monotonic() + _LIMIT_S
        while True:
            found, status = os.waitpid(process, os.WNOHANG)
            if found:
                break
            if time.monotonic() > deadline:
                os.kill(process, 9)
                os.waitpid(process, 0)
                raise Broken(f"amlctl {' '.join(arguments)} does not end")
            time.sleep(0.002)
        writes = told / "writes"
        seen = json.loads(writes.read_text()) if writes.exists() and os.WIFEXITED(status) else []
        out, err = ((told / what).read_text(errors="replace") for what in ("out", "err"))
        return Ended(os.waitstatus_to_exitcode(status), out, err, seen)

    def _in_child(self, name: str, arguments: Sequence[str], number: int, kind: str, told: Path) -> None:
        code = 99
        try:
            os.chdir(self.project(name))
            os.environ.update(HOME=str(self.root / "home"), NO_COLOR="1", PYTHONDONTWRITEBYTECODE="1")
            with suppress(FileNotFoundError):
                (told / "writes").unlink()
            for descriptor, (path, flags) in enumerate(
                [("/dev/null", os.O_RDONLY)]
                + [(told / what, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for what in ("out", "err")]
            ):
                os.dup2(os.open(path, flags, 0o600), descriptor)
            sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
            faults = WriteFaults(self.root, number, kind)
            faults.install()
            from amlctl.cli.app import run

            code = run(arguments)
            sys.stdout.flush()
            sys.stderr.flush()
            (told / "writes").write_text(json.dumps(faults.seen))
        finally:
            os._exit(code)


def _succeeds(place: Place, name: str, *arguments: str) -> Ended:
    ended = place.run(name, *arguments)
    if ended.code != 0:
        raise Broken(f"{name}: amlctl {' '.join(arguments)} ends with {ended.code}: {ended.err.strip()[-400:]}")
    return ended


def _same(what: str, found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> None:
    found = {path: data for path, data in found.items() if ".amlctl-tmp-" not in path}
    if found != expected:
        wrong = sorted(path for path in {*found, *expected} if found.get(path) != expected.get(path))
        raise Broken(f"{what}: {', '.join(wrong)}")


def _stored(place: Place, expected: Tree) -> None:
    """What someone gets who has nothing, and that nothing is damaged."""
    _succeeds(place, "c", "store", "verify")
    _succeeds(place, "c", "sync", "--pull", DATASET)
    _same("what a new clone pulls differs", place.tree("c"), expected)


# --- the cases ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """`command` in project `clone` is harmed; then `check` runs plain commands. It is told whether the command has said
    that it succeeded, and a number that changes with each trial."""

    clone: str
    command: Sequence[str]
    prepare: Callable[[Place], None]
    check: Callable[[Place, bool, int], None]


def _nothing_yet(place: Place) -> None:
    place.make_tree("a", BASE)


def _synced(place: Place, *options: str) -> None:
    place.make_tree("a", BASE)
    _succeeds(place, "a", "sync", *options, DATASET)
    _succeeds(place, "b", "sync", "--pull", DATASET)


def _edited(place: Place) -> None:
    _synced(place)
    place.make_tree("a", EDITED)


def _edited_mirror(place: Place) -> None:
    _synced(place, "--layout", "mirror")
    place.make_tree("a", EDITED)


def _only_in_store(place: Place) -> None:
    place.make_tree("a", BASE)
    _succeeds(place, "a", "sync", DATASET)


_MINE = b"edited by b"


def _behind(place: Place) -> None:
    _edited(place)
    _succeeds(place, "a", "sync", DATASET)
    place.make_tree("b", {**BASE, "mine": _MINE})


def _older(place: Place) -> None:
    _synced(place)
    snapshot = json.loads(_succeeds(place, "a", "sync", DATASET, "--json").out)
    (place.root / "snapshot").write_text(json.dumps(snapshot))
    place.make_tree("a", EDITED)
    _succeeds(place, "a", "sync", DATASET)
    _succeeds(place, "b", "sync", "--pull", DATASET)


def _with_rubbish(place: Place) -> None:
    """Twelve snapshots, so that the first ones may go."""
    _synced(place)
    for number in range(12):
        place.make_tree("a", {**BASE, "gone": b"state %d" % number * 30, "big": _BIG + b"%d" % number})
        _succeeds(place, "a", "sync", DATASET)
    place.age()


_LAST: Tree = {**BASE, "gone": b"state 11" * 30, "big": _BIG + b"11"}


def _with_run(place: Place) -> None:
    done = _succeeds(place, "a", "submit", "a.py", "--env-from", "current", "--no-fetch", "--json")
    (place.root / "run").write_text(_run_of(done))


def _run_of(ended: Ended) -> str:
    return str(json.loads(ended.out)["run"])


def _checked_sync(expected: Tree) -> Callable[[Place, bool, int], None]:
    def check(place: Place, has_succeeded: bool, number: int) -> None:
        if has_succeeded:
            _stored(place, expected)
        _succeeds(place, "a", "sync", DATASET)
        _stored(place, expected)
        _same("what a has differs", place.tree("a"), expected)

    return check


def _checked_pull(expected: Tree, stored: Tree) -> Callable[[Place, bool, int], None]:
    """The next plain command is a sync every other time: what was broken off is not an edit."""

    def check(place: Place, has_succeeded: bool, number: int) -> None:
        if has_succeeded:
            _same("what b has after a pull that succeeded differs", place.tree("b"), expected)
        if number % 2 and (place.project("b") / DATASET).exists():
            _succeeds(place, "b", "sync", DATASET)
            if expected == stored:
                _stored(place, stored)
        _succeeds(place, "b", "sync", "--pull", DATASET)
        _same("what b has differs", place.tree("b"), expected)
        _succeeds(place, "b", "sync", DATASET)
        _stored(place, expected)

    return check


def _check_restored(place: Place, has_succeeded: bool, number: int) -> None:
    if has_succeeded:
        _same("what b has after a restore that succeeded differs", place.tree("b"), BASE)
    for options in ((), ("--pull",)) if number % 2 else (("--pull",), ()):
        _succeeds(place, "b", "sync", *options, DATASET)
    found = {path: data for path, data in place.tree("b").items() if ".amlctl-tmp-" not in path}
    if found not in (BASE, EDITED):
        raise Broken(f"b has neither snapshot: {sorted(found)}")
    _stored(place, found)


def _check_collected(place: Place, has_succeeded: bool, number: int) -> None:
    _stored(place, _LAST)
    place.make_tree("a", EDITED)
    _succeeds(place, "a", "sync", DATASET)
    _succeeds(place, "a", "store", "gc", "--yes")
    _stored(place, EDITED)


def _outputs(place: Place, run: str) -> None:
    folder = place.project("a") / "outputs" / run
    _same("the outputs differ", dict(files_below(folder)), {f"o{n}": str(n).encode() * 100 for n in range(4)})


def _check_submitted(place: Place, has_succeeded: bool, number: int) -> None:
    _succeeds(place, "a", "runs")
    done = _succeeds(place, "a", "submit", "a.py", "--env-from", "current", "--json")
    _outputs(place, _run_of(done))
    _succeeds(place, "a", "runs")


def _check_fetched(place: Place, has_succeeded: bool, number: int) -> None:
    run = (place.root / "run").read_text()
    if has_succeeded:
        _outputs(place, run)
    _succeeds(place, "a", "fetch", run)
    _outputs(place, run)


def _damaged(place: Place) -> None:
    _synced(place)
    for path in [*(place.store / "packs").rglob("*.zip")][:1]:
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-40])


def _check_repaired(place: Place, has_succeeded: bool, number: int) -> None:
    if has_succeeded:
        _stored(place, BASE)
    _succeeds(place, "a", "sync", "--repair", DATASET)
    _stored(place, BASE)


CASES: Mapping[str, Case] = {
    "sync-first": Case("a", ("sync", DATASET), _nothing_yet, _checked_sync(BASE)),
    "sync-edit": Case("a", ("sync", DATASET), _edited, _checked_sync(EDITED)),
    "sync-mirror": Case("a", ("sync", DATASET), _edited_mirror, _checked_sync(EDITED)),
    "repair": Case("a", ("sync", "--repair", DATASET), _damaged, _check_repaired),
    "pull-first": Case("b", ("sync", "--pull", DATASET), _only_in_store, _checked_pull(BASE, BASE)),
    "pull-update": Case("b", ("sync", "--pull", DATASET), _behind, _checked_pull({**EDITED, "mine": _MINE}, EDITED)),
    "restore": Case("b", ("sync", "--pull", "--snapshot", "SNAPSHOT", DATASET), _older, _check_restored),
    "gc": Case("a", ("store", "gc", "--yes"), _with_rubbish, _check_collected),
    "fetch": Case("a", ("fetch", "RUN"), _with_run, _check_fetched),
    "submit": Case(
        "a", ("submit", "a.py", "--env-from", "current", "--no-fetch"), lambda place: None, _check_submitted
    ),
}


# --- all of them ----------------------------------------------------------------------------------------------


@dataclass
class Tally:
    trials: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)
    """Temporary files that were still there after the plain commands, by case."""


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
        return ""

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
                left = bench.place.temporaries()
                tally.left[name] += bool(left)
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
        print(
            f"{name:12} {_counted(tally.trials)}; failed: {len(tally.failures)}; left behind: {tally.left[name]}",
            flush=True,
        )
        for told in tally.failures:
            print(f"    {told}", flush=True)
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
        print(problem or "all is as it must be", bench.place.temporaries())
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return bool(problem)


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items())) or "none"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
