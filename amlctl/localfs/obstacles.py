"""What stands where a file is to be written: another file, a link, or a folder where the kind of a path changed."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from amlctl.localfs.atomic import TEMPORARY_PREFIX
from amlctl.localfs.folders import remove_tree, walk


class Obstacle(NamedTuple):
    """`top` is the path itself, or the one above it that is not a folder. `files` are those that would be lost.

    `must_go`: a rename over it is not enough.
    """

    top: str
    files: list[str]
    must_go: bool


def in_the_way(root: Path, path: str) -> Obstacle:
    """`path` is relative to `root`, POSIX; with a final `/` a folder is to stand there. Raises OSError.

    A link below `root` counts as a file: nothing is ever written through it.
    """
    parts = path.rstrip("/").split("/")
    is_folder = path.endswith("/")
    current = root
    for depth, part in enumerate(parts, 1):
        current = current / part
        is_last = depth == len(parts)
        try:
            mode = os.lstat(current).st_mode
        except FileNotFoundError:
            break
        here = "/".join(parts[:depth])
        if not stat.S_ISDIR(mode):
            return Obstacle(here, [here], not is_last or is_folder)
        if is_last and not is_folder:
            return Obstacle(here, _files_below(root, here), True)
    return Obstacle(path.rstrip("/"), [], False)


def clear(root: Path, path: str) -> None:
    """Remove the file, or the folder with all that is below it. Raises OSError."""
    top = root / path
    if not stat.S_ISDIR(os.lstat(top).st_mode):
        top.unlink()
        return
    remove_tree(top)


def _files_below(root: Path, path: str) -> list[str]:
    found = []
    for folder, _, names in walk(root / path):
        for name in names:
            if not name.startswith(TEMPORARY_PREFIX):
                found.append(os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/"))
    return found
