"""Read contents back from a store: members of packs and whole values, verified; large ones as files.

A large file that is being downloaded outlives a kill: the next download continues from there. In a folder are
`.amlctl-tmp-<content id>` (`…-x` of an executable file), the bytes so far, and `….parts`, which lists the stretches
that they have: 16 bytes each, start and length, appended after the bytes were written. After a power cut the list may
claim too much: a reader of the file checks its content id.
"""

from __future__ import annotations

import itertools
import os
import struct
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from amlctl.core.content_id import ContentHasher, content_id
from amlctl.core.manifest import MIRROR, FileEntry, Kind, Manifest, StoredAt, needs_no_bytes, repair_command
from amlctl.core.message import Message
from amlctl.core.pack import inflate
from amlctl.core.store_keys import area_of, mirror_key, object_key, pack_key
from amlctl.errors import IntegrityError, NotFound
from amlctl.localfs.atomic import TEMPORARY_PREFIX, temporary_name
from amlctl.localfs.disk_errors import is_refusal
from amlctl.localfs.locks import try_lock
from amlctl.localfs.regular_file import regular_descriptor
from amlctl.stores.contract import OnBytes, Store, unobserved

_GAP_BYTES = 64 << 10
"""Members of a pack nearer than this come with one request: its round trip costs more than the bytes between."""
_MOST_PACK_BYTES = 1 << 33
"""A zip without zip64 has offsets below 4 GiB, and members below that."""
_MOST_DEFLATED_BYTES = 1 << 30
"""Largest packed file that is unpacked in memory."""
_RANGE_BYTES = 8 << 20
"""Read at once at most (but one member at least): bounds memory, and lets several requests share one pack."""


def damaged(dataset: str, path: str, where: str) -> IntegrityError:
    repair = Message(repair_command(dataset), ", where a good copy is on this machine")
    if area_of(where).is_plain:
        what = f"the store's copy of {path} is not that of the snapshot ({where}): replaced by a sync, or damaged"
        return IntegrityError(what, hint=Message("run it again; if that does not help: ", repair))
    return IntegrityError(f"the store's copy of {path} is damaged ({where})", hint=repair)


@contextmanager
def explained_if_gone(dataset: str) -> Iterator[None]:
    """A value that a manifest names and the store does not have: what to do about it."""
    try:
        yield
    except NotFound as error:
        again = "run the same command again; if it stays so, "
        hint = Message(again, repair_command(dataset), " on a machine that has the files")
        raise NotFound(error.message, hint=hint) from error


def key_of(content: str, place: StoredAt) -> str:
    """Of a content in a pack or an object."""
    return pack_key(place.pack) if place.kind is Kind.PACK else object_key(content)


def place_key(manifest: Manifest, entry: FileEntry, place: StoredAt) -> str:
    return mirror_key(manifest.dataset, entry.path) if place == MIRROR else key_of(entry.content_id, place)


class Value(NamedTuple):
    """What a key must have."""

    content_id: str
    size_bytes: int


def values_of(manifest: Manifest, contents: Collection[str] | None = None) -> dict[str, Value]:
    """All values that hold bytes of the snapshot, or of these contents, by key."""
    found: dict[str, Value] = {}
    for entry in manifest.entries if contents is None or contents else ():
        if needs_no_bytes(entry) or (contents is not None and entry.content_id not in contents):
            continue
        place = manifest.places[entry.content_id]
        value = Value(entry.content_id, entry.size_bytes)
        if place.kind is Kind.PACK:
            value = Value(place.pack, manifest.pack_sizes[place.pack])
        found[place_key(manifest, entry, place)] = value
    return found


def read_content(store: Store, manifest: Manifest, entry: FileEntry) -> bytes:
    """One content as bytes in memory. Raises NotFound, IntegrityError."""
    place = manifest.places[entry.content_id]
    key = place_key(manifest, entry, place)
    if place.kind is Kind.PACK:
        _check_member(manifest.dataset, entry, place)
        stored = store.get(key, start=place.offset, length=place.length)
        return bytes(checked(manifest.dataset, entry, stored, place))
    data = store.get(key, length=entry.size_bytes + 1)
    if content_id(data) != entry.content_id:
        raise damaged(manifest.dataset, entry.path, key)
    return data


def _check_member(dataset: str, entry: FileEntry, place: StoredAt) -> None:
    """Before any memory is taken for it. Raises IntegrityError for what no pack can have."""
    is_deflated = place.is_deflated
    is_of_size = place.length <= 2 * entry.size_bytes + _GAP_BYTES if is_deflated else place.length == entry.size_bytes
    if (
        not is_of_size
        or place.offset + place.length > _MOST_PACK_BYTES
        or (is_deflated and entry.size_bytes > _MOST_DEFLATED_BYTES)
    ):
        raise damaged(dataset, entry.path, f"{pack_key(place.pack)} cannot have that member")


def checked(dataset: str, entry: FileEntry, stored: bytes | memoryview, place: StoredAt) -> bytes | memoryview:
    """The content of a member's stored bytes. Raises IntegrityError."""
    try:
        data = inflate(bytes(stored), entry.size_bytes) if place.is_deflated else stored
    except (zlib.error, OverflowError) as error:
        raise damaged(dataset, entry.path, pack_key(place.pack)) from error
    if content_id(data) != entry.content_id:
        raise damaged(dataset, entry.path, pack_key(place.pack))
    return data


def stored_content_id(store: Store, key: str) -> str:
    """Content id of a value, read piece by piece. Raises NotFound."""
    hasher = ContentHasher()
    at = 0
    while data := store.get(key, start=at, length=_RANGE_BYTES):
        hasher.update(data)
        at += len(data)
        if len(data) < _RANGE_BYTES:
            break
    return hasher.hexdigest()


class PackRange(NamedTuple):
    """A stretch of one pack that is read at once: `length` bytes from `start`, with the members wanted of it."""

    dataset: str
    pack: str
    start: int
    length: int
    members: Sequence[tuple[FileEntry, StoredAt]]


def pack_ranges(dataset: str, pack: str, wanted: Iterable[tuple[FileEntry, StoredAt]]) -> Iterator[PackRange]:
    """The stretches that hold some members of one pack: few enough requests, each short enough for memory."""
    group: list[tuple[FileEntry, StoredAt]] = []
    start = end = 0
    for entry, place in sorted(wanted, key=lambda item: item[1].offset):
        place_end = place.offset + place.length
        _check_member(dataset, entry, place)
        if group and (place.offset - end > _GAP_BYTES or place_end - start > _RANGE_BYTES):
            yield PackRange(dataset, pack, start, end - start, group)
            group = []
        if not group:
            start = place.offset
        group.append((entry, place))
        end = max(place_end, end) if len(group) > 1 else place_end
    if group:
        yield PackRange(dataset, pack, start, end - start, group)


def read_range(
    store: Store, wanted: PackRange, on_bytes: OnBytes = unobserved
) -> Iterator[tuple[FileEntry, StoredAt, memoryview]]:
    """Stored bytes of the members. Raises NotFound, IntegrityError (the pack is shorter than it was)."""
    with explained_if_gone(wanted.dataset):
        data = store.get(pack_key(wanted.pack), start=wanted.start, length=wanted.length, on_bytes=on_bytes)
    return _cut(wanted.dataset, data, wanted.start, wanted.members)


def _cut(
    dataset: str, data: bytes, start: int, members: Sequence[tuple[FileEntry, StoredAt]]
) -> Iterator[tuple[FileEntry, StoredAt, memoryview]]:
    view = memoryview(data)
    for entry, place in members:
        at = place.offset - start
        if at + place.length > len(data):
            raise damaged(dataset, entry.path, pack_key(place.pack))
        yield entry, place, view[at : at + place.length]


_WORTH_BYTES = 16 << 20
"""Below this a file is simply asked for again."""
_PART = struct.Struct("<QQ")


class PartialFile:
    """`Parts` of one file; `on_bytes` gets the bytes of those that were there. Thread-safe."""

    def __init__(self, journal: int, on_bytes: OnBytes) -> None:
        self._journal = journal
        found = os.pread(journal, os.fstat(journal).st_size, 0)
        whole = found[: len(found) // _PART.size * _PART.size]
        os.ftruncate(journal, len(whole))  # a kill may have cut the last entry short
        self._starts: dict[int, int] = dict(_PART.iter_unpack(whole))
        self._places = itertools.count(len(whole), _PART.size)
        """One for each entry: some mounts refuse to append."""
        if self._starts:
            on_bytes(sum(self._starts.values()))

    def has(self, start: int, length: int) -> bool:
        return self._starts.get(start, -1) >= length

    def arrived(self, start: int, length: int) -> None:
        os.pwrite(self._journal, _PART.pack(start, length), next(self._places))


@contextmanager
def downloaded(
    store: Store, key: str, expected: Value, folder: Path, *, mode: int, on_bytes: OnBytes = unobserved
) -> Iterator[Path]:
    """A temporary file in `folder` that has the value of `key`, unchecked; renamed or removed by the block.

    After an error of the store what has arrived is kept; after one in the block it is not, since it may be wrong.
    Raises NotFound, ServiceUnavailable, OSError.
    """
    stable = folder / f"{TEMPORARY_PREFIX}{expected.content_id}{'-x' if mode & 0o100 else ''}"
    journal_path = stable.with_name(f"{stable.name}.parts")
    journal = _locked(journal_path) if expected.size_bytes >= _WORTH_BYTES else None
    if journal is None:
        temporary = folder / temporary_name()
        try:
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
            store.download(key, temporary, on_bytes=on_bytes)
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
        return
    try:
        if not stable.exists():
            os.ftruncate(journal, 0)
        os.close(regular_descriptor(stable, os.O_WRONLY | os.O_CREAT, mode))
        store.download(key, stable, PartialFile(journal, on_bytes), on_bytes=on_bytes)
        try:
            yield stable
        finally:
            stable.unlink(missing_ok=True)
            journal_path.unlink(missing_ok=True)
    finally:
        os.close(journal)


def _locked(path: Path) -> int | None:
    """The journal, opened and held by this process; None where another one downloads the same beside the same, or the
    file system has no locks by which that could be seen."""
    descriptor = regular_descriptor(path, os.O_RDWR | os.O_CREAT)
    try:
        if try_lock(descriptor) and os.fstat(descriptor).st_nlink:
            return descriptor
    except OSError as error:
        if not is_refusal(error):
            os.close(descriptor)
            raise
    os.close(descriptor)
    return None
