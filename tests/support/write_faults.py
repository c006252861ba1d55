"""Harm at the n-th write of this process: what the disk, or a kill, does to a real command on real files.

`install` replaces the functions through which Python writes: files that are opened for writing, bytes, names, folders,
fsync, and the statements of SQLite. Only what lies below `root` counts.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

KILL, TORN = "kill", "torn"
ERRORS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "EMFILE": errno.EMFILE, "ESTALE": errno.ESTALE}
KINDS = (KILL, TORN, *ERRORS)
"""`kill`: before the write. `torn`: in the middle of bytes, after anything else. Errors: instead of the write; EMFILE
only where a file is opened."""
_WRITING = os.O_WRONLY | os.O_RDWR
_CHANGES = ("INSERT", "DELETE", "BEGIN", "UPDATE", "CREATE", "DROP", "PRAGMA USER_VERSION =")


class WriteFaults:
    """Counts writes from 1; `number` 0 harms no write. `seen` is what each one was."""

    def __init__(self, root: Path, number: int, kind: str) -> None:
        self._root = os.fspath(root)
        self._number = number
        self._kind = kind
        self.seen: list[str] = []

    def install(self) -> None:
        for name in ("rename", "replace", "link", "symlink"):
            self._wrap(name, 1)
        for name in ("unlink", "remove", "rmdir", "mkdir", "truncate", "chmod", "utime"):
            self._wrap(name, 0)
        for name in ("fsync", "ftruncate", "fchmod"):
            self._wrap(name, None)
        self._wrap_open()
        self._wrap_write()
        self._wrap_copy()
        self._wrap_sqlite()

    def _wrap(self, name: str, position: int | None) -> None:
        """`position` of the path among the arguments; None: a descriptor comes first."""
        real = getattr(os, name)

        def wrapped(*arguments: Any, **named: Any) -> Any:
            path = _path_of(arguments[0]) if position is None else _text(arguments[position])
            if named.get("dir_fd") is not None:
                path = os.path.join(_path_of(named["dir_fd"]), path)
            return self._point(name, path, lambda: real(*arguments, **named))

        setattr(os, name, wrapped)

    def _wrap_open(self) -> None:
        real_open, real_os_open = io.open, os.open

        def os_open(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
            if not flags & _WRITING:
                return real_os_open(path, flags, *arguments, **named)
            opened: int = self._point("open", _text(path), lambda: real_os_open(path, flags, *arguments, **named))
            return opened

        def file_open(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
            if isinstance(file, int) or not set(mode) & set("wax+"):
                return real_open(file, mode, *arguments, **named)
            return self._point("open", _text(file), lambda: real_open(file, mode, *arguments, **named))

        os.open = os_open
        io.open = builtins.open = file_open

    def _wrap_write(self) -> None:
        real_write, real_writev = os.write, os.writev

        def write(descriptor: int, data: Any) -> int:
            def half() -> None:
                real_write(descriptor, memoryview(data)[: len(data) // 2])

            written: int = self._point("write", _path_of(descriptor), lambda: real_write(descriptor, data), half)
            return written

        def writev(descriptor: int, buffers: Any) -> int:
            def half() -> None:
                whole = b"".join(buffers)
                real_write(descriptor, whole[: len(whole) // 2])

            written: int = self._point("write", _path_of(descriptor), lambda: real_writev(descriptor, buffers), half)
            return written

        os.write, os.writev = write, writev

    def _wrap_copy(self) -> None:
        real = shutil.copyfile

        def copyfile(source: Any, target: Any, **named: Any) -> Any:
            return self._point("copy", _text(target), lambda: real(source, target, **named))

        shutil.copyfile = copyfile  # type: ignore[assignment]

    def _wrap_sqlite(self) -> None:
        faults = self
        real = sqlite3.connect

        class Connection(sqlite3.Connection):
            """Statements that write, and commits, are writes."""

            file = ""

            def execute(self, statement: str, *rest: Any) -> Any:
                return self._reported(statement, lambda: super(Connection, self).execute(statement, *rest))

            def executemany(self, statement: str, *rest: Any) -> Any:
                return self._reported(statement, lambda: super(Connection, self).executemany(statement, *rest))

            def executescript(self, statement: str) -> Any:
                return self._reported("CREATE", lambda: super(Connection, self).executescript(statement))

            def __exit__(self, *error: Any) -> Any:
                return faults._point("commit", self.file, lambda: super(Connection, self).__exit__(*error))

            def _reported(self, statement: str, call: Callable[[], Any]) -> Any:
                if not statement.lstrip().upper().startswith(_CHANGES):
                    return call()
                return faults._point("sqlite", self.file, call)

        def connect(path: Any, *arguments: Any, **named: Any) -> Any:
            connection = real(path, *arguments, factory=Connection, **named)
            connection.file = _text(path)
            return connection

        sqlite3.connect = connect  # type: ignore[assignment]

    def _point(self, what: str, path: str, write: Callable[[], Any], half: Callable[[], None] | None = None) -> Any:
        if not os.path.abspath(path).startswith(self._root):
            return write()
        self.seen.append(f"{what} {os.path.relpath(path, self._root)}")
        if len(self.seen) != self._number:
            return write()
        if self._kind in ERRORS:
            if what in ("sqlite", "commit"):
                raise sqlite3.OperationalError(
                    "disk I/O error" if self._kind != "ENOSPC" else "database or disk is full"
                )
            if self._kind == "EMFILE" and what != "open":
                return write()
            raise OSError(ERRORS[self._kind], os.strerror(ERRORS[self._kind]), path)
        if self._kind == TORN:
            (half or write)()
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")


def _text(path: Any) -> str:
    return os.fsdecode(path) if not isinstance(path, int) else _path_of(path)


def _path_of(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""
