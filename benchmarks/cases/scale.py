"""Sizes that a test cannot have: a million files, and one file of 10 GB, to an Azurite that keeps its data on disk.

Nothing is compared: the figures show that time, bytes and memory stay what they should be.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data import TreeShape, write_tree
from sandbox import Sandbox, amlctl, working_folder

sys.path.append(str(Path(__file__).parents[2]))
from tests.support.azurite import KEY, running_azurite

_MIB = 1 << 20


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="run.py scale", description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, metavar="F", help="shrink the data")
    parser.add_argument("--only", choices=["files", "large"], help="default: both")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where the data is made (45 GB); default: temporary")
    options = parser.parse_args(arguments)
    print("| step | seconds | requests | sent | received | peak memory |\n|---|---:|---:|---:|---:|---:|")
    for name, measure in (("files", _million_files), ("large", _one_large_file)):
        if options.only in (None, name):
            with working_folder("scale", options.work) as folder:
                measure(Sandbox(folder, 1, options.scale, _tell))
    return 0


def _million_files(sandbox: Sandbox) -> None:
    shape = TreeShape(1_000_000, 1_000, 1_000, 1_000, seed=5).scaled(sandbox.scale)
    _tell(f"writes {shape.files:,} files")
    _steps(sandbox, f"{shape.files:,} files of 1 kB", lambda tree: write_tree(tree, shape), _change_one_file)


def _one_large_file(sandbox: Sandbox) -> None:
    size = round(10e9 * sandbox.scale)
    _tell(f"writes {size / 1e9:g} GB")
    _steps(sandbox, f"one file of {size / 1e9:g} GB", lambda tree: _write_large(tree / "large.bin", size), _edit)


def _steps(sandbox: Sandbox, what: str, make: Callable[[Path], object], change: Callable[[Path], None]) -> None:
    project, other = sandbox.folder / "one", sandbox.folder / "other"
    for folder in (project, other):
        (folder / "data_blobs").mkdir(parents=True)
        (folder / ".amlctl.toml").touch()
    tree = project / "data_blobs/data"
    make(tree)
    with running_azurite(folder=sandbox.folder / "service") as azurite:
        url = f"{azurite.url}/scale"
        environment = {**sandbox.environment, "AZURE_STORAGE_KEY": KEY}

        def step(name: str, place: Path, *more: str) -> None:
            _row(f"{what}: {name}", [*amlctl(), "sync", "data_blobs/data", "--store", url, *more], place, environment)

        step("cold", project)
        step("nothing changed", project)
        change(tree)
        time.sleep(2.1)
        step("a change", project)
        step("pull", other, "--pull")
        _compare(tree, other / "data_blobs/data")


def _row(name: str, argv: Sequence[str], place: Path, environment: Any) -> None:
    _tell(name)
    started = time.perf_counter()
    process = subprocess.Popen([*argv, "--json", "--quiet"], cwd=place, env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"{name}: exit code {process.returncode}: {text.decode()}")
    result = json.loads(text)
    print(
        f"| {name} | {seconds:.1f} s | {result['requests']:,} | {result['uploaded_bytes'] / 1e6:,.2f} MB "
        f"| {result['downloaded_bytes'] / 1e6:,.2f} MB | {usage.ru_maxrss / 1024:.0f} MiB |",
        flush=True,
    )


def _change_one_file(tree: Path) -> None:
    next(path for path in sorted(tree.iterdir())[len(list(tree.iterdir())) // 2].iterdir()).write_bytes(b"x" * 1_000)


def _edit(tree: Path) -> None:
    path = tree / "large.bin"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(random.Random(7).randbytes(_MIB))


def _write_large(path: Path, size: int) -> None:
    generator = random.Random(6)
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        for start in range(0, size, 8 * _MIB):
            file.write(generator.randbytes(min(8 * _MIB, size - start)))
    time.sleep(2.1)


def _compare(one: Path, other: Path) -> None:
    if subprocess.run(["diff", "-rq", one, other], check=False).returncode:
        raise SystemExit("what was pulled is not what was synced")


def _tell(text: str) -> None:
    print(f"scale: {text}", file=sys.stderr, flush=True)
