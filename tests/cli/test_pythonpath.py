"""A PYTHONPATH with packages of the same names does not reach amlctl itself, and reaches scripts as before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.bench import make_bench


@pytest.mark.parametrize("command", [["status"], ["submit", "train.py", "--env-from", "current"]], ids=" ".join)
def test_packages_of_the_same_names(tmp_path: Path, command: list[str]) -> None:
    bench = make_bench(tmp_path / "project")
    bench.write(".amlctl.toml")
    bench.script("import ours; print(ours.__name__)")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for name in ("yaml", "typer", "rich", "packaging"):
        (foreign / f"{name}.py").write_text("raise ImportError('a module of another Python')\n")
    (foreign / "ours.py").touch()
    amlctl = Path(sys.executable).with_name("amlctl")
    variables = {**os.environ, "PYTHONPATH": str(foreign)}
    done = subprocess.run(
        [amlctl, *command], cwd=bench.project.root, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert command == ["status"] or "ours" in done.stdout
