"""The folder that everything happens in, the installed `amlctl`, and projects for it."""

from __future__ import annotations

import compileall
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import Command, nothing, output_of

import amlctl as amlctl_package


@dataclass(frozen=True)
class Sandbox:
    """`scale` shrinks the data; figures with another scale than 1 say nothing about the goals."""

    folder: Path
    repetitions: int
    scale: float
    tell: Callable[[str], None]

    @property
    def environment(self) -> Mapping[str, str]:
        """This process's variables without any that would steer amlctl, Git or restic."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("AMLCTL_", "GIT_", "RESTIC_"))
        }
        return {
            **kept,
            "LC_ALL": "C",
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
        }

    def new_project(self, name: str) -> Path:
        project = self.folder / name
        project.mkdir()
        output_of([*amlctl(), "init"], project, self.environment)
        return project

    def amlctl(
        self,
        label: str,
        arguments: Sequence[str],
        project: Path,
        *,
        prepare: Callable[[], None] = nothing,
        variables: Mapping[str, str] | None = None,
    ) -> Command:
        return Command(
            label,
            " ".join(["amlctl", *arguments]),
            [*amlctl(), *arguments],
            project,
            {**self.environment, **(variables or {})},
            prepare,
        )

    def answer_of(self, command: Command) -> Any:
        """What an amlctl command says with --json."""
        return json.loads(output_of([*command.argv, "--json"], command.cwd, command.environment))


@contextmanager
def working_folder(name: str, parent: Path | None) -> Iterator[Path]:
    """A folder in `parent`, which is made where it is missing; gone afterwards.

    amlctl has its bytecode then, as pip leaves it: where none may be written, each command compiled it again.
    """
    compileall.compile_dir(Path(amlctl_package.__file__).parent, quiet=2)
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"amlctl-{name}-", dir=parent) as folder:
        yield Path(folder)


def amlctl() -> list[str]:
    """The command as users start it, of the interpreter that runs this; else the module."""
    script = Path(sys.executable).with_name("amlctl")
    return [str(script)] if script.is_file() else [sys.executable, "-m", "amlctl"]


def remover(*paths: Path) -> Callable[[], None]:
    """Deletes files and folders where they exist."""

    def remove() -> None:
        for path in paths:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    return remove
