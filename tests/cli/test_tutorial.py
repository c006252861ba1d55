"""The first pages work as they stand: their files are written and their commands run, in order, in an empty folder."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

from tests.cli.conftest import Cli
from tests.support.documents import ROOT, steps_of


def followed(cli: Cli, document: str, begin: str, end: str) -> tuple[Path, dict[str, str]]:
    """The folder that the reader ends in, and what each command has printed."""
    cwd, printed = cli.cwd, {}
    for step in steps_of(ROOT / document, begin, end):
        words = shlex.split(step.command, comments=True)
        if step.file:
            Cli(cwd, cli.warm).write(step.file, step.content)
        elif words[0] == "cd":
            cwd /= words[1]
        elif words[0] == "amlctl":
            answer = cli(*words[1:], cwd=cwd)
            assert answer.code == 0, (step.command, answer)
            printed[step.command] = answer.out + answer.err
        else:
            subprocess.run(step.command, shell=True, cwd=cwd, check=True)
    return cwd, printed


def test_the_readme_starts(folder: Cli) -> None:
    _, printed = followed(folder, "README.md", "## Start", "## Run")
    assert "hello" in printed["amlctl submit hello.py"].splitlines()


def test_the_tutorial_works(folder: Cli) -> None:
    project, printed = followed(folder, "docs/tutorial.md", "# Tutorial", "## In Azure ML")
    assert "y = 3.00 x + 7.00" in printed["amlctl submit fit.py --config base.json --set epochs=500"]
    assert "1 modified" in printed["amlctl status"]
    assert (project / "compared.html").exists()
