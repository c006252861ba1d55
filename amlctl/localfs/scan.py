"""Walk a folder: one compact row of stat data a file, folder by folder, and what could not be taken along.

Behaviour that `docs/store-format.md` promises: links are followed (a link that dangles, loops, or leads to a
folder that is being walked already is left out with a warning); sockets, fifos and devices are left out with a
warning; an empty folder is an entry of its own; unreadable folders are collected, so that all are reported.

Rows are kept as `marshal` bytes: 200,000 files take 13 MB, and comparing a folder with its cached row is one
comparison of bytes.
"""

from __future__ import annotations

import marshal
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Optional

import xxhash

from amlctl.core.manifest import ONE_FILE
from amlctl.localfs.atomic import TEMPORARY_PREFIX
from amlctl.localfs.ignore import FolderRules, IgnoreRules

_KIND = 0o170000
_REGULAR = 0o100000
_FOLDER = 0o040000
_LINK = 0o120000


class FileRow(NamedTuple):
    """Stat data of one file; times in nanoseconds since 1970."""

    name: str
    mode: int
    size_bytes: int
    mtime_ns: int
    inode: int
    ctime_ns: int


class Folder(NamedTuple):
    """`rows`: marshalled list of FileRow fields, in the order of the file system."""

    path: str
    rows: bytes
    is_empty: bool


@dataclass
class Scan:
    """All folders below `root` (paths relative to it, "" is the root), and what was left out."""

    root: Path
    is_one_file: bool = False
    folders: list[Folder] = field(default_factory=list)
    ignored: int = 0
    warnings: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def digest(self, seed: bytes = b"") -> bytes:
        """16 bytes that change when any stat data changes. `seed` stands for settings that matter as well."""
        state = xxhash.xxh3_128(seed)
        for folder in self.folders:
            state.update(os.fsencode(folder.path) + b"\0" + bytes([folder.is_empty]))
            state.update(folder.rows)
        return state.digest()


def unpack_rows(rows: bytes) -> list[FileRow]:
    return [FileRow._make(row) for row in marshal.loads(rows)]


def pack_rows(rows: Sequence[tuple[object, ...]]) -> bytes:
    # Version 2 knows no references between objects: equal rows give equal bytes.
    return marshal.dumps([tuple(row) for row in rows], 2)


def scan(root: Path, rules: Optional[IgnoreRules] = None) -> Scan:
    """Raises FileNotFoundError where `root` does not exist."""
    result = Scan(root)
    top = root.stat()
    if stat.S_ISREG(top.st_mode):
        row = (ONE_FILE, top.st_mode, top.st_size, top.st_mtime_ns, top.st_ino, top.st_ctime_ns)
        result.is_one_file = True
        result.folders.append(Folder("", pack_rows([row]), False))
        return result
    ancestors = frozenset({(top.st_dev, top.st_ino)})
    pending: list[tuple[str, str, frozenset[tuple[int, int]]]] = [("", os.fspath(root), ancestors)]
    while pending:
        path, full, above = pending.pop()
        try:
            folder, below = _scan_folder(result, path, full, above, rules)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError:
            result.unreadable.append(path or ".")
            continue
        result.folders.append(folder)
        pending += reversed(below)
    return result


def _scan_folder(
    result: Scan, path: str, full: str, above: frozenset[tuple[int, int]], rules: Optional[IgnoreRules]
) -> tuple[Folder, list[tuple[str, str, frozenset[tuple[int, int]]]]]:
    rows: list[tuple[str, int, int, int, int, int]] = []
    below: list[tuple[str, str, frozenset[tuple[int, int]]]] = []
    prefix = f"{path}/" if path else ""
    with os.scandir(full) as entries:
        active = _rules_here(rules, path, full)
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
                kind = found.st_mode & _KIND
                if kind == _LINK:
                    found = os.stat(entry.path)
                    kind = found.st_mode & _KIND
            except FileNotFoundError:
                if entry.is_symlink():
                    result.warnings.append(f"{prefix}{entry.name}: the link leads nowhere; left out")
                continue
            except OSError as error:
                result.warnings.append(f"{prefix}{entry.name}: {error.strerror}; left out")
                continue
            name = entry.name
            if active is not None and active.match(name, kind == _FOLDER) is not None:
                result.ignored += 1
            elif kind == _REGULAR:
                if not name.startswith(TEMPORARY_PREFIX):
                    rows.append(
                        (
                            name,
                            found.st_mode,
                            found.st_size,
                            found.st_mtime_ns,
                            found.st_ino,
                            found.st_ctime_ns,
                        )
                    )
            elif kind == _FOLDER:
                inside = above
                if entry.is_symlink() or len(above) > 1:
                    # Only below a link can a folder come round again.
                    if (found.st_dev, found.st_ino) in _ancestors(above, result.root, path):
                        result.warnings.append(f"{prefix}{name}: the link leads back to a folder above; left out")
                        continue
                    inside = above | {(found.st_dev, found.st_ino)}
                below.append((prefix + name, entry.path, inside))
            else:
                result.warnings.append(f"{prefix}{name}: neither a file nor a folder; left out")
    below.sort()
    return Folder(path, pack_rows(rows), not rows and not below), below


def _ancestors(known: frozenset[tuple[int, int]], root: Path, path: str) -> frozenset[tuple[int, int]]:
    """Device and inode of every folder from the root down to `path`."""
    found = set(known)
    current = root
    for part in path.split("/") if path else []:
        current = current / part
        try:
            at = current.stat()
        except OSError:
            break
        found.add((at.st_dev, at.st_ino))
    return frozenset(found)


def _rules_here(rules: Optional[IgnoreRules], path: str, full: str) -> Optional[FolderRules]:
    """The rules that can match in this folder; None where none can, which is the fast way."""
    if rules is None:
        return None
    names = [name for name in rules.file_names if os.path.lexists(f"{full}/{name}")]
    here = rules.enter(path, names)
    return None if here.is_empty else here
