"""Mirrors inside one another: `b/y` of the mirror `a` and `y` of the mirror `a/b` are one plain file of the store.

The last writer would damage the other dataset, so of two such mirrors one must leave that folder alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Optional

from amlctl.core.manifest import FileEntry, Manifest
from amlctl.errors import IntegrityError, NotFound
from amlctl.parallel import in_background, in_parallel
from amlctl.snapshots.heads import datasets_inside, read_head
from amlctl.snapshots.manifests import read_manifest
from amlctl.stores.contract import Store


def mirrors_sharing_files(store: Store, dataset: str, entries: Sequence[FileEntry]) -> list[str]:
    """Mirrored datasets inside in whose folder `entries` has files, and ones above that have files in this folder.

    A listing, and a request for each dataset above. One whose list cannot be read is not told: it cannot be pulled
    either, and its own repair comes here again.
    """
    above = [str(parent) for parent in PurePosixPath(dataset).parents if parent.name]

    def mirrored(others: Sequence[str]) -> Iterator[Manifest]:
        return filter(None, in_parallel(lambda other: _mirrored(store, other), others, store.concurrency))

    with in_background(lambda: datasets_inside(store, dataset)) as listed:
        sharing = [outer.dataset for outer in mirrored(above) if _within(outer.dataset, outer.entries, [dataset])]
        suspects = _within(dataset, entries, listed())
    return sharing + [inner.dataset for inner in mirrored(suspects)]


def _mirrored(store: Store, dataset: str) -> Optional[Manifest]:
    """What it holds, if it is a mirror."""
    try:
        head = read_head(store, dataset)
        return read_manifest(store, head.manifest_key) if head is not None and head.layout == "mirror" else None
    except (NotFound, IntegrityError):
        return None


def _within(dataset: str, entries: Iterable[FileEntry], others: Collection[str]) -> list[str]:
    """Those of `others` in whose place, or above it, `dataset` has a file."""
    if not others:
        return []
    files: set[str] = set()
    taken: set[str] = set()
    for entry in entries:
        at = "" if entry.path.endswith("/") else entry.path  # an empty folder is not a file
        files.add(at)
        while at and at not in taken:
            taken.add(at)
            at = at.rpartition("/")[0]

    def is_shared(path: str) -> bool:
        return path in taken or any(str(folder) in files for folder in PurePosixPath(path).parents)

    return [other for other in others if is_shared(other[len(dataset) + 1 :])]
