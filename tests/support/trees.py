"""Folders as plain dicts: path to bytes; a path that ends with `/` is an empty folder."""

from __future__ import annotations

import os
from pathlib import Path

Tree = dict[str, bytes]


def write_tree(root: Path, tree: Tree) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for path, data in tree.items():
        target = root / path
        if path.endswith("/"):
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)


def read_tree(root: Path) -> Tree:
    """Everything below `root`; an empty folder shows, and so would a forgotten temporary file."""
    found: Tree = {}
    for folder, folders, names in os.walk(root):
        relative = os.path.relpath(folder, root)
        prefix = "" if relative == "." else f"{relative}/"
        for name in names:
            found[prefix + name] = Path(folder, name).read_bytes()
        if not folders and not names and prefix:
            found[prefix] = b""
    return found


def age(root: Path, seconds: float = 10) -> None:
    """Make all files look older than the two seconds in which a stat cache trusts no file (ctime stays)."""
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            stat = path.stat()
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns - int(seconds * 1e9)))
