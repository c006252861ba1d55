"""A folder store behind a limit of bandwidth: each transfer waits for its turn, so that the average keeps the rate.

A store that speaks to a network itself keeps a `Pace` while it sends; this is for one that does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace as replace_fields
from pathlib import Path
from typing import Optional, Union

from amlctl.stores.contract import Body, Buffer, Draft, Entry, FileBody, Guard, Parts, Store, Traffic, Versioned
from amlctl.stores.kept_draft import KeptDraft
from amlctl.stores.pace import Pace


class PacedStore:
    """Satisfies `Store`."""

    def __init__(self, store: Store, pace: Pace) -> None:
        self._store = store
        self._pace = pace

    @property
    def url(self) -> str:
        return self._store.url

    @property
    def traffic(self) -> Traffic:
        return self._store.traffic

    @property
    def concurrency(self) -> int:
        return self._store.concurrency

    def check_key(self, key: str) -> None:
        self._store.check_key(key)

    def get(self, key: str, *, start: int = 0, length: Optional[int] = None) -> bytes:
        data = self._store.get(key, start=start, length=length)
        self._pace.take(len(data))
        return data

    def get_versioned(self, key: str) -> Optional[Versioned]:
        found = self._store.get_versioned(key)
        self._pace.take(len(found.data) if found else 0)
        return found

    def download(self, key: str, target: Path, parts: Optional[Parts] = None) -> int:
        size_bytes = self._store.download(key, target, parts)
        self._pace.take(size_bytes)
        return size_bytes

    def put(self, key: str, body: Body, *, replace: bool = False) -> bool:
        if isinstance(body, FileBody):
            return self._store.put(key, replace_fields(body, on_bytes=self._paced(body.on_bytes)), replace=replace)
        was_written = self._store.put(key, body, replace=replace)
        self._pace.take(_size_bytes(body) if was_written else 0)
        return was_written

    def _paced(self, on_bytes: Callable[[int], None]) -> Callable[[int], None]:
        """Part by part: so the rate is kept inside a file, and what is told has had its time."""

        def take(size_bytes: int) -> None:
            self._pace.take(size_bytes)
            on_bytes(size_bytes)

        return take

    def draft(self) -> Draft:
        return KeptDraft(self)

    def swap(self, key: str, data: bytes, *, expected: Optional[str]) -> str:
        version = self._store.swap(key, data, expected=expected)
        self._pace.take(len(data))
        return version

    def info(self, key: str) -> Optional[Entry]:
        return self._store.info(key)

    def list(self, prefix: str) -> Iterator[Entry]:
        return self._store.list(prefix)

    def in_the_way(self, key: str) -> Sequence[str]:
        return self._store.in_the_way(key)

    def delete(self, key: str, *, guard: Optional[Guard] = None) -> None:
        self._store.delete(key, guard=guard)

    def sweep(self, older_than_s: float) -> int:
        return self._store.sweep(older_than_s)

    def local_path(self, key: str) -> Optional[Path]:
        """None: a file that is opened directly would pass the limit by."""
        return None

    def interrupt(self) -> None:
        self._pace.interrupt()
        self._store.interrupt()

    def resume(self) -> None:
        self._pace.resume()
        self._store.resume()


def _size_bytes(body: Union[bytes, Sequence[Buffer]]) -> int:
    if isinstance(body, bytes):
        return len(body)
    return sum(memoryview(part).nbytes for part in body)
