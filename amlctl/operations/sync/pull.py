"""Bring a dataset from the store to this machine: three-way between the last agreement, this folder and HEAD.

What only the store changed is written or deleted here; what only this machine changed stays; what both changed
is a Conflict, unless `ours` or `theirs` decides. Nothing is deleted before everything new has arrived.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from amlctl.core.diff import Changes, by_path, diff, merge
from amlctl.core.events import Note
from amlctl.core.head import Head, encode_head
from amlctl.core.manifest import OBJECT, FileEntry, Kind, Manifest
from amlctl.core.message import Command, Message, below_data_blobs, count
from amlctl.core.store_keys import snapshot_of
from amlctl.errors import Conflict, NotFound, UsageError
from amlctl.localfs.identify import remember_written
from amlctl.localfs.scan import scan
from amlctl.localfs.sync_state import Base, Step
from amlctl.operations.context import Context
from amlctl.operations.sync.dataset_state import DatasetState, local_state, look_at
from amlctl.operations.sync.merge import agreed_entries, confirm_deletions, was_removed
from amlctl.operations.sync.pull_target import PullTarget, hidden, refuse_links
from amlctl.operations.sync.respelled import respelled, warn_of_twins
from amlctl.operations.sync.result import Measure, SyncOptions, SyncResult, unchanged_result
from amlctl.parallel import ended_by_interrupt
from amlctl.snapshots.heads import list_manifests
from amlctl.snapshots.manifests import read_header, read_manifest
from amlctl.snapshots.receive import Received, ReceiveOptions, receive
from amlctl.stores.contract import Store


def pull(
    context: Context,
    dataset: str,
    options: SyncOptions,
    *,
    snapshot: str | None = None,
    is_dry_run: bool = False,
) -> SyncResult:
    """`snapshot`: an older one instead of HEAD, by id or a unique beginning of it; the folder then holds exactly
    that, unless changes here that were never synced would be lost (Conflict; `theirs` overrides).

    Raises NotFound (no such dataset or snapshot), Conflict, IntegrityError, ServiceUnavailable.
    """
    store = context.store
    measure = Measure(store)
    with (
        local_state(context, f"amlctl sync --pull {dataset}", is_reading=is_dry_run) as state,
        ended_by_interrupt(store),
    ):
        looked = look_at(context, dataset, options, state)
        if looked.removed is not None:
            raise was_removed(dataset, looked.removed, NotFound)
        if looked.head is None:
            from amlctl.operations.dataset.listing import not_stored  # here, since few pulls need it

            raise not_stored(store, dataset)
        result = _settled(looked, looked.head, snapshot)
        if result is None:
            result = _Pull(looked, snapshot).run(looked.head, is_dry_run=is_dry_run)
        if not is_dry_run:
            looked.agree_if_new(looked.head)
    return measure.taken(result, is_dry_run=is_dry_run)


def _settled(looked: DatasetState, head: Head, snapshot: str | None) -> SyncResult | None:
    """The whole answer, where neither stat data nor HEAD moved."""
    found = looked.settled
    if found is None or snapshot is not None or looked.options.checksum or found.snapshot != head.snapshot:
        return None
    return unchanged_result(looked.dataset, head, found.files, found.size_bytes)


@dataclass(frozen=True)
class _Pull:
    """Of one dataset, or of an older `snapshot` of it. Its `run` reads top to bottom."""

    looked: DatasetState
    snapshot: str | None

    def run(self, head: Head, *, is_dry_run: bool) -> SyncResult:
        looked, options, snapshot = self.looked, self.looked.options, self.snapshot
        key = head.manifest_key if snapshot is None else find_snapshot(looked.store, looked.dataset, snapshot)
        wanted = read_manifest(looked.store, key)
        local, hashed = self._local()
        target = self._target(local, wanted)
        changes = diff(local, target)
        here = by_path(local)
        to_write = [entry for entry in target if here.get(entry.path) != entry]
        result = SyncResult(
            looked.dataset,
            wanted.snapshot,
            None if looked.agreement.base is None else looked.agreement.base.snapshot,
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
        if to_write:
            warn_of_twins(looked.dataset, target, looked.sink)
        renamed = respelled(looked.root, changes.deleted, to_write, wanted.entries) if looked.scanned else {}
        self._refuse({**here, **{new: here[old] for new, old in renamed.items()}}, changes, to_write, wanted)
        if snapshot is None:
            self._note_kept(wanted, target)
        if is_dry_run:
            return result
        words = [*([options.prefer.value] if options.prefer else []), *(["--snapshot", snapshot] if snapshot else [])]
        confirm_deletions(
            changes.deleted,
            local,
            target,
            where=f"from data_blobs/{looked.dataset}",
            command=Command("sync", "--pull", *words, below_data_blobs(looked.dataset)),
            is_sure=options.yes,
        )
        if to_write or changes.deleted:
            step = Step.PULL_ALL if snapshot is None and looked.scanned is None else Step.PULL
            seen = encode_head(head, looked.dataset)
            looked.begin(step, Base(wanted.snapshot, key, head=seen))
        self._write(wanted, target, changes.deleted, to_write, renamed)
        if snapshot is not None and head.snapshot != wanted.snapshot:
            sync = Command("sync", below_data_blobs(looked.dataset))
            older = f"{looked.dataset} is at an older snapshot now; "
            looked.sink(Note(Message(older, sync, " would make it the newest")))
        return result

    def _local(self) -> tuple[Sequence[FileEntry], int]:
        """What the folder holds, and how many bytes had to be read for that."""
        if self.looked.scanned is None:
            return (), 0
        found = self.looked.identify()
        return found.entries, found.hashed_bytes

    def _target(self, local: Sequence[FileEntry], wanted: Manifest) -> Sequence[FileEntry]:
        """What the folder is to hold. Raises Conflict."""
        looked = self.looked
        if self.snapshot is not None:
            _check_nothing_lost(looked, local, wanted)
            return wanted.entries
        # A folder that is gone altogether was not emptied file by file: all of it comes back.
        base = () if looked.scanned is None else agreed_entries(looked, local, wanted)
        merged = merge(base, local, wanted.entries, prefer=looked.options.prefer)
        if merged.conflicts:
            raise Conflict(
                f"{count(len(merged.conflicts), 'file')} of {looked.dataset} changed here, to something else than in "
                "the store",
                hint=Message(
                    Command("sync", "--pull", "--ours", below_data_blobs(looked.dataset)),
                    " keeps yours, --theirs takes the store's",
                ),
                details=merged.conflicts,
            )
        return merged.entries

    def _refuse(
        self, here: Mapping[str, FileEntry], changes: Changes, to_write: Sequence[FileEntry], wanted: Manifest
    ) -> None:
        """Raises Conflict for what stands in the way."""
        looked = self.looked
        unsynced = [] if looked.options.theirs else hidden(looked.root, to_write, here)
        if unsynced:
            raise Conflict(
                f"{looked.dataset} has {count(len(unsynced), 'unsynced file')} in the way (ignored, or written just "
                "now)",
                hint="move them away, or take the store's with --theirs",
                details=unsynced,
            )
        if self.snapshot is not None:
            _check_mirror(looked, wanted, to_write)
        refuse_links(looked.dataset, looked.root, [*changes.deleted, *(entry.path for entry in to_write)])

    def _note_kept(self, wanted: Manifest, target: Sequence[FileEntry]) -> None:
        if kept := diff(wanted.entries, target).count:
            path = below_data_blobs(self.looked.dataset)
            drop = Command("sync", "--pull", "--theirs", "--snapshot", wanted.snapshot[:12], path)
            note = f"{self.looked.dataset}: kept {count(kept, 'local change')}; to drop what is not in the store: "
            self.looked.sink(Note(Message(note, drop)))

    def _write(
        self,
        wanted: Manifest,
        target: Sequence[FileEntry],
        deleted: Sequence[str],
        to_write: Sequence[FileEntry],
        renamed: Mapping[str, str],
    ) -> None:
        looked, options = self.looked, self.looked.options
        folder = PullTarget(looked.dataset, looked.root, looked.scanned, takes_all=options.theirs)
        folder.respell(renamed)
        replaced = set(renamed.values())
        deleted = [path for path in deleted if path not in replaced]
        writable = replace(wanted, entries=folder.make_room(deleted, to_write))
        received = Received(written={})
        how = ReceiveOptions(may_replace=folder.may_write, workers=options.workers(looked.store))
        receive(looked.store, writable, looked.root, how, received, looked.sink)
        folder.leave_out(received.displaced)
        folder.delete(deleted, kept_folders=[e.path for e in target if e.path.endswith("/")])
        if received.written:
            with suppress(FileNotFoundError):  # somebody has removed the folder meanwhile
                now_ns = time.time_ns()
                remember_written(scan(looked.root), looked.state.cache, looked.cache_key, received.written, now_ns)
        folder.raise_if_moved()


def _check_nothing_lost(looked: DatasetState, local: Sequence[FileEntry], wanted: Manifest) -> None:
    """Raises Conflict for local changes that no snapshot has and that going back would overwrite."""
    if looked.options.theirs:
        return
    if looked.options.ours:
        raise UsageError("--ours makes no sense with --snapshot: it would change nothing")
    base, target = by_path(agreed_entries(looked, local, wanted)), by_path(wanted.entries)
    lost = [e.path for e in local if base.get(e.path) != e and target.get(e.path) != e]
    if lost:
        path = below_data_blobs(looked.dataset)
        drop = Command("sync", "--pull", "--theirs", "--snapshot", wanted.snapshot[:12], path)
        raise Conflict(
            f"{count(len(lost), 'file')} of {looked.dataset} changed here since the last sync",
            hint=Message(Command("sync", path), " keeps them in a snapshot; to drop them: ", drop),
            details=lost,
        )


def find_snapshot(store: Store, dataset: str, beginning: str) -> str:
    """Key of the newest manifest of a snapshot. Raises NotFound, UsageError (several snapshots begin so)."""
    found = [e for e in list_manifests(store, dataset) if e.key.rpartition("/")[2].startswith(beginning)]
    snapshots = {snapshot_of(entry.key) for entry in found}
    if not snapshots:
        raise NotFound(
            f"{dataset} has no snapshot {beginning}",
            hint=Message(Command("dataset", "show", dataset), " lists the snapshots"),
        )
    if len(snapshots) > 1:
        raise UsageError(f"{len(snapshots)} snapshots of {dataset} begin with {beginning}", details=sorted(snapshots))
    newest_first = [e.key for e in sorted(found, key=lambda entry: entry.modified_at, reverse=True)]
    if len(newest_first) > 1:
        # One of a mirror is good only while the files are what they were then.
        newest_first.sort(key=lambda key: read_header(store, key).layout == "mirror")
    return newest_first[0]


def _check_mirror(looked: DatasetState, wanted: Manifest, to_write: Sequence[FileEntry]) -> None:
    """Raises NotFound where a mirror has newer bytes now than an older snapshot needs."""
    if looked.head is None or wanted.snapshot == looked.head.snapshot:
        return
    needed = [e for e in to_write if wanted.places.get(e.content_id, OBJECT).kind is Kind.MIRROR]
    if not needed:
        return
    now = by_path(looked.head_manifest().entries)
    gone = [e.path for e in needed if e.path not in now or now[e.path].content_id != e.content_id]
    if gone:
        raise NotFound(
            f"{count(len(gone), 'file')} of that snapshot gone: a mirror keeps the newest bytes only",
            hint=Message(
                Command("sync", "--layout", "pack", below_data_blobs(looked.dataset)), " keeps all later snapshots"
            ),
            details=gone,
        )
