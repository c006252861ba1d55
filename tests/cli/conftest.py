"""The installed command as a user starts it: a process, in a project of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from amlctl.operations.init import init
from tests.cli.terminal import Terminal
from tests.support.bench import wait_for_supervisors
from tests.support.schemas import check_document, document_of
from tests.support.shared_runtime import share_runtime
from tests.support.warm_command import WarmCommand

LIMIT_S = 120


@dataclass(frozen=True)
class Answer:
    """How a command ended; `document` is its JSON."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Cli:
    """`amlctl` with `cwd` as the current folder."""

    cwd: Path
    warm: WarmCommand

    def command(self, *arguments: str | os.PathLike[str]) -> list[str]:
        return [sys.executable, "-m", "amlctl", *(os.fspath(one) for one in arguments)]

    def __call__(
        self, *arguments: str | os.PathLike[str], variables: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> Answer:
        environment = {**os.environ, **(variables or {})}
        if any(name.startswith(("LC_", "LANG", "PYTHON", "_")) for name in variables or {}):  # for Python's own start
            done = subprocess.run(
                self.command(*arguments),
                cwd=cwd or self.cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=LIMIT_S,
                check=False,
            )
        else:
            done = self.warm([*(os.fspath(one) for one in arguments)], cwd or self.cwd, environment, LIMIT_S)
        return Answer(done.returncode, done.stdout.decode(), done.stderr.decode())

    def json(self, *arguments: str | os.PathLike[str]) -> Any:
        """The document of a command that has to succeed, and to print what its schema says."""
        answer = self(*arguments, "--json")
        assert answer.code == 0, answer
        check_document(document_of([*(os.fspath(one) for one in arguments)]), answer.document)
        return answer.document

    def write(self, path: str, text: str = "") -> Path:
        target = self.cwd / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(textwrap.dedent(text), encoding="utf-8")
        return target


def wait_for_state(cli: Cli, state: str) -> None:
    """The newest run's; the log of a script may be seen shortly before its run is Running."""
    deadline = time.monotonic() + LIMIT_S
    while (found := cli.json("runs", "show", "@last")["status"]) != state:
        assert time.monotonic() < deadline, found


@pytest.fixture
def folder(tmp_path: Path, warm: WarmCommand) -> Cli:
    """An empty folder, outside of any project."""
    (tmp_path / "folder").mkdir()
    return Cli(tmp_path / "folder", warm)


def made_project(root: Path, warm: WarmCommand) -> Cli:
    """A project as `init` makes it."""
    cli = Cli(root, warm)
    init(cli.cwd)
    share_runtime(cli.cwd / ".amlctl")
    return cli


def copy_project(made: Cli, project: Cli) -> None:
    """What another project has, with its finished runs, instead of what this one has."""
    wait_for_supervisors(made.cwd / ".amlctl")
    shutil.rmtree(project.cwd)
    shutil.copytree(made.cwd, project.cwd, symlinks=True)


@pytest.fixture
def project(tmp_path: Path, warm: WarmCommand) -> Cli:
    return made_project(tmp_path / "project", warm)


StartTerminal = Callable[..., Terminal]


@pytest.fixture
def terminal() -> Iterator[StartTerminal]:
    """Starts a command in a terminal: same arguments as `Terminal`."""
    started: list[Terminal] = []

    def start(*arguments: Any, **more: Any) -> Terminal:
        started.append(Terminal(*arguments, **more))
        return started[-1]

    yield start
    for one in started:
        one.close()
