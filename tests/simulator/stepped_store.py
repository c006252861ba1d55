"""The store as one actor sees it: each call that reads or writes a value is a step of the scheduler."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from amlctl.stores.contract import Body, Entry, Guard, OnBytes, Parts, Traffic, Versioned, unobserved
from tests.simulator.scheduler import Actor, Scheduler
from tests.support.memory_store import MemoryStore, whole


class SteppedStore:
    """Satisfies `Store`."""

    def __init__(self, store: MemoryStore, scheduler: Scheduler, actor: Actor, swapped: Callable[[str], None]) -> None:
        """`swapped` is told of each key that was swapped."""
        self._store = store
        self._swapped = swapped
        self._scheduler = scheduler
        self._actor = actor

    @property
    def url(self) -> str:
        return self._store.url

    @property
    def folder(self) -> None:
        return None

    @property
    def traffic(self) -> Traffic:
        return self._store.traffic

    @property
    def concurrency(self) -> int:
        return self._store.concurrency

    def check_key(self, key: str) -> None:
        self._store.check_key(key)

    def get(self, key: str, *, start: int = 0, length: int | None = None, on_bytes: OnBytes = unobserved) -> bytes:
        with self._scheduler.call(self._actor, "get", key):
            return self._store.get(key, start=start, length=length, on_bytes=on_bytes)

    def get_versioned(self, key: str) -> Versioned | None:
        with self._scheduler.call(self._actor, "get", key):
            return self._store.get_versioned(key)

    def download(self, key: str, target: Path, parts: Parts | None = None, *, on_bytes: OnBytes = unobserved) -> int:
        with self._scheduler.call(self._actor, "get", key):
            return self._store.download(key, target, parts, on_bytes=on_bytes)

    def put(self, key: str, body: Body, *, replace: bool = False, on_bytes: OnBytes = unobserved) -> bool:
        with self._scheduler.call(self._actor, "put", key):
            self._store.check_key(key)
            if not replace and key in self._store.values:
                return False
            # `may_go_on` is asked in the same step as the effect: the contract says "shortly before".
            data = whole(body)
            on_bytes(len(data))
            return self._store.write(key, data[: len(data) // 2] if self._scheduler.is_cut else data, replace=replace)

    def swap(self, key: str, data: bytes, *, expected: str | None) -> str:
        with self._scheduler.call(self._actor, "swap", key):
            version = self._store.swap(key, data, expected=expected)
            self._swapped(key)
            return version

    def info(self, key: str) -> Entry | None:
        with self._scheduler.call(self._actor, "info", key):
            return self._store.info(key)

    def list(self, prefix: str) -> Iterator[Entry]:
        with self._scheduler.call(self._actor, "list", prefix):
            return self._store.list(prefix)

    def folders(self, prefix: str) -> Sequence[str]:
        with self._scheduler.call(self._actor, "list", prefix):
            return self._store.folders(prefix)

    def in_the_way(self, key: str) -> Sequence[str]:
        with self._scheduler.call(self._actor, "info", key):
            return self._store.in_the_way(key)

    def delete(self, key: str, *, guard: Guard | None = None) -> None:
        with self._scheduler.call(self._actor, "delete", key):
            self._store.delete(key, guard=guard)

    def sweep(self, older_than_s: float) -> int:
        return self._store.sweep(older_than_s)

    def local_path(self, key: str) -> Path | None:
        return None

    def interrupt(self) -> None:
        """Memory answers at once."""

    def resume(self) -> None:
        """Nothing was interrupted."""
