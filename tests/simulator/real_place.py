"""A folder with projects, a store and a home, in which real commands run, each in a process of its own."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from amlctl.localfs.atomic import TEMPORARY_PREFIX
from tests.simulator.world import files_below
from tests.support.trees import Tree
from tests.support.write_faults import WriteFaults

DATASET = "data_blobs/working/x"
BIG = bytes(range(256)) * 8
BASE: Tree = {**{f"d{n % 3}/f{n}": b"content %d" % n * 9 for n in range(10)}, "big": BIG * 2, "gone": b"x"}
EDITED: Tree = {
    **{path: data for path, data in BASE.items() if path != "gone"},
    "d0/f0": b"edited",
    "new": b"new",
    "big": BIG,
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
_LIMIT_S = 120.0
_IS_PYTHONS_OWN = re.compile("[a-z0-9_]{8}")
"""By such a file `tempfile` finds out whether it can write to the temporary folder."""


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
        """Names that killed commands have left: in projects, their state, the store, the home, the temporary folder."""
        found = [*self.root.rglob(f"{TEMPORARY_PREFIX}*"), *(self.root / "tmp").glob("*")]
        return sorted(str(path.relative_to(self.root)) for path in found if not _IS_PYTHONS_OWN.fullmatch(path.name))

    def run(self, name: str, *arguments: str, number: int = 0, kind: str = "") -> Ended:
        """`amlctl ARGUMENTS` in project `name`, harmed at its write `number` (0: not at all)."""
        reported = self.base / "told"
        reported.mkdir(exist_ok=True)
        process = os.fork()
        if process == 0:
            self._in_child(name, arguments, number, kind, reported)
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
        writes = reported / "writes"
        seen = json.loads(writes.read_text()) if writes.exists() and os.WIFEXITED(status) else []
        out, err = ((reported / what).read_text(errors="replace") for what in ("out", "err"))
        return Ended(os.waitstatus_to_exitcode(status), out, err, seen)

    def _in_child(self, name: str, arguments: Sequence[str], number: int, kind: str, reported: Path) -> None:
        code = 99
        try:
            os.chdir(self.project(name))
            (self.root / "tmp").mkdir(exist_ok=True)
            os.environ.update(HOME=str(self.root / "home"), TMPDIR=str(self.root / "tmp"))
            os.environ.update(NO_COLOR="1", PYTHONDONTWRITEBYTECODE="1")
            with suppress(FileNotFoundError):
                (reported / "writes").unlink()
            for descriptor, (path, flags) in enumerate(
                [("/dev/null", os.O_RDONLY)]
                + [(reported / what, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for what in ("out", "err")]
            ):
                os.dup2(os.open(path, flags, 0o600), descriptor)
            sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
            faults = WriteFaults(self.root, number, kind)
            faults.install()
            from amlctl.cli.app import run

            code = run(arguments)
            sys.stdout.flush()
            sys.stderr.flush()
            (reported / "writes").write_text(json.dumps(faults.seen))
        finally:
            os._exit(code)
