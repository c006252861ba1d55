"""The manifests of what a machine and a store agree on, kept on this machine.

A store's gc removes old snapshots. A machine that was away for longer still has to know what its folder had in common
with the store, or every file that changed since would be a conflict and every deleted one would come back.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Optional

import xxhash

from amlctl.core.document import MOST_BYTES
from amlctl.core.store_keys import folder_of, shard_key
from amlctl.errors import NotFound
from amlctl.localfs.atomic import UnfitFile, open_regular, write_bytes
from amlctl.localfs.disk_errors import disk_error
from amlctl.snapshots.manifests import Reader, read_header


class KeptManifests:
    """Those of one dataset in one store: its manifest files and their shards, by name. Satisfies `Reader`."""

    concurrency = 1

    def __init__(self, state_dir: Path, store: str, dataset: str) -> None:
        """`store`: its id, or its URL where it has none."""
        self._state_dir = state_dir
        self._dataset = dataset
        name = xxhash.xxh3_128_hexdigest(f"{store}\0{dataset}".encode("utf-8", "surrogateescape"))
        self._folder = state_dir / "agreed" / name
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
        names = {_name(key) for manifest in keys for key in (manifest, *self._shards(manifest))}
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
        return self._folder / _name(key)


def _name(key: str) -> str:
    return key.rpartition("/")[2]
