"""Reads files that may have become anything: a pipe is not waited for, and a huge file does not fill the memory."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, Union


class UnfitFile(OSError):
    """What stands at the path is not a regular file, or is larger than a file of its kind can be."""


def open_regular(path: Union[str, Path]) -> BinaryIO:
    """For reading. Raises UnfitFile (a folder, a pipe, a device, a link to itself), OSError."""
    try:
        file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115  the caller closes it
    except OSError as error:
        if error.errno == errno.EISDIR:
            raise _unfit(path, "it is a folder") from error
        if error.errno == errno.ELOOP:
            raise _unfit(path, "it is a link to itself") from error
        if error.errno == errno.ENXIO:
            raise _unfit(path, "it is a socket or a device") from error
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise _unfit(path, "it is a pipe or a device, not a file")
    return file


def read_regular(path: Union[str, Path], most_bytes: int) -> bytes:
    """The whole file. Raises UnfitFile, OSError."""
    with open_regular(path) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes > most_bytes:
            raise _unfit(path, f"it has {size_bytes} bytes; at most {most_bytes} are expected")
        return file.read(most_bytes)


def _without_waiting(path: str, flags: int) -> int:
    """For regular files the flag means nothing."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _unfit(path: Union[str, Path], why: str) -> UnfitFile:
    return UnfitFile(errno.EINVAL, why, os.fspath(path))
