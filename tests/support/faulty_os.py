"""An operating system that fails once: the n-th call on a file below a folder raises an error of the system.

For a process of its own, since it replaces functions of `os` and makes `open` go through them. SQLite opens its files
itself, and is not reached.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from threading import Lock
from typing import Any

KINDS = {
    "open": ("open",),
    "read": ("read", "readv", "pread"),
    "write": ("write", "writev", "pwrite", "sendfile"),
    "rename": ("rename", "replace", "link"),
    "mkdir": ("mkdir",),
    "unlink": ("unlink", "remove", "rmdir"),
    "listdir": ("listdir", "scandir"),
    "stat": ("stat", "lstat", "fstat"),
}
ERRORS = {
    "open": (errno.EMFILE, errno.EIO, errno.ESTALE, errno.ENOSPC, errno.EACCES, errno.EROFS),
    "read": (errno.EIO, errno.ESTALE),
    "write": (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG),
    "rename": (errno.ENOSPC, errno.EIO, errno.ESTALE, errno.EROFS),
    "mkdir": (errno.ENOSPC, errno.EIO, errno.EROFS),
    "unlink": (errno.EIO, errno.EROFS, errno.ESTALE),
    "listdir": (errno.EMFILE, errno.EIO, errno.ESTALE, errno.EACCES),
    "stat": (errno.EIO, errno.ESTALE),
    "flock": (errno.ENOLCK,),
}
"""What each kind of call can fail with on a disk, a network share or a machine at its limits."""


@dataclass
class FaultyOs:
    """Counts the calls below `root`; the call number `at` (from 0) fails with `number`. `seen` has the kind of each."""

    root: str
    at: int = -1
    number: int = 0
    seen: list[str] = field(default_factory=list)
    _open: set[int] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock)

    def install(self) -> None:
        for kind, names in KINDS.items():
            for name in names:
                setattr(os, name, self._wrapped(kind, getattr(os, name)))
        fcntl.flock = self._wrapped("flock", fcntl.flock)
        close = os.close

        def closing(fd: int) -> None:
            self._open.discard(fd)
            close(fd)

        os.close = closing
        # Python's own description of `io`: it reads and writes by the functions of `os`.
        builtins.open = io.open = import_module("_pyio").open

    def _wrapped(self, kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            if not self._is_below(arguments):
                return call(*arguments, **named)
            with self._lock:
                number = len(self.seen)
                self.seen.append(kind)
            if number == self.at:
                place = arguments[0] if isinstance(arguments[0], (str, bytes, os.PathLike)) else None
                raise OSError(self.number, os.strerror(self.number), *([] if place is None else [os.fspath(place)]))
            result = call(*arguments, **named)
            if kind == "open":
                self._open.add(result)
            return result

        return wrapped

    def _is_below(self, arguments: tuple[Any, ...]) -> bool:
        first = arguments[0] if arguments else "."
        if isinstance(first, int):
            return first in self._open
        if hasattr(first, "fileno"):
            return first.fileno() in self._open
        return os.path.abspath(os.fsdecode(first)).startswith(self.root)
