"""Bring a dataset from the store to this machine: three-way between the last agreement, this folder and HEAD.

What only the store changed is written or deleted here; what only this machine changed stays; what both changed
is a Conflict, unless `ours` or `theirs` decides. Nothing is deleted before everything new has arrived.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from amlctl.core.diff import by_path, diff, merge
from amlctl.core.events import EventSink, Note
from amlctl.core.manifest import OBJECT, ONE_FILE, FileEntry, Manifest, dataset_folder
from amlctl.errors import Conflict, NotFound, UsageError
from amlctl.localfs.identify import identify
from amlctl.localfs.project import Project
from amlctl.localfs.scan import unpack_rows
from amlctl.localfs.sync_state import Base
from amlctl.operations.dataset_state import DatasetState, LocalState, base_manifest, local_state, look_at
from amlctl.operations.sync import SyncOptions, SyncResult
from amlctl.stores.contract import Store
from amlctl.transfer.manifests import read_header, read_manifest
from amlctl.transfer.receive import receive


def pull(
    project: Project,
    store: Store,
    dataset: str,
    options: SyncOptions,
    sink: EventSink,
    *,
    snapshot: str | None = None,
    is_dry_run: bool = False,
) -> SyncResult:
    """`snapshot`: an older one instead of HEAD, by id or a unique beginning of it; the folder then holds exactly
    that, unless changes here that were never synced would be lost (Conflict; `theirs` overrides).

    Raises NotFound (no such dataset or snapshot), Conflict, IntegrityError, ServiceUnavailable.
    """
    started = time.monotonic()
    requests = store.traffic.requests
    with local_state(project, f"amlctl sync --pull {dataset}", sink) as state:
        looked = look_at(project, store, dataset, options.ignore, state, sink)
        if looked.head is None:
            raise NotFound(f"the store {store.url} has no dataset {dataset}", hint="amlctl store stats lists them")
        if _is_settled(looked, options, snapshot):
            result = _nothing_to_do(looked)
        else:
            key = looked.head.manifest_key if snapshot is None else find_snapshot(store, dataset, snapshot)
            result = _pull(store, looked, read_manifest(store, key), options, state, sink, snapshot, is_dry_run)
        if not is_dry_run:
            state.sync.set_base(store.url, dataset, Base(looked.head.snapshot, looked.head.manifest_key))
    return replace(
        result,
        requests=store.traffic.requests - requests,
        seconds=round(time.monotonic() - started, 3),
        dry_run=is_dry_run,
    )


def _is_settled(looked: DatasetState, options: SyncOptions, snapshot: str | None) -> bool:
    if looked.settled is None or looked.head is None or snapshot is not None or options.checksum:
        return False
    return looked.settled.snapshot == looked.head.snapshot


def _nothing_to_do(looked: DatasetState) -> SyncResult:
    assert looked.head is not None
    assert looked.settled is not None
    files, size = looked.settled.files, looked.settled.size_bytes
    snapshot = looked.head.snapshot
    return SyncResult(
        looked.dataset,
        snapshot,
        snapshot,
        looked.head.layout,
        files,
        size,
        unchanged=files,
        reused_bytes=size,
        manifest_key=looked.head.manifest_key,
    )


def _pull(
    store: Store,
    looked: DatasetState,
    wanted: Manifest,
    options: SyncOptions,
    state: LocalState,
    sink: EventSink,
    snapshot: str | None,
    is_dry_run: bool,
) -> SyncResult:
    local: Sequence[FileEntry] = ()
    hashed = 0
    if looked.scanned is not None:
        found = identify(
            looked.scanned,
            state.cache,
            looked.cache_key,
            digest=looked.digest,
            checksum=options.checksum,
            sink=sink,
            subject=looked.dataset,
        )
        local, hashed = found.entries, found.hashed_bytes
    if snapshot is None:
        base = base_manifest(store, looked, wanted)
        merged = merge(base.entries, local, wanted.entries, prefer=options.prefer)
        target, conflicts = merged.entries, merged.conflicts
    else:
        target, conflicts = wanted.entries, _would_be_lost(store, looked, local, wanted, options)
    if conflicts:
        raise Conflict(
            f"{len(conflicts)} files of {looked.dataset} were changed here and differ from the store's",
            hint="amlctl sync --pull --ours keeps what is here, --theirs takes the store's",
            details=conflicts,
        )
    changes = diff(local, target)
    here = by_path(local)
    to_write = [entry for entry in target if here.get(entry.path) != entry]
    result = SyncResult(
        looked.dataset,
        wanted.snapshot,
        None if looked.base is None else looked.base.snapshot,
        wanted.layout,
        files=len(target),
        bytes=sum(entry.size_bytes for entry in target),
        added=len(changes.added),
        modified=len(changes.modified),
        deleted=len(changes.deleted),
        unchanged=changes.unchanged,
        downloaded_files=sum(not entry.path.endswith("/") for entry in to_write),
        downloaded_bytes=sum(entry.size_bytes for entry in to_write),
        hashed_bytes=hashed,
    )
    hidden = [] if options.theirs else _hidden(looked.root, to_write, here)
    if hidden:
        raise Conflict(
            f"{len(hidden)} files of {looked.dataset} stand here unsynced (ignored, or written just now)",
            hint="move them away, or take the store's with --theirs",
            details=hidden,
        )
    if snapshot is not None:
        _check_mirror(store, looked, wanted, to_write)
    if is_dry_run:
        return result
    _make_room(looked.root, changes.deleted, to_write)
    guard = _Guard(looked, options)
    receive(
        store,
        wanted,
        to_write,
        looked.root,
        may_replace=guard.is_as_seen,
        max_workers=options.max_workers,
        sink=sink,
    )
    _delete(looked.root, [path for path in changes.deleted if guard.is_path_as_seen(path)])
    guard.raise_if_moved()
    if snapshot is not None and looked.head is not None and looked.head.snapshot != wanted.snapshot:
        sink(Note(f"{looked.dataset} is at an older snapshot now; `amlctl sync` would make it the newest"))
    return result


class _Guard:
    """Keeps what somebody has edited, made or removed here while the pull was under way."""

    def __init__(self, looked: DatasetState, options: SyncOptions) -> None:
        self._root = looked.root
        self._dataset = looked.dataset
        self._takes_all = options.theirs
        self._moved: list[str] = []
        self._seen: dict[str, tuple[int, int, int]] = {}
        for folder in () if looked.scanned is None else looked.scanned.folders:
            prefix = f"{folder.path}/" if folder.path else ""
            for row in unpack_rows(folder.rows):
                self._seen[prefix + row.name] = (row.size_bytes, row.mtime_ns, row.inode)

    def is_as_seen(self, entry: FileEntry) -> bool:
        return self.is_path_as_seen(entry.path)

    def is_path_as_seen(self, path: str) -> bool:
        if path.endswith("/"):
            return True
        seen = self._seen.get(path)
        try:
            found = os.stat(self._root if path == ONE_FILE else self._root / path)
        except (FileNotFoundError, NotADirectoryError):
            return True
        if stat.S_ISDIR(found.st_mode):
            return True
        is_same = seen == (found.st_size, found.st_mtime_ns, found.st_ino)
        if is_same or (seen is None and self._takes_all):
            return True
        self._moved.append(path)
        return False

    def raise_if_moved(self) -> None:
        """Raises Conflict."""
        if self._moved:
            raise Conflict(
                f"{len(self._moved)} files of {self._dataset} were changed here during the pull, and are left alone",
                hint="run the same command again: all others are there",
                details=sorted(self._moved),
            )


def _would_be_lost(
    store: Store, looked: DatasetState, local: Sequence[FileEntry], wanted: Manifest, options: SyncOptions
) -> Sequence[str]:
    """Local changes that no snapshot has and that going back would overwrite."""
    if options.theirs:
        return ()
    if options.ours:
        raise UsageError("--ours makes no sense with --snapshot: it would change nothing")
    base = by_path(base_manifest(store, looked, wanted).entries)
    target = by_path(wanted.entries)
    return [e.path for e in local if base.get(e.path) != e and target.get(e.path) != e]


def _hidden(root: Path, to_write: Sequence[FileEntry], here: Mapping[str, FileEntry]) -> list[str]:
    """Paths that would be overwritten although no snapshot, and no merge, has seen what stands there."""
    folders = {part for path in here for part in _parents(path)}
    return [
        entry.path
        for entry in to_write
        if not entry.path.endswith("/")
        and entry.path != ONE_FILE
        and entry.path not in here
        and entry.path not in folders
        and f"{entry.path}/" not in here
        and os.path.lexists(root / entry.path)
    ]


def find_snapshot(store: Store, dataset: str, beginning: str) -> str:
    """Key of the newest manifest of a snapshot. Raises NotFound, UsageError (several snapshots begin so)."""
    folder = dataset_folder(dataset) + "/"
    found = [e for e in store.list(folder) if e.key[len(folder) :].startswith(beginning) and e.key.endswith(".gz")]
    found = [e for e in found if "/" not in e.key[len(folder) :]]
    snapshots = {entry.key[len(folder) :].partition("-")[0] for entry in found}
    if not snapshots:
        raise NotFound(f"{dataset} has no snapshot {beginning}", hint="amlctl store stats lists the snapshots")
    if len(snapshots) > 1:
        raise UsageError(f"{len(snapshots)} snapshots of {dataset} begin with {beginning}", details=sorted(snapshots))
    newest_first = [e.key for e in sorted(found, key=lambda entry: entry.modified_at, reverse=True)]
    if len(newest_first) > 1:
        # One of a mirror is good only while the files are what they were then.
        newest_first.sort(key=lambda key: read_header(store, key).layout == "mirror")
    return newest_first[0]


def _check_mirror(store: Store, looked: DatasetState, wanted: Manifest, to_write: Sequence[FileEntry]) -> None:
    """Raises NotFound where a mirror has newer bytes now than an older snapshot needs."""
    if looked.head is None or wanted.snapshot == looked.head.snapshot:
        return
    needed = [e for e in to_write if wanted.places.get(e.content_id, OBJECT).kind == "mirror"]
    if not needed:
        return
    now = by_path(read_manifest(store, looked.head.manifest_key).entries)
    gone = [e.path for e in needed if e.path not in now or now[e.path].content_id != e.content_id]
    if gone:
        raise NotFound(
            f"{len(gone)} files of that snapshot are gone: a mirror keeps the newest bytes only",
            hint="layout pack keeps older snapshots",
            details=gone,
        )


def _make_room(root: Path, deleted: Sequence[str], to_write: Sequence[FileEntry]) -> None:
    """Remove folders where a file comes, and files where a folder comes; all else is deleted at the end."""
    blocking = {part for entry in to_write for part in _parents(entry.path)}
    for path in deleted:
        if path in blocking:
            (root / path).unlink(missing_ok=True)
    for entry in to_write:
        target = root if entry.path == ONE_FILE else root / entry.path.rstrip("/")
        if target.is_dir() and not target.is_symlink() and not entry.path.endswith("/"):
            _delete(root, [path for path in deleted if path.startswith(f"{entry.path}/") or entry.path == ONE_FILE])
            _remove_empty(target)


def _parents(path: str) -> list[str]:
    parts = path.rstrip("/").split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _delete(root: Path, paths: Sequence[str]) -> None:
    """Remove files, then the folders that this leaves empty."""
    folders: set[Path] = set()
    for path in paths:
        target = root if path == ONE_FILE else root / path.rstrip("/")
        if path.endswith("/"):
            _remove_empty(target)
        elif not target.is_dir() or target.is_symlink():
            # A folder stands there where the file has become one.
            with suppress(FileNotFoundError, NotADirectoryError):
                target.unlink()
        if path != ONE_FILE:
            folders.add(target.parent)
    for folder in sorted(folders, key=lambda folder: len(folder.parts), reverse=True):
        while folder != root and _remove_empty(folder):
            folder = folder.parent


def _remove_empty(folder: Path) -> bool:
    try:
        os.rmdir(folder)
    except OSError:
        return False
    return True
