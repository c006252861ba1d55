"""`Store`: where bytes live by key, and what every implementation guarantees.

Keys are relative POSIX paths: no empty part, no `.` or `..`, no NUL. Guarantees:

- A key shows either nothing or a whole value: no reader ever sees a part of a write.
- What was written is there for the next reader, of any process, at once, and survives a crash of the writer.
- `put` without `replace` is create-if-absent: an existing value is kept, no error, and no large body is sent.
- `swap` is the only conditional write; of two writers with the same expectation exactly one succeeds.
- All methods may be called from several threads at once. Retries, where a service needs them, happen inside.

A key that a store cannot have is a SettingsError of each method that is given it.

Errors are those of `amlctl.errors` only: NotFound, Conflict, RightsError, LoginError, SettingsError,
ServiceUnavailable (network, service, full disk), Interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Callable, NamedTuple, Optional, Protocol, Union

Buffer = Union[bytes, bytearray, memoryview]


OnBytes = Callable[[int], None]
"""Gets how many more bytes of a value have moved: to the service, or from it. Negative where a request that had moved
so many has to be made again; bytes that need not move count as well. From any thread, while the bytes move, and perhaps
of fewer than all."""


def unobserved(size_bytes: int) -> None:
    """Not observed."""


def always() -> None:
    """Nothing stands in the way."""


@dataclass(frozen=True)
class FileBody:
    """Bytes of a local file, sent without being held in memory.

    Nothing appears in the store where the file turns out to have other bytes than `content_id` says, or
    cannot be read any more: Conflict. `predecessor` is the key of an earlier version of the file: where a store
    can, it sends only what differs. `same_as` is the key of a value with just these bytes: where a store can, it copies
    that, and no bytes travel. `is_sent_whole`: nothing that the store has of it is used, since it was found damaged.
    `may_go_on` is asked again and again, at last shortly before the value would appear; where it raises, it does not.
    """

    path: Path
    size_bytes: int
    content_id: str
    predecessor: Optional[str] = None
    same_as: Optional[str] = None
    is_sent_whole: bool = False
    may_go_on: Callable[[], None] = field(default=always, compare=False)


class Buffers(list[Buffer]):
    """Several in a row whose memory is used again. `release` is called, in their order, with how many further bytes
    have arrived and are not needed any more."""

    def __init__(self, buffers: Sequence[Buffer], release: Callable[[int], None]) -> None:
        super().__init__(buffers)
        self.release = release


Body = Union[bytes, Sequence[Buffer], FileBody]
"""What can be sent: bytes, several buffers that follow each other, or a file."""


class Entry(NamedTuple):
    """A stored value as a listing shows it; `modified_at` in seconds since 1970 UTC.

    `content_id` of a mirrored file, where the store knows it; empty: only reading the value tells.
    """

    key: str
    size_bytes: int
    modified_at: float
    content_id: str = ""


class Guard(NamedTuple):
    """A lease under which values are deleted: that of `key`.

    `check` raises where the lease is lost; the caller asks it before each deletion. A store that can looks at the value
    of `key` (None: missing) in one step with the deletion, and raises what `lost` gives where it does not `hold`.
    """

    key: str
    check: Callable[[], None]
    holds: Callable[[Optional[bytes]], bool]
    lost: Callable[[], Exception]


class Versioned(NamedTuple):
    """A value with the tag that `swap` compares."""

    data: bytes
    version: str


@dataclass
class Traffic:
    """What went over the wire: requests, and bytes of bodies. Thread-safe to add to."""

    requests: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    def add(self, *, requests: int = 1, sent_bytes: int = 0, received_bytes: int = 0) -> None:
        with self._lock:
            self.requests += requests
            self.sent_bytes += sent_bytes
            self.received_bytes += received_bytes


class Parts(Protocol):
    """Which stretches of a value a file has, from `start` on, in bytes. Called from several threads."""

    def has(self, start: int, length: int) -> bool: ...

    def arrived(self, start: int, length: int) -> None:
        """The bytes are in the file."""
        ...


class Store(Protocol):
    """See the module's docstring for the guarantees."""

    @property
    def url(self) -> str:
        """Names the store for people and for local state; holds no secret."""
        ...

    @property
    def folder(self) -> Optional[Path]:
        """The folder of this machine that is the store; None for one behind a network."""
        ...

    @property
    def traffic(self) -> Traffic: ...

    @property
    def concurrency(self) -> int:
        """Recommended number of concurrent small requests."""
        ...

    def check_key(self, key: str) -> None:
        """Raises SettingsError where no value can have that name here; makes no request."""
        ...

    def get(self, key: str, *, start: int = 0, length: Optional[int] = None, on_bytes: OnBytes = unobserved) -> bytes:
        """The value, or `length` bytes of it from `start`. Raises NotFound."""
        ...

    def get_versioned(self, key: str) -> Optional[Versioned]:
        """The value and its version; None if it does not exist."""
        ...

    def download(self, key: str, target: Path, parts: Optional[Parts] = None, *, on_bytes: OnBytes = unobserved) -> int:
        """Write the value to the file `target`, whose mode is kept; returns its size in bytes. Raises NotFound.

        With `parts`, what `target` has of the value already need not be asked for again.
        """
        ...

    def put(self, key: str, body: Body, *, replace: bool = False, on_bytes: OnBytes = unobserved) -> bool:
        """Write a value; False where it existed already and `replace` was not asked for."""
        ...

    def swap(self, key: str, data: bytes, *, expected: Optional[str]) -> str:
        """Write if the present version is `expected` (None: it does not exist yet); the new version.

        Raises Conflict where it is not.
        """
        ...

    def info(self, key: str) -> Optional[Entry]:
        """Size and age of a value; None if it does not exist."""
        ...

    def list(self, prefix: str) -> Iterator[Entry]:
        """Every value whose key begins with `prefix` (which is empty or ends with `/`), in no order."""
        ...

    def folders(self, prefix: str) -> Sequence[str]:
        """Names directly below `prefix` (as of `list`) that have values below them, in no order: what takes a listing
        of every value otherwise."""
        ...

    def in_the_way(self, key: str) -> Sequence[str]:
        """Keys of values that exclude `key`: in a folder those below it, or a file where a folder has to be."""
        ...

    def delete(self, key: str, *, guard: Optional[Guard] = None) -> None:
        """Remove a value; one that is not there is not an error. With a `guard` only while that holds."""
        ...

    def sweep(self, older_than_s: float) -> int:
        """Remove what killed writers have left behind under no key; how many. 0 where a service does that itself."""
        ...

    def local_path(self, key: str) -> Optional[Path]:
        """Where this machine can open the value as a file, if it can. The file must not be changed."""
        ...

    def interrupt(self) -> None:
        """Calls that wait for a network or a bandwidth limit, in any thread, and those that come until `resume`, raise
        Interrupted at once. A store that waits for neither need not do anything."""
        ...

    def resume(self) -> None: ...


class Links(Protocol):
    """Makes links that need no account, and hold `until` a certain time."""

    until: datetime

    def copy(self, source: str, key: str) -> None:
        """Within the service. Raises RightsError."""
        ...

    def link(self, key: str, media_type: str) -> str:
        """To read one value, as that type of media. It is a secret."""
        ...


class PlainFile(NamedTuple):
    """`path` is relative to what was listed."""

    path: str
    size_bytes: int


class PlainFiles(Protocol):
    """Files that others have put beside a store. Thread-safe. `prefix` is what `sync --adopt` takes for them."""

    url: str
    prefix: str

    def files(self) -> Sequence[PlainFile]:
        """In no order; those of the store itself are left out."""
        ...

    def read(self, file: PlainFile, here: Optional[Path]) -> tuple[str, str]:
        """Its content id, and the version that was read. `here` is a file of this machine that may have the same bytes:
        where the service has a checksum that says so, nothing is downloaded. Raises Conflict (it changes), NotFound."""
        ...

    def copy(self, file: PlainFile, version: str, key: str, content_id: str) -> None:
        """Make it the value of `key` in the store, without sending it. Raises Conflict if it is another version."""
        ...


def is_valid_key(key: str) -> bool:
    return "\0" not in key and all(part not in ("", ".", "..") for part in key.split("/"))
