"""Stores around another store: with copies of its manifests on this disk, or behind a bandwidth limit."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event, Lock
from typing import Optional, Union

from amlctl.core.content_id import content_id
from amlctl.core.document import gunzip
from amlctl.core.store_keys import is_manifest_file
from amlctl.errors import Interrupted
from amlctl.localfs.atomic import write_bytes
from amlctl.localfs.regular_file import read_regular
from amlctl.stores.contract import (
    Body,
    Buffer,
    Entry,
    FileBody,
    Guard,
    OnBytes,
    Parts,
    Store,
    Traffic,
    Versioned,
    unobserved,
)

_LIMIT_BYTES = 64 << 20
"""Of copies of manifests."""


class StoreWrapper:
    """Satisfies `Store`: forwards everything to `store`. A wrapper overrides what it changes."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @property
    def url(self) -> str:
        return self.store.url

    @property
    def folder(self) -> Optional[Path]:
        return self.store.folder

    @property
    def traffic(self) -> Traffic:
        return self.store.traffic

    @property
    def concurrency(self) -> int:
        return self.store.concurrency

    def check_key(self, key: str) -> None:
        self.store.check_key(key)

    def get(self, key: str, *, start: int = 0, length: Optional[int] = None, on_bytes: OnBytes = unobserved) -> bytes:
        return self.store.get(key, start=start, length=length, on_bytes=on_bytes)

    def get_versioned(self, key: str) -> Optional[Versioned]:
        return self.store.get_versioned(key)

    def download(self, key: str, target: Path, parts: Optional[Parts] = None, *, on_bytes: OnBytes = unobserved) -> int:
        return self.store.download(key, target, parts, on_bytes=on_bytes)

    def put(self, key: str, body: Body, *, replace: bool = False, on_bytes: OnBytes = unobserved) -> bool:
        return self.store.put(key, body, replace=replace, on_bytes=on_bytes)

    def swap(self, key: str, data: bytes, *, expected: Optional[str]) -> str:
        return self.store.swap(key, data, expected=expected)

    def info(self, key: str) -> Optional[Entry]:
        return self.store.info(key)

    def list(self, prefix: str) -> Iterator[Entry]:
        return self.store.list(prefix)

    def folders(self, prefix: str) -> Sequence[str]:
        return self.store.folders(prefix)

    def in_the_way(self, key: str) -> Sequence[str]:
        return self.store.in_the_way(key)

    def delete(self, key: str, *, guard: Optional[Guard] = None) -> None:
        self.store.delete(key, guard=guard)

    def sweep(self, older_than_s: float) -> int:
        return self.store.sweep(older_than_s)

    def local_path(self, key: str) -> Optional[Path]:
        return self.store.local_path(key)

    def interrupt(self) -> None:
        self.store.interrupt()

    def resume(self) -> None:
        self.store.resume()


class CachedStore(StoreWrapper):
    """`get` of a manifest file or a shard answers from `folder`, without a request, where it can: they never change,
    and are named by their content.

    A copy counts only if its content is what its name says. Others may have deleted the value meanwhile: a caller that
    needs to know what the store itself has asks `store`. The oldest copies go when all together exceed `limit_bytes`.
    """

    def __init__(self, store: Store, folder: Path, *, limit_bytes: int = _LIMIT_BYTES) -> None:
        super().__init__(store)
        self._copies = folder
        self._limit_bytes = limit_bytes
        self._lock = Lock()
        self._size_bytes: Optional[int] = None

    def get(self, key: str, *, start: int = 0, length: Optional[int] = None, on_bytes: OnBytes = unobserved) -> bytes:
        if start or not is_manifest_file(key):
            return self.store.get(key, start=start, length=length, on_bytes=on_bytes)
        path = self._path(key)
        try:
            data = read_regular(path, self._limit_bytes)
        except OSError:
            data = b""
        if not _is_whole(path.name, data):
            data = self.store.get(key, length=length, on_bytes=on_bytes)
            self._keep(path, data)
        return data if length is None else data[:length]

    def put(self, key: str, body: Body, *, replace: bool = False, on_bytes: OnBytes = unobserved) -> bool:
        was_written = self.store.put(key, body, replace=replace, on_bytes=on_bytes)
        if is_manifest_file(key) and isinstance(body, bytes):
            self._keep(self._path(key), body)
        return was_written

    def delete(self, key: str, *, guard: Optional[Guard] = None) -> None:
        self.store.delete(key, guard=guard)
        if is_manifest_file(key):
            with contextlib.suppress(OSError):
                os.unlink(self._path(key))

    def _path(self, key: str) -> Path:
        return self._copies / key.rpartition("/")[2]

    def _keep(self, path: Path, data: bytes) -> None:
        """Where nothing can be written, nothing is kept."""
        if _is_whole(path.name, data):
            with contextlib.suppress(OSError), self._lock:
                if self._size_bytes is None or self._size_bytes + len(data) > self._limit_bytes:
                    self._size_bytes = self._make_room(len(data))
                write_bytes(path, data)
                self._size_bytes += len(data)

    def _make_room(self, size_bytes: int) -> int:
        """Bytes of the copies that are left."""
        found = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self._copies) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    seen = entry.stat(follow_symlinks=False)
                    found.append((seen.st_mtime_ns, seen.st_size, entry.path))
        left = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if left + size_bytes <= self._limit_bytes:
                break
            os.unlink(path)
            left -= size
        return left


def without_copies(store: Store) -> Store:
    """The store itself, to read what it really contains."""
    return store.store if isinstance(store, CachedStore) else store


def _is_whole(name: str, data: bytes) -> bool:
    """A manifest's name carries the id of the file, a shard's name that of what is packed in it."""
    snapshot, _, identity = name[: -len(".gz")].rpartition("-")
    try:
        return content_id(data if snapshot else gunzip(data)) == identity
    except ValueError:
        return False


class Pace:
    """`bytes_per_s` holds for both directions together. Thread-safe."""

    def __init__(
        self,
        bytes_per_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._interrupted = Event()
        self._sleep = sleep or self._interrupted.wait
        self._lock = Lock()
        self._free_at_s = 0.0

    def take(self, size_bytes: int) -> None:
        """Wait until the line has carried `size_bytes`, after what others have taken before. Raises Interrupted."""
        with self._lock:
            now_s = self._clock()
            start_s = max(now_s, self._free_at_s)
            self._free_at_s = start_s + size_bytes / self._bytes_per_s
            wait_s = self._free_at_s - now_s
        if wait_s > 0:
            self._sleep(wait_s)
        if self._interrupted.is_set():
            raise Interrupted("interrupted")

    def interrupt(self) -> None:
        """All waiting calls, and those that come until `resume`, give up."""
        self._interrupted.set()

    def resume(self) -> None:
        with self._lock:
            self._free_at_s = 0.0  # what was to be sent until then is not
        self._interrupted.clear()


_PACED_BYTES = 64 << 10
"""What of a value waits for its turn at a time."""


class PacedStore(StoreWrapper):
    """A folder behind a bandwidth limit: each transfer waits for its turn, so that the average keeps the rate. A store
    that sends through a network itself keeps its `Pace` inside of a request."""

    def __init__(self, store: Store, pace: Pace) -> None:
        super().__init__(store)
        self._pace = pace

    def get(self, key: str, *, start: int = 0, length: Optional[int] = None, on_bytes: OnBytes = unobserved) -> bytes:
        data = self.store.get(key, start=start, length=length)
        self._paced(on_bytes)(len(data))
        return data

    def get_versioned(self, key: str) -> Optional[Versioned]:
        found = self.store.get_versioned(key)
        self._pace.take(len(found.data) if found else 0)
        return found

    def download(self, key: str, target: Path, parts: Optional[Parts] = None, *, on_bytes: OnBytes = unobserved) -> int:
        size_bytes = self.store.download(key, target, parts)
        self._paced(on_bytes)(size_bytes)
        return size_bytes

    def put(self, key: str, body: Body, *, replace: bool = False, on_bytes: OnBytes = unobserved) -> bool:
        if isinstance(body, FileBody):
            return self.store.put(key, body, replace=replace, on_bytes=self._paced(on_bytes))
        was_written = self.store.put(key, body, replace=replace)
        self._paced(on_bytes)(_size_bytes(body) if was_written else 0)
        return was_written

    def swap(self, key: str, data: bytes, *, expected: Optional[str]) -> str:
        version = self.store.swap(key, data, expected=expected)
        self._pace.take(len(data))
        return version

    def local_path(self, key: str) -> None:
        """A file that is opened directly would bypass the limit."""

    def interrupt(self) -> None:
        self._pace.interrupt()
        self.store.interrupt()

    def resume(self) -> None:
        self._pace.resume()
        self.store.resume()

    def _paced(self, on_bytes: OnBytes) -> OnBytes:
        """Part by part: so the rate is kept inside a file, and what is reported has had its time. A pack is one value:
        without parts nothing would be reported until all of it has had its time."""

        def take(size_bytes: int) -> None:
            for start in range(0, max(size_bytes, 1), _PACED_BYTES):
                part = min(size_bytes - start, _PACED_BYTES)
                self._pace.take(part)
                on_bytes(part)

        return take


def _size_bytes(body: Union[bytes, Sequence[Buffer]]) -> int:
    if isinstance(body, bytes):
        return len(body)
    return sum(memoryview(part).nbytes for part in body)
