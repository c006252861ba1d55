"""Read files: whole small ones, to where someone wants them; large ones part by part.

The id of a file is that of the bytes that were really read, and its size and times are those of the open file
after the last byte. A file that changes while it is read is read again; one that does not hold still is a
Conflict.

A process may have a file open for writing. Writing through a memory map changes a file's times once, when a page is
first touched: what is written to that page later shows in no stat data. Linux refuses a read lease (fcntl(2),
F_SETLEASE) on a file that is open, or mapped, for writing, which costs one call. Elsewhere, and on file systems without
leases, such a change is found by `--checksum`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Callable, Optional, Protocol

import xxhash

from amlctl.core.manifest import FileEntry
from amlctl.errors import Conflict
from amlctl.localfs.regular_file import regular_descriptor
from amlctl.localfs.scan import FileRow, stat_fields


def can_look_for_writers() -> bool:
    """Call it once, before files are looked at. A process that opens a leased file for writing just before it is closed
    sends this process a SIGIO, which would end it."""
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return False
    if signal.getsignal(signal.SIGIO) is signal.SIG_DFL:
        signal.signal(signal.SIGIO, _ignore)  # not SIG_IGN, which scripts that are started from here would inherit
    return True


def has_writer(descriptor: int) -> bool:
    """The lease that this takes ends with the descriptor, which must be open for reading only."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN  # any other: the file system, or the owner, does not allow leases
    return False


def _ignore(number: int, frame: Optional[FrameType]) -> None:
    """The file was closed already, which is all that the other process waits for."""


READ_AT_ONCE = 1 << 20
"""Bytes up to which a file is read in one piece."""
_TRIES = 3
_YOUNG_NS = 600 * 10**9
_NOTHING = memoryview(b"")


class Taker(Protocol):
    """Wants the bytes of new files of up to `READ_AT_ONCE`."""

    def room(self, path: str, size_bytes: int) -> Optional[memoryview]:
        """Where the file of that path is to be read to; None: anywhere. Good until the next call."""
        ...

    def take(self, entry: FileEntry, data: memoryview) -> None:
        """`data` is the beginning of the last room, and good until the next call."""
        ...


class FileReader:
    """Reads files, small ones to where their taker wants them, else to memory that is used again."""

    def __init__(self, taker: Optional[Taker], on_bytes: Callable[[int], None]) -> None:
        """`on_bytes` gets how much of a large file has been read."""
        self._room = taker.room if taker is not None else lambda path, size_bytes: None
        self._on_bytes = on_bytes
        self._memory = memoryview(bytearray(64 << 10))
        self._can_look = can_look_for_writers()
        self._young_after_ns = time.time_ns() - _YOUNG_NS
        self.is_written_to = False
        """Whether a process had the last file open for writing, so that it may change without a new time."""

    def read(self, full: str, path: str, seen: FileRow) -> tuple[FileRow, bytes, memoryview]:
        """The row and id of what was read, and the bytes where the file is small. Raises OSError, Conflict."""
        # Never wait for the other end of a pipe that took the place of a file.
        descriptor = os.open(full, os.O_RDONLY | os.O_NONBLOCK)
        try:
            if seen[2] <= READ_AT_ONCE:
                data = self._read_small(descriptor, path, seen[2])
                if len(data) == seen[2] and stat_fields(os.fstat(descriptor)) == seen[1:]:
                    return seen, xxhash.xxh3_128_digest(data), data
                os.lseek(descriptor, 0, os.SEEK_SET)
            before = os.fstat(descriptor)
            for _ in range(_TRIES):
                if before.st_size <= READ_AT_ONCE:
                    data = self._read_small(descriptor, path, before.st_size)
                    size, identity = len(data), xxhash.xxh3_128_digest(data)
                else:
                    data = _NOTHING
                    size, identity = _hash_large(descriptor, self._on_bytes)
                after = os.fstat(descriptor)
                if size == after.st_size and _same(before, after):
                    return FileRow(seen.name, *stat_fields(after)), identity, data
                os.lseek(descriptor, 0, os.SEEK_SET)
                before = after
        finally:
            self.is_written_to = self._is_young(seen) and has_writer(descriptor)
            os.close(descriptor)
        raise Conflict(f"{full} changes while it is read", hint="stop what writes it, or name it in .amlctlignore")

    def _is_young(self, seen: FileRow) -> bool:
        """Pages that were written through a memory map get to the disk within the minute, and the next write to them
        shows in the times again. (Not in a tmpfs, which has no disk.)"""
        return self._can_look and (seen[5] > self._young_after_ns or seen[3] > self._young_after_ns)

    def _read_small(self, descriptor: int, path: str, size_bytes: int) -> memoryview:
        """One byte more than the file should have shows that it has grown."""
        room = self._room(path, size_bytes + 1)
        if room is None:
            if size_bytes >= len(self._memory):
                self._memory = memoryview(bytearray(READ_AT_ONCE + 1))
            room = self._memory[: size_bytes + 1]
        return room[: os.readv(descriptor, (room,))]


def read_small(path: Path) -> bytes:
    """All bytes of a file; raises OSError, also for what is not one."""
    with os.fdopen(regular_descriptor(path, os.O_RDONLY), "rb", buffering=0) as file:
        return file.readall()


def file_content_id(path: Path) -> str:
    """Content id of a whole file, read in parts; raises OSError, also for what is not one."""
    descriptor = regular_descriptor(path, os.O_RDONLY)
    try:
        return _hash_large(descriptor, lambda size_bytes: None)[1].hex()
    finally:
        os.close(descriptor)


def _same(one: os.stat_result, two: os.stat_result) -> bool:
    return (one.st_size, one.st_mtime_ns, one.st_ctime_ns) == (two.st_size, two.st_mtime_ns, two.st_ctime_ns)


def _hash_large(descriptor: int, on_bytes: Callable[[int], None]) -> tuple[int, bytes]:
    state = xxhash.xxh3_128()
    size = 0
    while part := os.read(descriptor, 1 << 22):
        state.update(part)
        size += len(part)
        on_bytes(size)
    return size, state.digest()
