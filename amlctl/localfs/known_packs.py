"""The members of the packs that this machine has sent, searched without an object a member: a million of them
take 60 MB, and looking a few up takes milliseconds.

A pack's members are one row of bytes, 25 a member: content id, offset, length, whether it is deflated.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple, Optional

from amlctl.core.manifest import Kind, StoredAt
from amlctl.core.pack import Member

_MEMBER = struct.Struct("<16sIIB")
_ID = 16
_FEW_SEARCHES = 64


class KnownPack(NamedTuple):
    """A pack that was sent, or was about to be. `members` as `member_rows` makes them."""

    pack: str
    size_bytes: int
    members: bytes


def member_rows(members: Sequence[Member]) -> bytes:
    return b"".join(
        _MEMBER.pack(bytes.fromhex(member.content_id), member.offset, member.length, member.is_deflated)
        for member in members
    )


class KnownPacks:
    """Where contents are; the first of `packs` that has one is named. Not thread-safe."""

    def __init__(self, packs: Sequence[KnownPack]) -> None:
        self.packs = packs
        self._searches = 0
        self._sorted: list[bytes] = []

    def place(self, content: str) -> Optional[StoredAt]:
        if not self.packs:
            return None
        wanted = bytes.fromhex(content)
        if self._searches < _FEW_SEARCHES:
            # Reading through everything is faster than sorting it, for a few.
            self._searches += 1
            return self._search(wanted)
        if not self._sorted:
            self._sorted = sorted(
                known.members[at : at + _ID] + number.to_bytes(4, "big") + known.members[at + _ID : at + _MEMBER.size]
                for number, known in enumerate(self.packs)
                for at in range(0, len(known.members), _MEMBER.size)
            )
        at = bisect_left(self._sorted, wanted)
        if at == len(self._sorted) or self._sorted[at][:_ID] != wanted:
            return None
        row = self._sorted[at]
        return _place(self.packs[int.from_bytes(row[_ID : _ID + 4], "big")], row[:_ID] + row[_ID + 4 :])

    def _search(self, wanted: bytes) -> Optional[StoredAt]:
        for known in self.packs:
            at = known.members.find(wanted)
            while at >= 0:
                if at % _MEMBER.size == 0:
                    return _place(known, known.members[at : at + _MEMBER.size])
                at = known.members.find(wanted, at + 1)
        return None


def _place(known: KnownPack, row: bytes) -> StoredAt:
    _, offset, length, is_deflated = _MEMBER.unpack(row)
    return StoredAt(Kind.PACK, known.pack, offset, length, bool(is_deflated))
