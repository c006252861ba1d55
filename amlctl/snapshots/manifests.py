"""Manifest files: read and written, whole or in shards (`docs/store-format.md`), and kept on this machine.

Those of what a machine and a store agree on are kept, since a gc of the store removes old snapshots. A machine that was
away for longer still has to know what its folder had in common with the store: otherwise every file that changed since
would be a conflict, and every deleted one would come back.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple, Optional, Protocol

from amlctl.core.content_id import content_id
from amlctl.core.document import MOST_BYTES, first_line, gunzip
from amlctl.core.manifest import (
    SHARD_FROM,
    SHARD_MEAN,
    FileEntry,
    Manifest,
    ManifestHeader,
    StoredAt,
    decode_header,
    decode_section,
    encode_header,
    encode_section,
    repair_command,
    shard_entries,
)
from amlctl.core.pack import gzip_bytes
from amlctl.core.store_keys import dataset_folder, dataset_of_key, folder_of, manifest_key, shard_key
from amlctl.errors import IntegrityError, NotFound
from amlctl.localfs.atomic import write_bytes
from amlctl.localfs.disk_errors import UnfitFile, disk_error
from amlctl.localfs.regular_file import open_regular
from amlctl.parallel import in_parallel
from amlctl.stores.contract import Store

_MOST_SHARD_BYTES = 32 << 20
"""A shard has at most 4,096 entries, so its paths may have 8 KB each."""


class Reader(Protocol):
    """Where manifest files are read from: a store, or copies of what one had."""

    @property
    def concurrency(self) -> int: ...

    def get(self, key: str, *, length: Optional[int] = None) -> bytes:
        """At most `length` bytes of it. Raises NotFound."""
        ...


class Written(NamedTuple):
    """A manifest that the store holds. `files` are the keys of it and its shards; `found` those of them that were there
    before, unknown to the writer."""

    key: str
    found: Sequence[str]
    files: Sequence[str] = ()


def write_manifest(store: Store, manifest: Manifest, *, replace: bool = False) -> Written:
    """Write shards, then the manifest. A shard that did not change is not sent again, unless it is to be replaced
    because it may be damaged."""
    folder = dataset_folder(manifest.dataset)
    names: list[str] = []
    inline = b""
    new: dict[str, bytes] = {}
    if len(manifest.entries) < SHARD_FROM:
        inline = encode_section(manifest.entries, manifest)
    else:
        for entries in shard_entries(manifest.entries, mean=SHARD_MEAN):
            section = encode_section(entries, manifest)
            names.append(f"{content_id(section)}.gz")
            if replace or names[-1] not in manifest.shards:
                new[shard_key(folder, names[-1])] = gzip_bytes(section)
    created_at = manifest.created_at or datetime.now(timezone.utc).isoformat(timespec="microseconds")
    data = gzip_bytes(encode_header(manifest, names, created_at) + inline)
    key = manifest_key(manifest.dataset, manifest.snapshot, content_id(data))
    were_new = in_parallel(lambda item: _put(store, *item, replace=replace), new.items(), store.concurrency)
    found = [name for name, was_new in zip(new, were_new) if not was_new]
    if not _put(store, key, data, replace=replace):
        found.append(key)
    return Written(key, found, (key, *(shard_key(folder, name) for name in names)))


def _put(store: Store, key: str, data: bytes, *, replace: bool) -> bool:
    """False where the store had it, in its whole length: a power cut may have cut it short."""
    if store.put(key, data, replace=replace):
        return True
    found = store.info(key)
    return (found is None or found.size_bytes != len(data)) and store.put(key, data, replace=True)


def read_manifest(store: Reader, key: str) -> Manifest:
    """Raises NotFound, IntegrityError (damaged), SettingsError (newer format)."""
    return read_with_header(store, key)[1]


def read_with_header(store: Reader, key: str) -> tuple[ManifestHeader, Manifest]:
    """As `read_manifest`.

    The file's id is in its name and a shard's in its own: that they are right says that the entries are those of the
    snapshot, too, at a tenth of what it takes to put its id together again.
    """
    data = store.get(key, length=MOST_BYTES)
    folder, _, name = key.rpartition("/")
    entries: list[FileEntry] = []
    places: dict[str, StoredAt] = {}
    pack_sizes: dict[str, int] = {}
    shards: dict[str, int] = {}
    with _damage_of(key):
        header, inline = decode_header(gunzip(data))
        if name != f"{header.snapshot}-{content_id(data)}.gz":
            raise ValueError("its bytes are not those of its name")
        if header.dataset != dataset_of_key(key):
            raise ValueError(f"it is one of the dataset {header.dataset}")
        if not header.shards:
            decode_section(inline, entries, places, pack_sizes)
    keys = [shard_key(folder, name) for name in header.shards]
    get = functools.partial(store.get, length=_MOST_SHARD_BYTES)
    for name, shard, zipped in zip(header.shards, keys, in_parallel(get, keys, store.concurrency)):
        start = len(entries)
        with _damage_of(shard):
            section = gunzip(zipped, _MOST_SHARD_BYTES)
            if name != f"{content_id(section)}.gz":
                raise ValueError("its bytes are not those of its name")
            decode_section(section, entries, places, pack_sizes)
        if len(entries) > header.files:
            break
        shards[name] = len(entries) - start
    if len(entries) != header.files:
        raise _damaged(key, f"{len(entries)} entries instead of {header.files}")
    if folder != dataset_folder(header.dataset):
        shards = {}  # the next manifest is written elsewhere, and so are its shards
    manifest = Manifest(
        header.dataset,
        header.layout,
        entries,
        places,
        pack_sizes,
        snapshot=header.snapshot,
        created_at=header.created_at,
        created_by=header.created_by,
        shards=shards,
    )
    return header, manifest


def read_header(store: Reader, key: str) -> ManifestHeader:
    """The first line alone, of a manifest whose entries are not wanted."""
    data = store.get(key, length=MOST_BYTES)
    with _damage_of(key):
        return decode_header(first_line(data))[0]


@contextmanager
def _damage_of(key: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, IntegrityError) as error:
        raise _damaged(key, error) from error


def _damaged(key: str, why: object) -> IntegrityError:
    dataset = dataset_of_key(key)
    return IntegrityError(f"the manifest {key} is damaged: {why}", hint=repair_command(dataset))


def name_here(store: str, dataset: str) -> str:
    """Of what this machine keeps of the dataset in that store."""
    return content_id(f"{store}\0{dataset}".encode("utf-8", "surrogateescape"))


class KeptManifests:
    """Those of one dataset in one store: its manifest files and their shards, by name. Satisfies `Reader`."""

    concurrency = 1

    def __init__(self, state_dir: Path, store: str, dataset: str) -> None:
        """`store`: its id, or its URL where it has none."""
        self._state_dir = state_dir
        self._dataset = dataset
        self._folder = state_dir / "agreed" / name_here(store, dataset)
        self._shards_of: dict[str, list[str]] = {}

    def of_store(self, store: str) -> KeptManifests:
        return KeptManifests(self._state_dir, store, self._dataset)

    def adopt(self, known_as: str) -> None:
        """Take over what was kept when the store went by another name. Raises OSError."""
        before = self.of_store(known_as)._folder
        if before.is_dir() and not self._folder.exists():
            before.rename(self._folder)

    def get(self, key: str, *, length: Optional[int] = None) -> bytes:
        """Raises NotFound, and ServiceUnavailable where the disk fails: what cannot be read now is not gone."""
        try:
            with open_regular(self._path(key)) as file:
                return file.read(MOST_BYTES if length is None else length)
        except UnfitFile as error:
            raise NotFound(f"{key} is not kept on this machine") from error
        except OSError as error:
            raise disk_error(error, str(self._path(key))) or NotFound(f"{key} is not kept on this machine") from error

    def keep(self, store: Reader, key: str) -> None:
        """Copy the manifest from the store. Raises OSError, and what the store raises."""
        self._copy(store, key)
        for shard in self._shards(key):
            self._copy(store, shard)

    def keep_only(self, keys: Collection[str]) -> None:
        """Remove all other manifests."""
        names = {_file_name(key) for manifest in keys for key in (manifest, *self._shards(manifest))}
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if path.name not in names:
                    path.unlink(missing_ok=True)

    def _shards(self, key: str) -> list[str]:
        if key not in self._shards_of:
            self._shards_of[key] = [shard_key(folder_of(key), name) for name in read_header(self, key).shards]
        return self._shards_of[key]

    def _copy(self, store: Reader, key: str) -> None:
        path = self._path(key)
        if not path.exists():
            write_bytes(path, store.get(key, length=MOST_BYTES))

    def _path(self, key: str) -> Path:
        return self._folder / _file_name(key)


def _file_name(key: str) -> str:
    return key.rpartition("/")[2]
