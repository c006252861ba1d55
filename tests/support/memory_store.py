"""A store in memory that keeps the promises of `stores/contract.py`; copying its values copies the whole store.

A version is the hash of the value, as in a folder store: the weaker of the two kinds that stores have, since a value
that was changed and changed back has its old version again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import xxhash

from amlctl.core.content_id import content_id
from amlctl.errors import Conflict, NotFound, SettingsError
from amlctl.stores.contract import (
    Body,
    Entry,
    FileBody,
    Guard,
    OnBytes,
    Parts,
    Traffic,
    Versioned,
    is_valid_key,
    unobserved,
)


class Value(NamedTuple):
    """Bytes, and when they were written in seconds since 1970."""

    data: bytes
    modified_at: float


class MemoryStore:
    """Satisfies `Store`. Thread-safe. `values` is the whole state, by key.

    `is_folder`: as in a folder of a disk, there cannot be a value `a` beside a value `a/b`, and a deletion looks at its
    guard.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        values: dict[str, Value] | None = None,
        name: str = "store",
        *,
        is_folder: bool = False,
    ) -> None:
        self._clock = clock
        self.values: dict[str, Value] = {} if values is None else values
        self._name = name
        self._is_folder = is_folder
        self._traffic = Traffic()
        self._lock = Lock()

    @property
    def url(self) -> str:
        return f"memory://{self._name}"

    @property
    def folder(self) -> None:
        return None

    @property
    def traffic(self) -> Traffic:
        return self._traffic

    @property
    def concurrency(self) -> int:
        return 4

    def check_key(self, key: str) -> None:
        if not is_valid_key(key):
            raise SettingsError(f"{key!r} is not a key of a store")

    def get(self, key: str, *, start: int = 0, length: int | None = None, on_bytes: OnBytes = unobserved) -> bytes:
        self.check_key(key)
        value = self.values.get(key)
        if value is None:
            raise NotFound(f"{key} is not in the store {self.url}")
        data = value.data[start : None if length is None else start + length]
        self._traffic.add(received_bytes=len(data))
        on_bytes(len(data))
        return data

    def get_versioned(self, key: str) -> Versioned | None:
        try:
            data = self.get(key)
        except NotFound:
            return None
        return Versioned(data, _version(data))

    def download(self, key: str, target: Path, parts: Parts | None = None, *, on_bytes: OnBytes = unobserved) -> int:
        data = self.get(key, on_bytes=on_bytes)
        with target.open("r+b" if target.exists() else "wb") as file:
            file.write(data)
            file.truncate()
        if parts is not None:
            parts.arrived(0, len(data))
        return len(data)

    def put(self, key: str, body: Body, *, replace: bool = False, on_bytes: OnBytes = unobserved) -> bool:
        self.check_key(key)
        self._traffic.add()
        if not replace and key in self.values:
            return False
        data = whole(body)
        on_bytes(len(data))
        return self.write(key, data, replace=replace)

    def write(self, key: str, data: bytes, *, replace: bool) -> bool:
        """As `put`, of a body that is in memory."""
        with self._lock:
            if not replace and key in self.values:
                return False
            if found := self._in_the_way(key):
                raise SettingsError(f"{self.url} cannot hold {key}: {found[0]} is in the way")
            self.values[key] = Value(data, self._clock())
        self._traffic.add(requests=0, sent_bytes=len(data))
        return True

    def swap(self, key: str, data: bytes, *, expected: str | None) -> str:
        self.check_key(key)
        self._traffic.add(sent_bytes=len(data))
        with self._lock:
            present = self.values.get(key)
            if (None if present is None else _version(present.data)) != expected:
                raise Conflict(f"{key} in {self.url} was changed by someone else", hint="run the command again")
            self.values[key] = Value(data, self._clock())
        return _version(data)

    def info(self, key: str) -> Entry | None:
        self.check_key(key)
        self._traffic.add()
        value = self.values.get(key)
        return None if value is None else _entry(key, value)

    def list(self, prefix: str) -> Iterator[Entry]:
        self._traffic.add()
        with self._lock:
            found = [_entry(key, value) for key, value in self.values.items() if key.startswith(prefix)]
        return iter(sorted(found))

    def folders(self, prefix: str) -> Sequence[str]:
        keys = [entry.key[len(prefix) :] for entry in self.list(prefix)]
        return sorted({key.partition("/")[0] for key in keys if "/" in key})

    def in_the_way(self, key: str) -> Sequence[str]:
        with self._lock:
            return self._in_the_way(key)

    def _in_the_way(self, key: str) -> Sequence[str]:
        if not self._is_folder:
            return ()
        above = [key[:at] for at, letter in enumerate(key) if letter == "/"]
        below = [other for other in self.values if other.startswith(f"{key}/")]
        return [other for other in above if other in self.values] + below

    def delete(self, key: str, *, guard: Guard | None = None) -> None:
        self.check_key(key)
        self._traffic.add()
        with self._lock:
            if guard is not None and self._is_folder:
                held = self.values.get(guard.key)
                if not guard.holds(None if held is None else held.data):
                    raise guard.lost()
            self.values.pop(key, None)

    def sweep(self, older_than_s: float) -> int:
        return 0

    def local_path(self, key: str) -> Path | None:
        return None

    def interrupt(self) -> None:
        """Memory answers at once."""

    def resume(self) -> None:
        """Nothing was interrupted."""


def whole(body: Body) -> bytes:
    """The bytes of a body, checked as `FileBody` asks for. Raises Conflict."""
    if isinstance(body, bytes):
        return body
    if not isinstance(body, FileBody):
        return b"".join(body)
    try:
        data = body.path.read_bytes()
    except OSError as error:
        raise Conflict(f"{body.path} cannot be read any more: {error.strerror}") from error
    if content_id(data) != body.content_id:
        raise Conflict(f"{body.path} changed while it was sent")
    body.may_go_on()
    return data


def _version(data: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(data)


def _entry(key: str, value: Value) -> Entry:
    # A mirror's listing tells content ids, as a blob store's does.
    return Entry(key, len(value.data), value.modified_at, content_id(value.data) if key.startswith("mirror/") else "")
