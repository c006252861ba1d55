"""Every call to the operating system that a command makes below its project fails once, with each possible error.

    python -m tests.faults.every_system_error                    all points of all commands, some minutes
    python -m tests.faults.every_system_error --sample 5 --seed 3
    python -m tests.faults.every_system_error --only pull --at 17 --errno EIO

A command then ends with an exit code that fits, without a traceback, and the same command goes through afterwards.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import amlctl
from amlctl.cli import app
from tests.faults.points import parser, tried
from tests.support.faulty_os import ERRORS, FaultyOs

FITTING = {0, 3, 6}
"""What was not needed may be missed (a cache); else settings and rights, or a disk. Never 1 (damage), 5 (changed)."""

COMMANDS = {
    "sync": (["sync", "raw/d"], "new"),
    "pull": (["sync", "--pull", "raw/d"], "pulled"),
    "submit": (["submit", "one.py", "--env-from", "current"], "new"),
    "fetch": (["fetch", "@last"], "ran"),
    "status": (["status"], "synced"),
    "gc": (["store", "gc", "--yes"], "synced"),
    "runs": (["runs"], "ran"),
    "logs": (["logs", "@last"], "ran"),
}


@dataclass(frozen=True)
class Point:
    command: str
    at: int
    kind: str
    number: int

    def __str__(self) -> str:
        return f"--only {self.command} --at {self.at} --errno {errno.errorcode[self.number]} ({self.kind})"


@dataclass(frozen=True)
class Ended:
    code: int
    reported: str
    calls: list[str]


def run(folder: Path, arguments: list[str], at: int = -1, number: int = 0) -> Ended:
    """The command in a child of this process, which has imported everything already."""
    reported, seen = folder.parent / "told", folder.parent / "seen"
    child = os.fork()
    if not child:
        code = 99
        try:
            descriptor = os.open(reported, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            os.chdir(folder)
            counting = seen.open("w")
            faulty = FaultyOs(str(folder), at, number)
            faulty.install()
            sys.argv = ["amlctl", *arguments]
            code = app.run(arguments)
            counting.write("\n".join(faulty.seen))
            counting.flush()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return Ended(os.waitstatus_to_exitcode(status), reported.read_text(errors="replace"), seen.read_text().split())


def make_states(folder: Path, work: Path) -> dict[str, Path]:
    """Projects in the states in which the commands begin; made in `work`, since they hold absolute paths."""
    states: dict[str, Path] = {}

    def keep(name: str) -> None:
        _wait_for_supervisors(work)
        states[name] = folder / name
        shutil.copytree(work, states[name], symlinks=True)

    work.mkdir(parents=True)
    _must(work, ["init"])
    (work / "pipeline/one.py").write_text('import os; open(os.environ["AMLCTL_OUTPUTS_DIR"] + "/out", "w").write("x")')
    (work / "data_blobs/raw/d/sub").mkdir(parents=True)
    for name in ("a", "b", "sub/c"):
        (work / "data_blobs/raw/d" / name).write_bytes(name.encode() * 100)
    (work / "data_blobs/raw/d/large").write_bytes(os.urandom(2 << 20))
    keep("new")
    _must(work, COMMANDS["submit"][0])
    shutil.rmtree(work / "outputs")
    keep("ran")
    _must(_copy(states["new"], work), ["sync", "raw/d"])
    keep("synced")
    shutil.rmtree(work / "data_blobs/raw/d")
    for database in (work / ".amlctl").glob("*.sqlite"):
        database.unlink()
    keep("pulled")
    return states


def _must(folder: Path, arguments: list[str]) -> None:
    ended = run(folder, arguments)
    assert ended.code == 0, ended.reported


def points(states: dict[str, Path], work: Path, only: str | None) -> Iterator[Point]:
    for command, (arguments, state) in COMMANDS.items():
        if only in (None, command):
            for at, kind in enumerate(run(_copy(states[state], work), arguments).calls):
                for number in ERRORS[kind]:
                    yield Point(command, at, kind, number)


def _wait_for_supervisors(work: Path) -> None:
    """They hold the locks of their runs, and tidy up after the command has ended."""
    for lock in work.glob(".amlctl/local/*/supervisor.lock"):
        with lock.open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)


def _copy(state: Path, work: Path) -> Path:
    _wait_for_supervisors(work)
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(state, work, symlinks=True)
    return work


def failure(point: Point, states: dict[str, Path], work: Path, codes: Counter[int]) -> str:
    """What is wrong with how the command ended; empty if nothing. Its exit code is counted in `codes`."""
    arguments, state = COMMANDS[point.command]
    folder = _copy(states[state], work)
    ended = run(folder, arguments, point.at, point.number)
    codes[ended.code] += 1
    if ended.code not in FITTING:
        return f"exit code {ended.code}: {ended.reported}"
    if "Traceback" in ended.reported:
        return ended.reported
    again = run(folder, arguments)
    if again.code != 0 and point.command != "fetch":
        return f"{ended.reported}afterwards exit code {again.code}: {again.reported}"
    return ""


def main(arguments: list[str]) -> int:
    made = parser(COMMANDS)
    made.add_argument("--at", type=int)
    made.add_argument("--errno")
    options = made.parse_args(arguments)
    for module in walk_packages(amlctl.__path__, "amlctl."):
        if not module.name.endswith(("__main__", "templates.file_paths")):
            import_module(module.name)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        work = folder / "work" / "project"
        states = make_states(folder, work)
        chosen = list(points(states, work, options.only))
        if options.at is not None:
            chosen = [p for p in chosen if p.at == options.at and errno.errorcode[p.number] == options.errno]
        codes = Counter[int]()
        return tried(chosen, options, lambda point: failure(point, states, work, codes), codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
