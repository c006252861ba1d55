"""Manifest files: reading and writing them, whole or in shards (`docs/store-format.md`)."""

from __future__ import annotations

import gzip
import zlib
from datetime import datetime, timezone

from amlctl.core.content_id import content_id
from amlctl.core.manifest import (
    SHARD_FROM,
    SHARD_MEAN,
    FileEntry,
    Manifest,
    ManifestHeader,
    Place,
    dataset_folder,
    decode_header,
    decode_section,
    encode_section,
    shard_entries,
)
from amlctl.errors import IntegrityError
from amlctl.stores.contract import Store

_LEVEL = 3
"""Content ids do not compress, paths do with any level; more effort gains some per cent at several times the cost."""


def write_manifest(store: Store, manifest: Manifest) -> str:
    """Write shards, then the manifest; returns its key. A shard that did not change is not sent again."""
    folder = dataset_folder(manifest.dataset)
    names: list[str] = []
    inline = b""
    if len(manifest.entries) < SHARD_FROM:
        inline = encode_section(manifest.entries, manifest)
    else:
        for entries in shard_entries(manifest.entries, mean=SHARD_MEAN):
            section = encode_section(entries, manifest)
            name = f"{content_id(section)}.gz"
            names.append(name)
            if name not in manifest.shards:
                store.put(f"{folder}/shards/{name}", gzip.compress(section, _LEVEL, mtime=0))
    header = ManifestHeader(
        manifest.dataset,
        manifest.snapshot,
        manifest.layout,
        files=len(manifest.entries),
        size_bytes=manifest.size_bytes,
        created_at=manifest.created_at or datetime.now(timezone.utc).isoformat(timespec="seconds"),
        shards=names,
    )
    data = gzip.compress(header.encode() + inline, _LEVEL, mtime=0)
    key = f"{folder}/{manifest.snapshot}-{content_id(data)}.gz"
    store.put(key, data)
    return key


def read_manifest(store: Store, key: str) -> Manifest:
    """Raises NotFound, IntegrityError (damaged), SettingsError (newer format)."""
    header, inline = decode_header(_unzip(store.get(key), key))
    folder = key.rsplit("/", 1)[0]
    entries: list[FileEntry] = []
    places: dict[str, Place] = {}
    pack_sizes: dict[str, int] = {}
    if not header.shards:
        decode_section(inline, entries, places, pack_sizes)
    for name in header.shards:
        decode_section(_unzip(store.get(f"{folder}/shards/{name}"), name), entries, places, pack_sizes)
    manifest = Manifest(
        header.dataset,
        header.layout,
        entries,
        places,
        pack_sizes,
        created_at=header.created_at,
        shards=frozenset(header.shards),
    )
    if manifest.snapshot != header.snapshot:
        raise IntegrityError(f"the manifest {key} is damaged: its entries are not those of its snapshot")
    return manifest


def read_header(store: Store, key: str) -> ManifestHeader:
    """The first line alone, of a manifest whose shards are not wanted."""
    return decode_header(_unzip(store.get(key), key))[0]


def _unzip(data: bytes, key: str) -> bytes:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise IntegrityError(f"the manifest {key} is damaged: {error}", hint="amlctl store verify") from error
