"""A folder of values that may be lost at any time: what was least recently used makes room for what is new."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from threading import Lock
from typing import Optional

from amlctl.localfs.atomic import read_regular, write_bytes

_FULL_SHARE = 0.75
"""What is left of the limit when room has been made, so that not every new value has to look for some."""


class BoundedFolder:
    """Values by file name, together at most about `limit_bytes`.

    Threads and processes may share one. It never raises: a folder that cannot be read or written holds nothing.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._lock = Lock()
        self._size_bytes: Optional[int] = None

    def get(self, name: str) -> Optional[bytes]:
        path = self._folder / name
        try:
            data = read_regular(path, self._limit_bytes)
        except OSError:
            return None
        _touch(path)
        return data

    def put(self, name: str, data: bytes) -> None:
        path = self._folder / name
        try:
            write_bytes(path, data)
        except OSError:
            return
        _touch(path)
        with self._lock:
            if self._size_bytes is None:
                self._size_bytes = sum(size for _, size, _ in self._files())
            else:
                self._size_bytes += len(data)
            if self._size_bytes > self._limit_bytes:
                self._size_bytes = self._make_room()

    def forget(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._folder / name)

    def _files(self) -> list[tuple[int, int, str]]:
        """Time of the last use in nanoseconds, size in bytes, path."""
        found = []
        with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    seen = entry.stat(follow_symlinks=False)
                    found.append((seen.st_mtime_ns, seen.st_size, entry.path))
        return found

    def _make_room(self) -> int:
        files = sorted(self._files())
        left = sum(size for _, size, _ in files)
        for _, size, path in files:
            if left <= self._limit_bytes * _FULL_SHARE:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)
            left -= size
        return left


def _touch(path: Path) -> None:
    """The system's own idea of now is some milliseconds coarse, which is too coarse for an order of use."""
    now_ns = time.time_ns()
    with contextlib.suppress(OSError):
        os.utime(path, ns=(now_ns, now_ns))
