"""What takes up space on this disk, in pieces that can be freed one by one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from amlctl.localfs.folders import walk

OUTPUTS = "outputs"
ENVIRONMENTS = "environments"
CACHES = "caches"
LOGS = "logs"
CONTAINERS = "containers"
KINDS = (OUTPUTS, ENVIRONMENTS, CACHES, LOGS, CONTAINERS)


@dataclass(frozen=True)
class DiskItem:
    """`name` is a run, an environment, or a path below `.amlctl/`. `used_at` in seconds since 1970. `kept`: why it is
    not freed, in words; empty for one that may be."""

    kind: str
    name: str
    path: Path
    bytes: int
    used_at: float
    kept: str = ""


def disk_item(kind: str, path: Path, *, name: str = "", kept: str = "") -> DiskItem:
    """It counts as used when a file of it was changed last."""
    size_bytes, changed_at = measured(path)
    return DiskItem(kind, name or path.name, path, size_bytes, changed_at, kept)


def measured(top: Path) -> tuple[int, float]:
    """Bytes on the disk, and the latest time of a change. A file with several names counts once."""
    seen: set[tuple[int, int]] = set()
    size_bytes, changed_at = 0, 0.0
    for path in _files(top):
        with suppress(OSError):  # deleted in the meantime
            found = os.lstat(path)
            changed_at = max(changed_at, found.st_mtime)
            if (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                size_bytes += found.st_blocks * 512
    return size_bytes, changed_at


def _files(top: Path) -> Iterable[str]:
    if not top.is_dir() or top.is_symlink():
        yield str(top)
        return
    with suppress(OSError):
        for folder, _, names in walk(top):
            for name in names:
                yield f"{folder}/{name}"


def folders_in(folder: Path) -> list[Path]:
    """In order; none where it does not exist."""
    with suppress(OSError):
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    return []
