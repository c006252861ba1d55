"""Read contents back from a store, verified: members of packs, objects, mirrored files."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

from amlctl.core.content_id import content_id
from amlctl.core.manifest import FileEntry, Manifest, Place, mirror_key, object_key, pack_key
from amlctl.core.pack import inflate
from amlctl.errors import IntegrityError
from amlctl.stores.contract import Store

_GAP_BYTES = 256 << 10
"""Members of a pack nearer than this come with one request: its round trip costs more than the bytes between."""


def damaged(path: str, where: str) -> IntegrityError:
    return IntegrityError(
        f"the store's copy of {path} is damaged ({where})",
        hint="amlctl sync --repair PATH, where a good copy is on this machine",
    )


def place_key(manifest: Manifest, entry: FileEntry, place: Place) -> str:
    if place.kind == "pack":
        return pack_key(place.pack)
    return object_key(entry.content_id) if place.kind == "object" else mirror_key(manifest.dataset, entry.path)


def read_content(store: Store, manifest: Manifest, entry: FileEntry) -> bytes:
    """One content as bytes in memory. Raises NotFound, IntegrityError."""
    place = manifest.places[entry.content_id]
    key = place_key(manifest, entry, place)
    if place.kind == "pack":
        stored = store.get(key, start=place.offset, length=place.length)
        return bytes(checked(entry, stored, place))
    data = store.get(key)
    if content_id(data) != entry.content_id:
        raise damaged(entry.path, key)
    return data


def checked(entry: FileEntry, stored: bytes | memoryview, place: Place) -> bytes | memoryview:
    """The content of a member's stored bytes. Raises IntegrityError."""
    try:
        data = inflate(bytes(stored), True) if place.is_deflated else stored
    except zlib.error as error:
        raise damaged(entry.path, f"packs/{place.pack}") from error
    if content_id(data) != entry.content_id:
        raise damaged(entry.path, f"packs/{place.pack}")
    return data


def read_members(
    store: Store, pack: str, pack_size: int, wanted: Sequence[tuple[FileEntry, Place]]
) -> Iterator[tuple[FileEntry, Place, memoryview]]:
    """Stored bytes of some members of one pack: from the local file, the whole pack, or ranges of it.

    Raises NotFound, IntegrityError (the pack is shorter than it was).
    """
    key = pack_key(pack)
    in_order = sorted(wanted, key=lambda item: item[1].offset)
    local = store.local_path(key)
    if local is not None:
        # A plain read: as fast as a map on a cached file, and a pack that shrinks under it is no SIGBUS.
        yield from _cut(local.read_bytes(), 0, in_order)
        return
    if 2 * sum(place.length for _, place in in_order) >= pack_size:
        yield from _cut(store.get(key), 0, in_order)
        return
    for group in _near_groups(in_order):
        start = group[0][1].offset
        end = max(place.offset + place.length for _, place in group)
        yield from _cut(store.get(key, start=start, length=end - start), start, group)


def _cut(
    data: bytes, start: int, members: Sequence[tuple[FileEntry, Place]]
) -> Iterator[tuple[FileEntry, Place, memoryview]]:
    view = memoryview(data)
    for entry, place in members:
        at = place.offset - start
        if at + place.length > len(data):
            raise damaged(entry.path, f"packs/{place.pack}")
        yield entry, place, view[at : at + place.length]


def _near_groups(members: Sequence[tuple[FileEntry, Place]]) -> Iterator[list[tuple[FileEntry, Place]]]:
    group: list[tuple[FileEntry, Place]] = []
    end = 0
    for member in members:
        place = member[1]
        if group and place.offset - end > _GAP_BYTES:
            yield group
            group = []
        group.append(member)
        end = place.offset + place.length
    if group:
        yield group
