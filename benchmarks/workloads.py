"""What is transferred, by seed, and what happens to it between two transfers."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data import TreeShape, write_tree

_SETTLE_S = 2.1
"""After a change: tools that trust times look twice at what is younger."""
_PIECE = 8 << 20


@dataclass(frozen=True)
class Step:
    """An operation: what happens to the tree first, and the direction of the transfer. `is_unmeasured` steps bring
    all containers to where the next one starts."""

    name: str
    change: Callable[[Path, random.Random], None]
    is_download: bool = False
    is_unmeasured: bool = False


@dataclass(frozen=True)
class Workload:
    name: str
    data: str
    write: Callable[[Path, float], int]
    """Makes the tree at a scale; returns its bytes."""
    steps: Sequence[Step]


def _nothing(tree: Path, generator: random.Random) -> None:
    """The tree stays as it is."""


def _change_one_percent(tree: Path, generator: random.Random) -> None:
    files = _files(tree)
    for path in generator.sample(files, max(1, len(files) // 100)):
        path.write_bytes(generator.randbytes(path.stat().st_size))
    time.sleep(_SETTLE_S)


def _touch(tree: Path, generator: random.Random) -> None:
    for path in _files(tree):
        os.utime(path)
    time.sleep(_SETTLE_S)


def _rename_folder(tree: Path, generator: random.Random) -> None:
    """One of the folders, to a name that was not there before."""
    folder = generator.choice(sorted(path for path in tree.iterdir() if path.is_dir()))
    folder.rename(tree / f"renamed-{generator.randrange(10**9):09}")
    time.sleep(_SETTLE_S)


def _edit(tree: Path, generator: random.Random) -> None:
    [path] = _files(tree)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 + 12_345)
        file.write(generator.randbytes(min(1_000_000, path.stat().st_size // 3)))
    time.sleep(_SETTLE_S)


def _append(tree: Path, generator: random.Random) -> None:
    [path] = _files(tree)
    with path.open("ab") as file:
        file.write(generator.randbytes(1_000_000))
    time.sleep(_SETTLE_S)


def _insert(tree: Path, generator: random.Random) -> None:
    [path] = _files(tree)
    longer = path.with_name("longer")
    with path.open("rb") as source, longer.open("wb") as target:
        target.write(generator.randbytes(1_000))
        while piece := source.read(_PIECE):
            target.write(piece)
    longer.replace(path)
    time.sleep(_SETTLE_S)


def _files(tree: Path) -> list[Path]:
    return sorted(path for path in tree.rglob("*") if path.is_file())


def _small(tree: Path, scale: float) -> int:
    return write_tree(tree, TreeShape(20_000, 20, 2_000, 40_000, seed=2).scaled(scale))


def _large(tree: Path, scale: float) -> int:
    sizes = [round(size * scale) for size in (100e6, 150e6, 200e6, 250e6, 350e6, 450e6)]
    for number, size in enumerate(sizes):
        _write(tree / f"part-{number}.bin", size, seed=number)
    time.sleep(_SETTLE_S)
    return sum(sizes)


def _duplicates(tree: Path, scale: float) -> int:
    """Every file of the last 30 % has the bytes of an earlier one."""
    shape = TreeShape(2_000, 10, 20_000, 400_000, seed=3).scaled(scale)
    total = write_tree(tree, shape)
    files = _files(tree)
    generator = random.Random(3)
    generator.shuffle(files)
    originals = files[: round(len(files) * 0.7)]
    for path in files[len(originals) :]:
        data = generator.choice(originals).read_bytes()
        total += len(data) - path.stat().st_size
        path.write_bytes(data)
    time.sleep(_SETTLE_S)
    return total


def _one_large(tree: Path, scale: float) -> int:
    size = round(1e9 * scale)
    _write(tree / "large.bin", size, seed=4)
    time.sleep(_SETTLE_S)
    return size


def _write(path: Path, size: int, seed: int) -> None:
    generator = random.Random(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for start in range(0, size, _PIECE):
            file.write(generator.randbytes(min(_PIECE, size - start)))


_COLD = Step("cold", _nothing)
_UNCHANGED = Step("nothing changed", _nothing)
_TREE_STEPS = (
    _COLD,
    _UNCHANGED,
    Step("1 % changed", _change_one_percent),
    Step("all touched", _touch),
    Step("folder renamed", _rename_folder),
    Step("download all", _nothing, is_download=True),
    Step("1 % changed, up", _change_one_percent, is_unmeasured=True),
    Step("download after 1 % changed", _nothing, is_download=True),
)

WORKLOADS = (
    Workload("W1", "20,000 files of 2–40 kB", _small, _TREE_STEPS),
    Workload("W2", "six files of 0.1–0.45 GB", _large, (_COLD, _UNCHANGED, _TREE_STEPS[5])),
    Workload("W3", "2,000 files of 20–400 kB, 30 % of them duplicates", _duplicates, _TREE_STEPS),
    Workload(
        "file",
        "one file of 1 GB",
        _one_large,
        (
            _COLD,
            Step("1 MB changed in the middle", _edit),
            Step("1 MB appended", _append),
            Step("1 kB inserted at the front", _insert),
        ),
    ),
)
