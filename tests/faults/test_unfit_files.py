"""A file of amlctl's own has become a pipe, a socket or a folder: nothing waits for it, nothing fails internally."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.simulator.real_place import BASE, DATASET, EDITED, Ended, Place
from tests.simulator.real_process import import_everything

LOCAL, RUN_FILES = ".amlctl/local/RUN", ".amlctl/runs/RUN"
SUBMIT = ("submit", "a.py", "--env-from", "current", "--no-fetch")
CASES = [
    (".amlctl/sync.lock", ("sync", DATASET)),
    (".amlctl/sync_state.sqlite", ("sync", DATASET)),
    (".amlctl/stat_cache.sqlite", ("sync", DATASET)),
    (".amlctl/agreed", ("sync", DATASET)),
    (".amlctl/run-order", SUBMIT),
    (".amlctl/queue/local/lock", SUBMIT),
    (".amlctl/queue/local/slots/0", SUBMIT),
    (".amlctl/.gitignore", SUBMIT),
    (f"{RUN_FILES}/record.json", ("runs",)),
    (f"{RUN_FILES}/fetch.lock", ("fetch", "RUN")),
    (f"{RUN_FILES}/fetched.json", ("fetch", "RUN")),
    (f"{RUN_FILES}/fetched.journal", ("fetch", "--logs", "RUN")),
    (f"{LOCAL}/log", ("logs", "RUN")),
    (f"{LOCAL}/supervisor.lock", ("runs", "delete", "--yes", "RUN")),
    (f"{LOCAL}/supervisor.json", ("runs", "show", "RUN")),
    (".gitignore", ("init",)),
    ("../home/.config/amlctl/config.toml", ("status",)),
]


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    here = os.open(path.parent, os.O_RDONLY)  # the name of a socket is short
    try:
        with closing(socket.socket(socket.AF_UNIX)) as one:
            one.bind(f"/proc/self/fd/{here}/{path.name}")
    finally:
        os.close(here)


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "within").write_bytes(b"of the user")


class Bench:
    """A project with a run, restored for each test."""

    def __init__(self, folder: Path) -> None:
        import_everything()
        self.place = Place(folder)
        self.place.root.mkdir()
        for name in "abc":
            self.place.make_project(name)
        (self.place.root / "home").mkdir()
        self.place.make_tree("a", BASE)
        self.succeeds("sync", DATASET)
        self.run = json.loads(self.succeeds(*SUBMIT, "--json").out)["run"]
        self.succeeds("fetch", self.run)
        (self.place.project("a") / "outputs" / self.run / "o1").unlink()
        self.place.make_tree("a", EDITED)
        self._picture = folder / "picture"
        self.place.root.rename(self._picture)

    def set(self) -> None:
        shutil.rmtree(self.place.root, ignore_errors=True)
        shutil.copytree(self._picture, self.place.root, symlinks=True)

    def path(self, name: str) -> Path:
        return self.place.project("a") / name.replace("RUN", self.run)

    def amlctl(self, *arguments: str) -> Ended:
        return self.place.run("a", *(self.run if word == "RUN" else word for word in arguments))

    def succeeds(self, *arguments: str) -> Ended:
        ended = self.place.run("a", *arguments)
        assert ended.code == 0, ended.err
        return ended


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("unfit"))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc for sockets in deep folders")
@pytest.mark.parametrize("make", [_pipe, _socket, _folder])
@pytest.mark.parametrize(("name", "command"), CASES, ids=[name for name, _ in CASES])
def test_what_took_the_place_of_a_file_is_named_or_passed_over(
    bench: Bench, name: str, command: tuple[str, ...], make: Callable[[Path], None]
) -> None:
    """`Place.run` fails for a command that does not end."""
    bench.set()
    path = bench.path(name)
    kept = path.with_name("kept")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.rename(kept)
    make(path)
    ended = bench.amlctl(*command)
    assert ended.code in (0, 1, 2, 3, 6), ended.err
    assert "Traceback" not in ended.err
    if ended.code:
        assert path.name in ended.err
        assert "hint" in ended.err
        path.rename(path.with_name("away"))
        if kept.exists():
            kept.rename(path)
        assert bench.amlctl(*command).code == 0
