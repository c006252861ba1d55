"""A large file that is being downloaded: what has arrived outlives a kill, and the next download goes on from there.

In a folder stand `.amlctl-tmp-<content id>`, the bytes so far, and `….parts`, which lists the stretches that
they have: 16 bytes each, start and length, appended after the bytes were written. After a power cut the list may
say too much: whoever uses the file checks its content id.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from amlctl.localfs.atomic import TEMPORARY_PREFIX, temporary_name
from amlctl.localfs.disk_errors import is_refusal
from amlctl.stores.contract import Store

_WORTH_BYTES = 16 << 20
"""Below this a file is simply asked for again."""
_PART = struct.Struct("<QQ")


class PartialFile:
    """`Parts` of one file; `on_bytes` is told of each stretch that arrives, or was there. Thread-safe."""

    def __init__(self, journal: int, on_bytes: Callable[[int], None]) -> None:
        self._journal = journal
        self._on_bytes = on_bytes
        found = os.pread(journal, os.fstat(journal).st_size, 0)
        whole = found[: len(found) // _PART.size * _PART.size]
        os.ftruncate(journal, len(whole))  # a kill may have cut the last entry short
        self._starts: dict[int, int] = dict(_PART.iter_unpack(whole))
        self._places = itertools.count(len(whole), _PART.size)
        """One for each entry: some mounts refuse to append."""
        if self._starts:
            on_bytes(sum(self._starts.values()))

    def has(self, start: int, length: int) -> bool:
        return self._starts.get(start, -1) >= length

    def arrived(self, start: int, length: int) -> None:
        os.pwrite(self._journal, _PART.pack(start, length), next(self._places))
        self._on_bytes(length)


@contextmanager
def downloaded(
    store: Store,
    key: str,
    content: str,
    size_bytes: int,
    folder: Path,
    *,
    mode: int,
    on_bytes: Callable[[int], None] = lambda size: None,
) -> Iterator[Path]:
    """A temporary file in `folder` that has the value of `key`, unchecked; renamed or removed by the block.

    `content` names what is expected. After an error of the store what has arrived is kept; after one in the block
    it is not, since it may be wrong. Raises NotFound, ServiceUnavailable, OSError.
    """
    stable = folder / f"{TEMPORARY_PREFIX}{content}"
    journal_path = stable.with_name(f"{stable.name}.parts")
    journal = _locked(journal_path) if size_bytes >= _WORTH_BYTES else None
    if journal is None:
        temporary = folder / temporary_name()
        try:
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
            on_bytes(store.download(key, temporary))
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
        return
    try:
        if not stable.exists():
            os.ftruncate(journal, 0)
        os.close(os.open(stable, os.O_WRONLY | os.O_CREAT, mode))
        store.download(key, stable, PartialFile(journal, on_bytes))
        try:
            yield stable
        finally:
            stable.unlink(missing_ok=True)
            journal_path.unlink(missing_ok=True)
    finally:
        os.close(journal)


def _locked(path: Path) -> int | None:
    """The journal, opened and held by this process; None where another one downloads the same beside the same, or the
    file system has no locks by which that could be seen."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:
            return descriptor
    except OSError as error:
        if not isinstance(error, BlockingIOError) and not is_refusal(error):
            os.close(descriptor)
            raise
    os.close(descriptor)
    return None
