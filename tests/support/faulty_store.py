"""A store that forwards everything and lets a test act at each call: raise, end the process, run something else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from amlctl.stores.contract import Body, Entry, Guard, OnBytes, Parts, Store, Traffic, Versioned, unobserved


class Call(NamedTuple):
    """`number` counts from 1 over all threads; a call is reported twice: before it and (`is_done`) after it."""

    number: int
    method: str
    key: str
    is_done: bool


class FaultyStore:
    """Satisfies `Store`. `act` sees every call and may raise, or not return.

    `is_remote`: no value can be opened as a local file, as with a store behind a network.
    """

    def __init__(self, store: Store, act: Callable[[Call], None], *, is_remote: bool = False) -> None:
        self._store = store
        self._act = act
        self._is_remote = is_remote
        self._lock = Lock()
        self.calls: list[Call] = []

    def _before(self, method: str, key: str) -> Call:
        with self._lock:
            call = Call(len(self.calls) + 1, method, key, False)
            self.calls.append(call)
        self._act(call)
        return call

    def _after(self, call: Call) -> None:
        self._act(call._replace(is_done=True))

    @property
    def url(self) -> str:
        return self._store.url

    @property
    def folder(self) -> Path | None:
        return None if self._is_remote else self._store.folder

    @property
    def traffic(self) -> Traffic:
        return self._store.traffic

    @property
    def concurrency(self) -> int:
        return self._store.concurrency

    def check_key(self, key: str) -> None:
        self._store.check_key(key)

    def get(self, key: str, *, start: int = 0, length: int | None = None, on_bytes: OnBytes = unobserved) -> bytes:
        call = self._before("get", key)
        data = self._store.get(key, start=start, length=length, on_bytes=on_bytes)
        self._after(call)
        return data

    def get_versioned(self, key: str) -> Versioned | None:
        call = self._before("get_versioned", key)
        found = self._store.get_versioned(key)
        self._after(call)
        return found

    def download(self, key: str, target: Path, parts: Parts | None = None, *, on_bytes: OnBytes = unobserved) -> int:
        call = self._before("download", key)
        size_bytes = self._store.download(key, target, parts, on_bytes=on_bytes)
        self._after(call)
        return size_bytes

    def put(self, key: str, body: Body, *, replace: bool = False, on_bytes: OnBytes = unobserved) -> bool:
        call = self._before("put", key)
        was_written = self._store.put(key, body, replace=replace, on_bytes=on_bytes)
        self._after(call)
        return was_written

    def swap(self, key: str, data: bytes, *, expected: str | None) -> str:
        call = self._before("swap", key)
        version = self._store.swap(key, data, expected=expected)
        self._after(call)
        return version

    def info(self, key: str) -> Entry | None:
        call = self._before("info", key)
        found = self._store.info(key)
        self._after(call)
        return found

    def list(self, prefix: str) -> Iterator[Entry]:
        """At once, not while it is being looked at: the oldest listing that the contract allows."""
        call = self._before("list", prefix)
        entries = [*self._store.list(prefix)]
        self._after(call)
        return iter(entries)

    def folders(self, prefix: str) -> Sequence[str]:
        call = self._before("folders", prefix)
        found = self._store.folders(prefix)
        self._after(call)
        return found

    def in_the_way(self, key: str) -> Sequence[str]:
        call = self._before("in_the_way", key)
        found = self._store.in_the_way(key)
        self._after(call)
        return found

    def delete(self, key: str, *, guard: Guard | None = None) -> None:
        call = self._before("delete", key)
        self._store.delete(key, guard=guard)
        self._after(call)

    def sweep(self, older_than_s: float) -> int:
        call = self._before("sweep", "")
        removed = self._store.sweep(older_than_s)
        self._after(call)
        return removed

    def local_path(self, key: str) -> Path | None:
        call = self._before("local_path", key)
        found = None if self._is_remote else self._store.local_path(key)
        self._after(call)
        return found

    def interrupt(self) -> None:
        self._store.interrupt()

    def resume(self) -> None:
        self._store.resume()
