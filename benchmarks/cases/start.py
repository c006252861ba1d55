"""How long a command takes to begin: the help page against that of the smallest Typer app."""

from __future__ import annotations

import sys

from measure import Command, interleaved
from result import Goal, Result, ratio, rows_of
from sandbox import Sandbox

_REPETITIONS = 15
"""At least: the runs are short."""
_EMPTY_APP = '''\
import typer

app = typer.Typer()


@app.command()
def main() -> None:
    """Nothing."""


app()
'''


def measure(sandbox: Sandbox) -> Result:
    folder = sandbox.folder / "start"
    folder.mkdir()
    program = folder / "empty_app.py"
    program.write_text(_EMPTY_APP)
    commands = [
        sandbox.amlctl("amlctl", ["--help"], folder),
        Command(
            "Typer",
            "python empty_typer_app.py --help",
            [sys.executable, str(program), "--help"],
            folder,
            sandbox.environment,
        ),
        Command("Python", "python -c pass", [sys.executable, "-c", "pass"], folder, sandbox.environment),
    ]
    samples = interleaved(commands, max(sandbox.repetitions, _REPETITIONS), sandbox.tell)
    rows = rows_of(commands, samples)
    return Result(
        "help",
        "the help page, with warm byte code",
        rows,
        [Goal("at most 1.3 × the help of an empty Typer app", ratio(rows, "amlctl", "Typer"), 1.3)],
    )
