"""A store whose manifests stay on this disk once they were seen: they never change, and are named by their content."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Optional

from amlctl.core.content_id import content_id
from amlctl.core.document import gunzip
from amlctl.core.store_keys import is_manifest_file
from amlctl.localfs.bounded_folder import BoundedFolder
from amlctl.stores.contract import Body, Draft, Entry, Guard, Parts, Store, Traffic, Versioned

_LIMIT_BYTES = 64 << 20


class CachedStore:
    """Satisfies `Store`. `get` of a manifest file or a shard answers from `folder`, without a request, where it can.

    A copy counts only if its content is what its name says. Others may have deleted the value meanwhile: whoever
    wants to know what the store itself has asks `store`.
    """

    def __init__(self, store: Store, folder: Path, *, limit_bytes: int = _LIMIT_BYTES) -> None:
        self.store = store
        self._copies = BoundedFolder(folder, limit_bytes)

    @property
    def url(self) -> str:
        return self.store.url

    @property
    def traffic(self) -> Traffic:
        return self.store.traffic

    @property
    def concurrency(self) -> int:
        return self.store.concurrency

    def check_key(self, key: str) -> None:
        self.store.check_key(key)

    def get(self, key: str, *, start: int = 0, length: Optional[int] = None) -> bytes:
        if start or not is_manifest_file(key):
            return self.store.get(key, start=start, length=length)
        name = _name(key)
        data = self._copies.get(name)
        if data is None or not _is_whole(name, data):
            data = self.store.get(key, length=length)
            self._keep(name, data)
        return data if length is None else data[:length]

    def get_versioned(self, key: str) -> Optional[Versioned]:
        return self.store.get_versioned(key)

    def download(self, key: str, target: Path, parts: Optional[Parts] = None) -> int:
        return self.store.download(key, target, parts)

    def put(self, key: str, body: Body, *, replace: bool = False) -> bool:
        was_written = self.store.put(key, body, replace=replace)
        if is_manifest_file(key) and isinstance(body, bytes):
            self._keep(_name(key), body)
        return was_written

    def draft(self) -> Draft:
        return self.store.draft()

    def swap(self, key: str, data: bytes, *, expected: Optional[str]) -> str:
        return self.store.swap(key, data, expected=expected)

    def info(self, key: str) -> Optional[Entry]:
        return self.store.info(key)

    def list(self, prefix: str) -> Iterator[Entry]:
        return self.store.list(prefix)

    def in_the_way(self, key: str) -> Sequence[str]:
        return self.store.in_the_way(key)

    def delete(self, key: str, *, guard: Optional[Guard] = None) -> None:
        self.store.delete(key, guard=guard)
        if is_manifest_file(key):
            self._copies.forget(_name(key))

    def sweep(self, older_than_s: float) -> int:
        return self.store.sweep(older_than_s)

    def local_path(self, key: str) -> Optional[Path]:
        return self.store.local_path(key)

    def interrupt(self) -> None:
        self.store.interrupt()

    def resume(self) -> None:
        self.store.resume()

    def _keep(self, name: str, data: bytes) -> None:
        if _is_whole(name, data):
            self._copies.put(name, data)


def _name(key: str) -> str:
    return key.rpartition("/")[2]


def _is_whole(name: str, data: bytes) -> bool:
    """A manifest's name carries the id of the file, a shard's name that of what is packed in it."""
    snapshot, _, identity = name[: -len(".gz")].rpartition("-")
    try:
        return content_id(data if snapshot else gunzip(data)) == identity
    except ValueError:
        return False
