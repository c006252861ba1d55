"""Plain files of a mirror: who writes them, which ones there are, and those that a run has produced, which are written
when HEAD moves.

A run writes packs and objects alone, so what it leaves does no harm, whatever is synced meanwhile and however the run
ends. Its workspace then takes the mirror's lease, merges, and writes the plain files from these contents.

Mirrors may lie inside one another: `b/y` of the mirror `a` and `y` of the mirror `a/b` are one plain file of the store.
The last writer would damage the other dataset, so of two such mirrors one must leave that folder alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Optional

from amlctl.core.diff import displaced
from amlctl.core.manifest import MIRROR, ONE_FILE, FileEntry, Kind, Manifest, needs_no_bytes
from amlctl.core.message import AGAIN, Command, Message, below_data_blobs, count
from amlctl.core.store_keys import dataset_of_key, mirror_key
from amlctl.errors import Conflict, IntegrityError, NotFound
from amlctl.parallel import in_background, in_parallel
from amlctl.snapshots.contents import place_key, read_content
from amlctl.snapshots.heads import datasets_inside, read_head
from amlctl.snapshots.lease import Lease, delete_all, living_holder
from amlctl.snapshots.manifests import read_manifest
from amlctl.stores.contract import Body, FileBody, Store, Versioned


def mirrors_sharing_files(store: Store, dataset: str, entries: Sequence[FileEntry]) -> list[str]:
    """Mirrored datasets inside in whose folder `entries` has files, and ones above that have files in this folder.

    A listing, and a request for each dataset above. One whose list cannot be read is left out: it cannot be pulled
    either, and its own repair comes here again.
    """
    above = [str(parent) for parent in PurePosixPath(dataset).parents if parent.name]

    def mirrored(others: Sequence[str]) -> Iterator[Manifest]:
        return filter(None, in_parallel(lambda other: _mirrored(store, other), others, store.concurrency))

    with in_background(lambda: datasets_inside(store, dataset)) as listed:
        sharing = [outer.dataset for outer in mirrored(above) if _within(outer.dataset, outer.entries, [dataset])]
        suspects = _within(dataset, entries, listed.result())
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


_FINISHED = b"{}\n"
_UNFINISHED = b'{"unfinished": true}\n'


class MirrorLease(Lease):
    """On `lease_key` of a mirrored dataset: who writes its plain files."""

    was_left_unfinished = False
    """Once it is held: whether the one who wrote before did not come to an end."""
    was_taken_over = False
    """Once it is held: whether the one who wrote before may still be alive."""

    @property
    def dataset(self) -> str:
        return dataset_of_key(self._key)

    def _found(self, found: Optional[Versioned]) -> None:
        self.was_left_unfinished = found is not None and found.data != _FINISHED
        self.was_taken_over = found is not None and bool(living_holder(found.data))

    def _freed(self, *, is_finished: bool) -> bytes:
        return _FINISHED if is_finished else _UNFINISHED

    def _waits_for(self, holder: str) -> str:
        return f"{self.dataset}: waiting until {holder} has written its mirror"

    def _lost(self) -> Conflict:
        return Conflict(
            f"another machine writes the mirror of {self.dataset} now: this one gave no sign of life for long",
            hint=AGAIN,
        )


def unchanged_contents(entries: Sequence[FileEntry], before: Manifest) -> set[str]:
    """Contents of which every path in `entries` is a plain file already: they need not be sent."""
    stand = _standing(before)
    changed = {entry.content_id for entry in entries if stand.get(entry.path) != entry.content_id}
    return {entry.content_id for entry in entries if not needs_no_bytes(entry)} - changed


def moved_since(manifest: Manifest, head: Manifest) -> list[str]:
    """Paths that `manifest` takes for plain files although they are others, or none, by now."""
    stand = _standing(head)
    return [
        entry.path
        for entry in manifest.entries
        if manifest.places.get(entry.content_id) == MIRROR and stand.get(entry.path) != entry.content_id
    ]


def files_in_the_way(
    store: Store,
    written: Sequence[FileEntry],
    entries: Sequence[FileEntry],
    head: Manifest,
    *,
    doubtful: Collection[str] = (),
    may_delete_others: bool = False,
) -> dict[str, str]:
    """Plain files that have to go before `written` of the snapshot `entries` can be there, since a file became a folder
    or the other way round: the path of each key.

    Those that HEAD has, or a sync from here may have written (`doubtful`). Others, which somebody may have put there,
    go only if that is allowed. Raises Conflict.
    """
    dataset = head.dataset
    ours = {*_standing(head), *doubtful}
    kept = {entry.path for entry in entries}
    paths = {entry.path for entry in written if not entry.path.endswith("/")}
    found = {mirror_key(dataset, path): path for path in displaced(ours, paths, kept)}
    foreign = set()
    prefix = mirror_key(dataset, "")
    for path in paths:
        for key in store.in_the_way(mirror_key(dataset, path)):
            at = key.removeprefix(prefix) if key.startswith(prefix) else ONE_FILE
            found[key] = at
            if at not in ours:
                foreign.add(key)
    if foreign and not may_delete_others:
        raise Conflict(
            f"{count(len(foreign), 'file')} in the mirror of {dataset} are in the way of its files, and "
            "the newest snapshot does not have them",
            hint=Message(Command("sync", "--delete", below_data_blobs(dataset)), " deletes them"),
            details=sorted(foreign),
        )
    return found


def with_plain_files(store: Store, source: Store, manifest: Manifest, head: Manifest, lease: MirrorLease) -> Manifest:
    """Write the plain files that `manifest` has otherwise than `head`, and say that they are there.

    `source` is a folder with the contents; one that it does not have stays where it is. Raises Conflict (the lease
    was lost), IntegrityError, and what the store raises.
    """
    stand = _standing(head)

    def write(entry: FileEntry) -> bool:
        body = _body(source, manifest, entry, lease)
        if body is None:
            return False
        lease.check()
        store.put(mirror_key(manifest.dataset, entry.path), body, replace=True)
        return True

    files = [entry for entry in manifest.entries if not entry.path.endswith("/")]
    wanted = [entry for entry in files if stand.get(entry.path) != entry.content_id]
    gone = files_in_the_way(store, wanted, manifest.entries, head)
    delete_all(store, gone, guard=lease.guard)
    were_written = in_parallel(write, wanted, store.concurrency)
    missing = {entry.content_id for entry, was_written in zip(wanted, were_written) if not was_written}
    places = {content: place if content in missing else MIRROR for content, place in manifest.places.items()}
    return replace(manifest, places=places, shards={})


def _standing(manifest: Manifest) -> dict[str, str]:
    """What is a plain file: the content by path. An empty file is one in a mirror, an empty folder is not."""
    if manifest.layout != "mirror":
        return {}
    return {
        entry.path: entry.content_id
        for entry in manifest.entries
        if not entry.path.endswith("/") and (needs_no_bytes(entry) or manifest.places.get(entry.content_id) == MIRROR)
    }


def _body(source: Store, manifest: Manifest, entry: FileEntry, lease: MirrorLease) -> Body | None:
    """What a plain file consists of; None where the source does not have it."""
    if needs_no_bytes(entry):
        return b""
    place = manifest.places[entry.content_id]
    path = source.local_path(place_key(manifest, entry, place))
    if path is None:
        return None
    if place.kind is Kind.PACK:
        return read_content(source, manifest, entry)
    return FileBody(path, entry.size_bytes, entry.content_id, may_go_on=lease.check)
