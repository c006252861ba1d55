"""Files of amlctl's own, which may have become anything: a pipe, a socket, a device or a folder.

The one rule for all of them: such a thing is never waited for, read or written. It is an UnfitFile, which says what
stands there; a cache or a record then counts as damaged, and everything else is an error that names the path.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import IO, Union

from amlctl.localfs.disk_errors import UnfitFile
from amlctl.localfs.folders import FILE_MODE

_KINDS = {
    errno.EISDIR: "it is a folder",
    errno.ELOOP: "it is a link to itself",
    errno.ENXIO: "it is a socket or a device, not a file",
}
_NO_WAITING = getattr(os, "O_NONBLOCK", 0)
"""Of a pipe; for regular files it means nothing."""


def regular_descriptor(path: Union[str, Path], flags: int, mode: int = FILE_MODE) -> int:
    """As `os.open`. Raises UnfitFile, OSError."""
    try:
        descriptor = os.open(path, flags | _NO_WAITING, mode)
    except OSError as error:
        if error.errno in _KINDS:
            raise _unfit(path, _KINDS[error.errno]) from error
        raise
    seen = os.fstat(descriptor).st_mode
    if stat.S_ISREG(seen):
        return descriptor
    os.close(descriptor)
    raise _unfit(path, _KINDS[errno.EISDIR] if stat.S_ISDIR(seen) else "it is a pipe or a device, not a file")


def open_regular(path: Union[str, Path], mode: str = "rb") -> IO[bytes]:
    """As the builtin, for bytes; a file that is made is for this user alone. Raises UnfitFile, OSError."""
    return open(path, mode, opener=regular_descriptor)  # the caller closes it


def read_regular(path: Union[str, Path], most_bytes: int) -> bytes:
    """The whole file. Raises UnfitFile (also if it is larger), OSError."""
    with open_regular(path) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes > most_bytes:
            raise _unfit(path, f"it has {size_bytes} bytes; at most {most_bytes} are expected")
        return file.read(most_bytes)


def _unfit(path: Union[str, Path], why: str) -> UnfitFile:
    return UnfitFile(errno.EINVAL, why, os.fspath(path))
