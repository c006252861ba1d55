"""A tree that is written while others may work in it: what stands in the way, and links that are never followed.

Each folder is opened part by part from the root, without following links, and what is written goes to the folder that
was opened. So a folder that becomes a link at any moment leads nowhere else. The root itself may be a link.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import threading
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Union

from amlctl.localfs.atomic import TEMPORARY_PREFIX, move, temporary_name
from amlctl.localfs.disk_errors import failing_disk, is_refusal
from amlctl.localfs.folders import remove_tree, walk

_NOT_A_FOLDER = frozenset({errno.ELOOP, errno.ENOTDIR})
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class NotAFolder(OSError):
    """A link or a file stands where a folder has to be; `filename` is its path."""


class TargetFolders:
    """Thread-safe: each thread has one folder open at a time, the one that it used last."""

    def __init__(self, root: Path) -> None:
        self._root = os.fspath(root)
        self._of_thread = threading.local()
        self._opened: set[int] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> TargetFolders:
        return self

    def __exit__(self, *exception: object) -> None:
        for descriptor in self._opened:
            os.close(descriptor)
        self._opened.clear()

    def opened(self, folder: str, *, make: bool = False) -> int:
        """A descriptor of the folder, for this thread until its next call. `folder` is relative to the root, empty for
        the root. `make`: it is made where it is missing. Raises NotAFolder, OSError."""
        if not make and getattr(self._of_thread, "folder", None) == folder:
            return int(self._of_thread.descriptor)
        descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        for part in filter(None, folder.split("/")):
            try:
                above, descriptor = descriptor, _opened_in(descriptor, part, make)
            except OSError as error:
                os.close(descriptor)
                error.filename = f"{self._root}/{folder}"
                if error.errno in _NOT_A_FOLDER:
                    raise NotAFolder(error.errno, error.strerror, error.filename) from error
                raise
            os.close(above)
        self._keep(folder, descriptor)
        return descriptor

    def adopt(self, temporary: Union[str, Path], folder: str, name: str) -> None:
        """The file gets that name in the folder, which this thread has opened last. `temporary` is a path, or a name in
        that folder. Raises OSError."""
        source = temporary if isinstance(temporary, str) else temporary.absolute()
        try:
            _rename(source, name, self._of_thread.descriptor)
        except OSError as error:
            if not (is_refusal(error) and self.is_in_place(folder)):
                raise
            move(Path(self._of_thread.path, source), Path(self._of_thread.path, name))

    def is_in_place(self, folder: str) -> bool:
        """Whether the folder that this thread has open still is the one under that name. Raises OSError where the disk
        fails: that says nothing."""
        try:
            found = os.lstat(self._of_thread.path) if folder else os.stat(self._root)
        except OSError as error:
            if failing_disk(error, "") is not None:
                raise
            return False
        return bool((found.st_dev, found.st_ino) == self._of_thread.identity)

    def _keep(self, folder: str, descriptor: int) -> None:
        seen = os.fstat(descriptor)
        with self._lock:
            self._opened.add(descriptor)
            before = getattr(self._of_thread, "descriptor", None)
            if before is not None:
                self._opened.discard(before)
                os.close(before)
        self._of_thread.folder, self._of_thread.descriptor = folder, descriptor
        self._of_thread.identity = seen.st_dev, seen.st_ino
        self._of_thread.path = f"{self._root}/{folder}"


def _opened_in(above: int, part: str, make: bool) -> int:
    try:
        return os.open(part, _OPEN, dir_fd=above)
    except FileNotFoundError:
        if not make:
            raise
    with suppress(FileExistsError):
        os.mkdir(part, dir_fd=above)
    return os.open(part, _OPEN, dir_fd=above)


def _rename(temporary: Union[str, Path], name: str, folder: int) -> None:
    try:
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # A folder further down is on another disk.
        beside = temporary_name()
        with open(temporary, "rb") as whole:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
            with os.fdopen(descriptor, "wb") as copy:
                shutil.copyfileobj(whole, copy, 1 << 20)
                seen = os.fstat(whole.fileno())
                os.fchmod(copy.fileno(), seen.st_mode & 0o777)
                copy.flush()
                os.utime(copy.fileno(), ns=(seen.st_atime_ns, seen.st_mtime_ns))
        os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
        os.unlink(temporary)


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
    remove_tree(top, opens_closed=False)


def _files_below(root: Path, path: str) -> list[str]:
    found = []
    for folder, _, names in walk(root / path):
        for name in names:
            if not name.startswith(TEMPORARY_PREFIX):
                found.append(os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/"))
    return found
