"""What a file system may refuse without harm: modes, times, syncing, links, renames.

Mounts of object storage, FUSE and network shares each lack some of these. A refusal of the operation itself
(`is_refusal`) is passed over, or replaced by the next best; what a disk or missing rights refuse is raised.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import Callable, Union

from amlctl.localfs.disk_errors import is_refusal
from amlctl.localfs.locks import claimed

_PART_BYTES = 1 << 20
_REPLACE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
AnyPath = Union[str, Path]


def set_mode(file: Union[int, AnyPath], mode: int) -> None:
    """Raises OSError where the disk fails."""
    _unless_refused(lambda: os.chmod(file, mode))


def set_mtime(file: Union[int, AnyPath], mtime_ns: int) -> None:
    """Raises OSError where the disk fails."""
    _unless_refused(lambda: os.utime(file, ns=(mtime_ns, mtime_ns)))


def sync_to_disk(descriptor: int) -> None:
    """Raises OSError where the disk fails."""
    _unless_refused(lambda: os.fsync(descriptor))


def link_to(path: Path, target: Path) -> bool:
    """Make a symbolic link; False where the file system has none. Raises OSError."""
    try:
        path.symlink_to(target)
    except OSError as error:
        if not is_refusal(error):
            raise
        return False
    return True


def move(source: AnyPath, target: AnyPath) -> None:
    """Rename, replacing what is there. On a file system without renames the bytes are written in place, one writer at a
    time, and read back; a reader may meet a part of them, and a kill leaves it. Raises OSError."""
    try:
        os.replace(source, target)
    except OSError as error:
        if not is_refusal(error) or os.path.isdir(target) or _has_renames(source):
            raise
        with claimed(Path(target)):
            _write_in_place(source, target)


def move_if_new(source: AnyPath, target: AnyPath) -> bool:
    """False where the target exists. A hard link, or, without them, a move while the target is claimed."""
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        if not is_refusal(error):
            raise
        with claimed(Path(target)):
            if os.path.lexists(target):
                return False
            try:
                os.replace(source, target)
            except OSError as refusal:
                if not is_refusal(refusal) or _has_renames(source):
                    raise
                _write_in_place(source, target)
    return True


def _has_renames(source: AnyPath) -> bool:
    """Whether the refusal of a rename concerned its target alone: missing rights, say."""
    moved = f"{os.fspath(source)}.moved"
    try:
        os.replace(source, moved)
    except OSError:
        return False
    os.replace(moved, source)
    return True


def _write_in_place(source: AnyPath, target: AnyPath) -> None:
    mode = os.stat(source).st_mode & 0o777
    with suppress(FileNotFoundError):
        seen = os.lstat(target)
        if stat.S_ISLNK(seen.st_mode) or seen.st_nlink > 1:
            os.unlink(target)  # what it leads to, or shares its bytes with, is not what is replaced
        elif not seen.st_mode & stat.S_IWUSR:
            set_mode(target, mode | stat.S_IWUSR)
    _overwrite(source, target, mode)
    set_mode(target, mode)
    os.unlink(source)


def _overwrite(source: AnyPath, target: AnyPath, mode: int) -> None:
    """The beginning of an old, longer value is never left as one that looks whole: the new length comes last."""
    with open(source, "rb") as reader, os.fdopen(os.open(target, _REPLACE, mode), "r+b") as writer:
        shutil.copyfileobj(reader, writer, _PART_BYTES)
        writer.truncate()
        writer.flush()
        sync_to_disk(writer.fileno())
    with open(source, "rb") as reader, open(target, "rb") as written:
        while part := reader.read(_PART_BYTES):
            if written.read(_PART_BYTES) != part:
                raise OSError(errno.EIO, "what was written is not what is read back", os.fspath(target))
        if written.read(1):
            raise OSError(errno.EIO, "what was written is not what is read back", os.fspath(target))


def _unless_refused(call: Callable[[], object]) -> None:
    try:
        call()
    except OSError as error:
        if not is_refusal(error):
            raise
