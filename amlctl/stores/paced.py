"""A store behind a limit of bandwidth: each transfer waits for its turn, so that the average keeps the rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Optional

from amlctl.stores.contract import Body, Entry, FileBody, Store, Traffic, Versioned


class PacedStore:
    """Satisfies `Store`. `bytes_per_s` holds for both directions together, over all threads."""

    def __init__(
        self,
        store: Store,
        bytes_per_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._sleep = sleep
        self._lock = Lock()
        self._free_at_s = 0.0

    def _pace(self, size_bytes: int) -> None:
        """Take the line for as long as `size_bytes` need, after those who took it before."""
        with self._lock:
            now_s = self._clock()
            start_s = max(now_s, self._free_at_s)
            self._free_at_s = start_s + size_bytes / self._bytes_per_s
            wait_s = self._free_at_s - now_s
        if wait_s > 0:
            self._sleep(wait_s)

    @property
    def url(self) -> str:
        return self._store.url

    @property
    def traffic(self) -> Traffic:
        return self._store.traffic

    def get(self, key: str, *, start: int = 0, length: Optional[int] = None) -> bytes:
        data = self._store.get(key, start=start, length=length)
        self._pace(len(data))
        return data

    def get_versioned(self, key: str) -> Optional[Versioned]:
        found = self._store.get_versioned(key)
        self._pace(len(found.data) if found else 0)
        return found

    def download(self, key: str, target: Path) -> int:
        size_bytes = self._store.download(key, target)
        self._pace(size_bytes)
        return size_bytes

    def put(self, key: str, body: Body, *, replace: bool = False) -> bool:
        was_written = self._store.put(key, body, replace=replace)
        self._pace(_size_bytes(body) if was_written else 0)
        return was_written

    def swap(self, key: str, data: bytes, *, expected: Optional[str]) -> str:
        version = self._store.swap(key, data, expected=expected)
        self._pace(len(data))
        return version

    def info(self, key: str) -> Optional[Entry]:
        return self._store.info(key)

    def list(self, prefix: str) -> Iterator[Entry]:
        return self._store.list(prefix)

    def delete(self, key: str) -> None:
        self._store.delete(key)

    def sweep(self, older_than_s: float) -> int:
        return self._store.sweep(older_than_s)

    def local_path(self, key: str) -> Optional[Path]:
        """None: a file that is opened directly would pass the limit by."""
        return None


def _size_bytes(body: Body) -> int:
    if isinstance(body, FileBody):
        return body.size_bytes
    if isinstance(body, bytes):
        return len(body)
    return sum(memoryview(part).nbytes for part in body)
