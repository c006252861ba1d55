"""Copies of datasets on this disk that go from run to run, so that a snapshot is unpacked once.

<state>/data/<store, dataset and mode>/<bytes>-<random>/tree        a copy that no run has now
                                                       /rows.json   what amlctl itself has written into it

A run has a copy for itself: it is renamed into the run's container, where the script may do with it what it likes, and
renamed back when all processes of the run have ended. Before the next run gets it, each file is compared with its row:
size, mtime, ctime and inode. No program can set a ctime, so what a script has written, replaced or linked is found; it
is written again, and what was added is removed. A copy of an older snapshot becomes one of a newer one in the same way.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Optional

from amlctl.core.content_id import content_id
from amlctl.core.manifest import FileEntry
from amlctl.errors import AmlctlError
from amlctl.localfs.atomic import read_json, temporary_near, write_json
from amlctl.localfs.folders import make_private_folder, remove_tree

_FORMAT = 1
_ROWS = "rows.json"
_LIMIT_BYTES = 20 << 30
"""For the copies of a project that no run has; those used least recently are removed."""
_UNUSED_S = 30 * 86400.0
_FREE = 0.1
"""Part of the disk that stays free; with less, no copies are kept."""


class Row(NamedTuple):
    """A file that amlctl has written, or a link that it has made."""

    content_id: str
    is_executable: bool
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int


@dataclass
class DataCopy:
    """A copy that a run has: in `folder` until `tree` is moved to its place. It goes back to `home`."""

    home: Path
    folder: Path
    rows: dict[str, Row] = field(default_factory=dict)
    _place: Optional[tuple[Path, Path, int, int]] = None

    @property
    def tree(self) -> Path:
        return self.folder / "tree"

    def note(self, rows: Mapping[str, Row]) -> None:
        """What it holds now. Raises OSError."""
        if rows != self.rows:
            make_private_folder(self.folder)
            write_json(
                self.folder / _ROWS, {"format": _FORMAT, "rows": {path: list(row) for path, row in rows.items()}}
            )
            self.rows = dict(rows)

    def is_now_at(self, path: Path) -> None:
        """Its tree was moved there, or made there. Raises OSError."""
        self._place = _identified(path)

    def give_back(self) -> None:
        """When no process of the run is left. Without room it is not kept; nor where a script has put something else in
        its place, or has moved it to a folder of the user and left a link."""
        size_bytes = sum(row.size_bytes for row in self.rows.values())
        with suppress(OSError):
            if self._place is None or _identified(path := self._place[0]) != self._place:
                return
            if _is_coarse(self.rows) or size_bytes > _LIMIT_BYTES or not _has_room(path):
                return
            path.rename(self.tree)
            make_private_folder(self.home)
            self.folder.rename(self.home / f"{size_bytes}-{os.urandom(8).hex()}")


def _identified(path: Path) -> tuple[Path, Path, int, int]:
    seen = path.stat()
    return path, path.resolve(), seen.st_dev, seen.st_ino


class DataCopies:
    """Of one dataset of one store in one mode. Any number of processes may use them."""

    def __init__(self, state_dir: Path, store_url: str, dataset: str, mode: str) -> None:
        self._all = state_dir / "data"
        self._folder = self._all / content_id(f"{store_url}\n{dataset}\n{mode}".encode("utf-8", "surrogateescape"))[:16]

    def take(self, folder: Path) -> DataCopy:
        """The copy that was used last moves to `folder`; an empty one if all are in use."""
        try:
            there = sorted(self._folder.iterdir(), key=lambda one: one.stat().st_mtime, reverse=True)
        except OSError:
            there = []
        for one in there:
            with suppress(OSError):  # another run was faster
                one.rename(folder)
                rows = _read_rows(folder)
                if rows:
                    return DataCopy(self._folder, folder, rows)
                remove_tree(folder, ignore_errors=True)
        return DataCopy(self._folder, folder)

    def make_room(self) -> None:
        """Remove what was used least recently: beyond the limit, long unused, or all of it on a disk that is nearly
        full."""
        found: list[tuple[float, Path]] = []
        for one in self._all.glob("*/*-*"):
            with suppress(OSError):
                found.append((one.stat().st_mtime, one))
        limit = _LIMIT_BYTES if _has_room(self._all) else 0
        total, now_s = 0, time.time()
        for used_at, one in sorted(found, reverse=True):
            total += int(one.name.partition("-")[0])
            if total <= limit and now_s - used_at <= _UNUSED_S:
                continue
            doomed = temporary_near(one)
            with suppress(OSError):  # a run has taken it meanwhile
                one.rename(doomed)
                remove_tree(doomed, ignore_errors=True)


def repaired(tree: Path, rows: Mapping[str, Row], entries: Sequence[FileEntry]) -> list[FileEntry]:
    """Remove from `tree` what is not an entry, or not what amlctl has written there; the entries that have to be
    written. Raises OSError."""
    wanted = {entry.path: entry for entry in entries}
    needed: set[str] = set()
    for path in wanted:
        while (path := path.rpartition("/")[0]) and path not in needed:
            needed.add(path)
    whole: set[str] = set()
    doomed: list[Path] = []
    pending = [""]
    while pending:
        above = pending.pop()
        folder = tree / above
        _open_to_owner(folder)
        if above and above not in needed:
            doomed.append(folder)
        with os.scandir(folder) as found:
            for one in found:
                path = f"{above}/{one.name}" if above else one.name
                if one.is_dir(follow_symlinks=False):
                    pending.append(path)
                    continue
                row, entry = rows.get(path), wanted.get(path)
                if entry is not None and row is not None and _is_as_written(one, row, entry):
                    whole.add(path)
                else:
                    os.unlink(one.path)
    for folder in reversed(doomed):
        os.rmdir(folder)
    return [entry for entry in entries if entry.path not in whole]


def _open_to_owner(folder: Path) -> None:
    """A script may have closed it."""
    mode = stat.S_IMODE(folder.lstat().st_mode)
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        folder.chmod(mode | stat.S_IRWXU)


def _is_as_written(found: os.DirEntry[str], row: Row, entry: FileEntry) -> bool:
    if (row.content_id, row.is_executable) != (entry.content_id, entry.is_executable):
        return False
    seen = found.stat(follow_symlinks=False)
    if (seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino) != row[2:]:
        return False
    return not found.is_symlink() or os.path.exists(found.path)


def rows_of(tree: Path, entries: Sequence[FileEntry]) -> dict[str, Row]:
    """Of files that amlctl has just written. Raises OSError."""
    found: dict[str, Row] = {}
    for entry in entries:
        if not entry.path.endswith("/"):
            seen = os.lstat(f"{tree}/{entry.path}")
            times = (seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino)
            found[entry.path] = Row(entry.content_id, entry.is_executable, *times)
    return found


def _read_rows(folder: Path) -> dict[str, Row]:
    try:
        document: Any = read_json(folder / _ROWS)
        if document["format"] != _FORMAT:
            return {}
        return {path: Row(*row) for path, row in document["rows"].items()}
    except (OSError, AmlctlError, LookupError, TypeError, AttributeError):
        return {}


def _is_coarse(rows: Mapping[str, Row]) -> bool:
    """A disk that keeps whole seconds would not show what was written in the second after a file was placed."""
    return all(row.ctime_ns % 1_000_000_000 == 0 for row in rows.values())


def _has_room(path: Path) -> bool:
    try:
        disk = shutil.disk_usage(path)
    except OSError:
        return True
    return disk.free >= _FREE * disk.total
