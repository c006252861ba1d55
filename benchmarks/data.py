"""Trees of random files that are the same on every machine for the same seed."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path

_SETTLE_S = 2.1
"""Both amlctl and Git read a file again that changed in the last moments before they looked at it."""


@dataclass(frozen=True)
class TreeShape:
    """`smallest` and `largest` are bytes; sizes between them are equally likely."""

    files: int
    folders: int
    smallest: int
    largest: int
    seed: int

    def scaled(self, factor: float) -> TreeShape:
        """The same tree with fewer files, and at least one a folder."""
        folders = max(1, round(self.folders * min(1.0, factor)))
        return TreeShape(max(folders, round(self.files * factor)), folders, self.smallest, self.largest, self.seed)


def write_tree(root: Path, shape: TreeShape) -> int:
    """Write the files below `root`, one at a time; returns their bytes. The bytes are random: nothing compresses."""
    generator = random.Random(shape.seed)
    total = 0
    for folder in range(shape.folders):
        path = root / f"folder-{folder:03}"
        path.mkdir(parents=True)
        for number in range(folder, shape.files, shape.folders):
            data = generator.randbytes(generator.randint(shape.smallest, shape.largest))
            (path / f"file-{number:06}.bin").write_bytes(data)
            total += len(data)
    time.sleep(_SETTLE_S)
    return total
