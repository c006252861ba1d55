"""Packs: plain zip files of many small contents, built in memory from one ordered list.

The zip is the ordinary one (PKWARE APPNOTE 6.3.10): members stored or deflated, sizes in the local header, no
zip64, all times 1980-01-01, so that one list of contents always gives the same bytes. Member names are the
first path of a content, for people; the manifest knows a member by its offset.

A member is deflated only where that pays. A sample of a member tells; and since files of one kind are alike,
a kind (the suffix of the name) that did not pay several times in a row is tried only now and then.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from amlctl.core.content_id import ContentHasher, ContentId

MAX_MEMBERS = 65_000
"""Below the 65,535 that a zip without zip64 can count."""
SAMPLE_BYTES = 4096
WORTH = 0.9
"""A member is deflated where that leaves at most this part of it."""
_TRIALS_IN_A_ROW = 4
_TRY_EVERY = 32
_DOS_DATE_1980 = 0x21
_UTF8_NAME = 0x800
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_LOCAL_AND_CENTRAL = _LOCAL.size + _CENTRAL.size


class Compressor(Protocol):
    """What a pack needs of a deflate library."""

    def crc32(self, data: bytes) -> int: ...

    def deflate(self, data: bytes) -> bytes:
        """Raw deflate (RFC 1951)."""
        ...


class Zlib:
    """The standard library's deflate: there on every node."""

    def crc32(self, data: bytes) -> int:
        return zlib.crc32(data)

    def deflate(self, data: bytes) -> bytes:
        deflater = zlib.compressobj(1, zlib.DEFLATED, -15)
        return deflater.compress(data) + deflater.flush()


class Member(NamedTuple):
    """One content in a pack: `length` stored bytes from `offset`."""

    content_id: ContentId
    offset: int
    length: int
    is_deflated: bool


class Pack(NamedTuple):
    """A finished pack: its id (content id of the whole zip), its bytes as buffers that follow each other."""

    id: str
    buffers: Sequence[bytes]
    size_bytes: int
    members: Sequence[Member]


class PackBuilder:
    """Takes contents in order until it is full. Not thread-safe."""

    def __init__(self, pack_size: int, compressor: Compressor) -> None:
        """`pack_size`: bytes after which a pack is full; a pack exceeds it by less than its last member."""
        self._pack_size = pack_size
        self._compressor = compressor
        self._start()

    def _start(self) -> None:
        self._buffers: list[bytes] = []
        self._central: list[bytes] = []
        self._members: list[Member] = []
        self._names: set[bytes] = set()
        self._offset = 0
        self._misses: dict[str, int] = {}

    @property
    def is_empty(self) -> bool:
        return not self._members

    @property
    def is_full(self) -> bool:
        return self._offset >= self._pack_size or len(self._members) >= MAX_MEMBERS

    def add(self, content_id: ContentId, path: str, data: bytes) -> None:
        """Append a content under the name of `path`. The caller adds each content once."""
        crc = self._compressor.crc32(data)
        stored, is_deflated = self._pay(path, data)
        name = self._name(path, content_id)
        fields = (
            20,
            _UTF8_NAME,
            8 if is_deflated else 0,
            0,
            _DOS_DATE_1980,
            crc,
            len(stored),
            len(data),
            len(name),
        )
        header = _LOCAL.pack(b"PK\3\4", *fields, 0) + name
        self._central.append(_CENTRAL.pack(b"PK\1\2", 20, *fields, 0, 0, 0, 0, 0, self._offset) + name)
        self._members.append(Member(content_id, self._offset + len(header), len(stored), is_deflated))
        self._buffers += (header, stored)
        self._offset += len(header) + len(stored)

    def finish(self) -> Pack:
        """The pack of all that was added; the builder starts anew."""
        central = b"".join(self._central)
        count = len(self._members)
        self._buffers += (central, _END.pack(b"PK\5\6", 0, 0, count, count, len(central), self._offset, 0))
        hasher = ContentHasher()
        for buffer in self._buffers:
            hasher.update(buffer)
        size = self._offset + len(central) + _END.size
        pack = Pack(hasher.content_id(), self._buffers, size, self._members)
        self._start()
        return pack

    def _pay(self, path: str, data: bytes) -> tuple[bytes, bool]:
        """The bytes to store, and whether they are deflated."""
        kind = path[path.rfind(".") :] if "." in path[-12:] else ""
        misses = self._misses.get(kind, 0)
        if len(data) < 64 or (misses >= _TRIALS_IN_A_ROW and misses % _TRY_EVERY):
            self._misses[kind] = misses + 1
            return data, False
        sample = data[:SAMPLE_BYTES]
        deflated = self._compressor.deflate(sample)
        if len(deflated) <= WORTH * len(sample):
            if len(sample) < len(data):
                deflated = self._compressor.deflate(data)
            if len(deflated) <= WORTH * len(data):
                self._misses[kind] = 0
                return deflated, True
        self._misses[kind] = misses + 1
        return data, False

    def _name(self, path: str, content_id: ContentId) -> bytes:
        """A name that every unzip takes: no escape out of the folder, valid UTF-8, not there twice."""
        text = path.encode("utf-8", "surrogateescape").decode("utf-8", "replace").replace("\\", "_")
        if not text.isprintable():
            text = "".join(c if c.isprintable() else "_" for c in text)
        name = text.encode()
        if name in self._names or len(name) > 1000:
            name = name[:900].decode("utf-8", "ignore").encode() + b"~" + content_id.encode()
        self._names.add(name)
        return name


def local_size(path: str, size_bytes: int) -> int:
    """Bytes by which a member that is not deflated fills a pack: all but its line in the central directory."""
    return size_bytes + _LOCAL.size + len(path.encode("utf-8", "surrogateescape"))


def stored_size(path: str, size_bytes: int) -> int:
    """Bytes that a member takes in a pack where it is not deflated."""
    return size_bytes + _LOCAL_AND_CENTRAL + 2 * len(path.encode("utf-8", "surrogateescape"))


def inflate(data: bytes, is_deflated: bool) -> bytes:
    """The content of a member's stored bytes. Raises zlib.error."""
    return zlib.decompress(data, -15) if is_deflated else data
