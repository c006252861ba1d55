"""New small files go into packs while they are hashed: read once, and straight to their place in the pack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from amlctl.core.manifest import FileEntry, Manifest, StoredAt
from amlctl.core.sync_plan import Known, Layout
from amlctl.snapshots.known import KnownContents
from amlctl.snapshots.pack_sender import PackSender


class EarlyPacks:
    """Satisfies `Taker`. `stored` tells what is there already; it is asked when a small file has turned up."""

    def __init__(
        self, sender: PackSender, layout: Layout, stored: Callable[[], tuple[Manifest, KnownContents]]
    ) -> None:
        self._sender = sender
        self._below_bytes = layout.pack_below
        self._stored = stored
        self._is_asked = False

    def room(self, path: str, size_bytes: int) -> memoryview | None:
        return self._sender.room(path, size_bytes) if size_bytes <= self._below_bytes else None

    def take(self, entry: FileEntry, data: memoryview) -> None:
        if entry.size_bytes >= self._below_bytes:
            return
        if not self._is_asked:
            self._head, self._known = self._stored()
            self._is_asked = True
        if entry.content_id not in self._head.places and self._known.packed(entry.content_id) is None:
            self._sender.keep(entry)


def also_packed(known: KnownContents, sender: PackSender) -> Known:
    """What is known, and what was packed while it was hashed."""

    def look_up(entries: Sequence[FileEntry]) -> Mapping[str, StoredAt]:
        rest = [entry for entry in entries if entry.content_id not in sender.places]
        return {**sender.places, **known(rest)} if rest else sender.places

    return look_up
