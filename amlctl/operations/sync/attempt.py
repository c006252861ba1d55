"""One attempt to make the store hold what a dataset's folder holds, on one reading of HEAD.

Its stages, each with its own value: look, identify, merge, plan, send, commit, remember.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import NamedTuple

from amlctl.core.diff import diff
from amlctl.core.events import Note, SnapshotCommitted, Stage, Warned
from amlctl.core.head import Head, encode_head
from amlctl.core.manifest import (
    FileEntry,
    Manifest,
    StoredAt,
    encode_section,
    snapshot_id,
    total_bytes,
)
from amlctl.core.message import AGAIN, Command, Message, below_data_blobs
from amlctl.core.sync_plan import FEW_FILES, SyncPlan, plan_sync
from amlctl.errors import Conflict, NotFound
from amlctl.localfs.identify import Identified
from amlctl.localfs.machine import user_at_host
from amlctl.localfs.sync_state import Agreement, Base, Step
from amlctl.mirror.export import MirrorSync, PlainFilesUnderWay
from amlctl.mirror.plain_files import MirrorLease
from amlctl.operations.sync.dataset_state import DatasetState
from amlctl.operations.sync.lfs_pointers import warn_of_pointers
from amlctl.operations.sync.merge import Merged, confirm_changes, merge_with_head, was_removed
from amlctl.operations.sync.repair import (
    damage,
    drop_lost_lists,
    read_back,
    report_damage,
    report_not_here,
    to_send_again,
    without,
)
from amlctl.operations.sync.respelled import warn_of_twins
from amlctl.operations.sync.result import SyncResult, committed_result, unchanged_result
from amlctl.operations.sync.stored import EarlyPacks, StoredContents
from amlctl.snapshots.gc_mark import GcWatch
from amlctl.snapshots.heads import HeadMoved, has_snapshots, next_head, no_head, swap_head
from amlctl.snapshots.known import ensure_kept
from amlctl.snapshots.manifests import write_manifest
from amlctl.snapshots.send import PackSender, send_plan
from amlctl.snapshots.store_format import ensure_format
from amlctl.snapshots.transfers import Transfers


class _Sent(NamedTuple):
    """A manifest whose bytes are in the store; of its contents that HEAD does not name, `reused` were there and `new`
    were not. `sent` are all that were sent, new or not."""

    manifest: Manifest
    sent: Collection[str]
    reused: Collection[str]
    new: Collection[str]


class SyncAttempt:
    """Run once."""

    def __init__(self, looked: DatasetState, lease: MirrorLease, *, lost: Collection[str] = ()) -> None:
        """`lost` are contents that are sent again, whatever the store seems to have of them. Raises NotFound, Conflict
        (the dataset was removed)."""
        self._looked = looked
        self._store, self._sink, self._dataset = looked.store, looked.sink, looked.dataset
        self._options = looked.options
        self._lost = lost
        self._replace = looked.options.repair or bool(lost)
        self._watch = GcWatch(self._store, self._sink)
        if looked.removed is not None and not looked.options.force:
            is_here = looked.scanned is not None
            raise was_removed(looked.dataset, looked.removed, Conflict if is_here else NotFound, is_here=is_here)
        self._scanned = looked.local()
        if looked.agreement == Agreement(None):
            self._note_overlap()
        self._layout = looked.layout
        self._lease = lease
        self._plain_files = self._look_at_plain_files()

    def run(self, *, is_dry_run: bool = False) -> SyncResult:
        """A dry run ends where something would be sent, and changes nothing."""
        unchanged = self._nothing_to_do()
        if unchanged is not None:
            return unchanged
        if not is_dry_run:
            self._make_sure_of_store()
        stored = StoredContents(self._looked, self._watch, lost=self._lost)
        with nullcontext() if is_dry_run else self._pack_sender() as sender:
            identified = self._identify(None if sender is None else self._early_packs(sender, stored))
            if sender is not None:
                sender.finish()
            unchanged = self._same_contents(identified, stored)
            if unchanged is not None:
                return unchanged
            merged = self._merge(identified, stored)
            if sender is not None:
                confirm_changes(self._looked, merged)
            plan = self._plan(merged, sender)
            if self._options.delete or not self._is_committed(merged, plan):
                if sender is not None:
                    plan = self._plain_files.prepare(plan, self._looked.head)
                else:
                    self._plain_files.check_names(plan)
            leftovers = self._plain_files.leftovers(
                merged.entries, self._options.command(self._dataset), is_sure=self._options.yes or is_dry_run
            )
            result = committed_result(self._dataset, merged.snapshot, merged.entries, merged.head, merged.changes, plan)
            result = replace(result, hashed_bytes=identified.hashed_bytes)
            if sender is None:
                return replace(result, uploaded_bytes=plan.send_bytes)
            if not self._is_committed(merged, plan):
                sent = self._send(merged, plan, sender)
                self._commit(merged, sent)
                result = _with_sent(result, plan, sender)
            self._plain_files.end()
        self._remember(merged)
        self._check(merged)
        self._plain_files.delete(leftovers)
        return replace(result, manifest_key=self._committed.manifest_key, not_here=len(merged.taken))

    def _make_sure_of_store(self) -> None:
        looked = self._looked
        if looked.head is None and not looked.store_id:
            looked.know_store(ensure_format(self._store))
            self._plain_files = self._look_at_plain_files()
        elif looked.is_new and has_snapshots(self._store, self._dataset):
            self._sink(Warned(f"{no_head(self._store, self._dataset).message}; starting it from here"))

    def _pack_sender(self) -> PackSender:
        return PackSender(
            self._store,
            self._looked.state.sync,
            self._options.pack_size,
            Transfers(Stage.SEND, self._dataset, self._sink),
            store_key=self._looked.store_key,
            replace=self._replace,
        )

    # --- look -----------------------------------------------------------------------------------------------

    @property
    def _committed(self) -> Head:
        """What HEAD names at the end."""
        assert self._looked.head is not None
        return self._looked.head

    def _look_at_plain_files(self) -> MirrorSync:
        return MirrorSync(
            self._lease,
            PlainFilesUnderWay(self._looked.context.project.state_dir, self._looked.store_key, self._dataset),
            is_mirror=self._layout.is_mirror,
            may_delete=self._options.delete,
            is_repair=self._options.repair,
        )

    def _note_overlap(self) -> None:
        for other in self._looked.state.sync.overlapping(self._looked.store_key, self._dataset):
            self._sink(Note(f"{self._dataset} overlaps dataset {other}; shared files belong to both"))

    def _nothing_to_do(self) -> SyncResult | None:
        """The whole answer, where neither stat data nor HEAD moved; nothing else is read then."""
        settled, head = self._looked.settled, self._looked.head
        if settled is None or head is None or settled.snapshot != head.snapshot:
            return None
        if self._options.checksum or not self._may_skip(head):
            return None
        self._looked.agree_if_new(head)
        return unchanged_result(self._dataset, head, settled.files, settled.size_bytes)

    def _may_skip(self, head: Head) -> bool:
        """True if no option needs more than an up-to-date store in its present layout."""
        options = self._options
        needs_more = options.verify or options.repair or options.delete
        is_as_wanted = head.layout == self._layout.written_as and not self._plain_files.are_in_doubt
        return is_as_wanted and not needs_more

    # --- identify -------------------------------------------------------------------------------------------

    def _identify(self, early: EarlyPacks | None) -> Identified:
        hashing = None if early is None else early.hashing
        identified = self._looked.identify(taker=early, sink=hashing, reads_all=self._options.repair)
        warn_of_twins(self._dataset, identified.entries, self._sink)
        return identified

    def _early_packs(self, sender: PackSender, stored: StoredContents) -> EarlyPacks | None:
        """Only where the plan is sure to agree: HEAD is where this machine left it, so no merge comes between."""
        base = None if self._looked.base is None else self._looked.base.snapshot
        is_ours = base == (None if self._looked.head is None else self._looked.head.snapshot)
        if not is_ours or self._layout.is_mirror or self._replace:
            return None
        if self._layout.name == "auto" and not self._scanned.has_small_files(self._layout.pack_below, FEW_FILES):
            return None
        return EarlyPacks(sender, self._layout.pack_below, stored, self._sink)

    def _same_contents(self, identified: Identified, stored: StoredContents) -> SyncResult | None:
        """The whole answer, where files were touched, but not changed: HEAD's manifest is not read."""
        head, base = self._looked.head, self._looked.base
        if stored.is_read or head is None or base is None or base.snapshot != head.snapshot:
            return None  # a new content has asked for what is stored already
        if not self._may_skip(head) or identified.snapshot != head.snapshot:
            return None
        result = unchanged_result(self._dataset, head, len(identified.entries), total_bytes(identified.entries))
        return replace(result, hashed_bytes=identified.hashed_bytes)

    # --- merge ----------------------------------------------------------------------------------------------

    def _merge(self, identified: Identified, stored: StoredContents) -> Merged:
        local = identified.entries
        head, known = stored.read()
        damaged_elsewhere: Mapping[str, FileEntry] = {}
        if self._options.repair:
            here = {entry.content_id for entry in local}
            if self._looked.head is not None and not head.created_at:  # its list is lost
                known.distrust(here)
            bad, damaged_elsewhere = to_send_again(self._store, head, here, self._sink)
            known.distrust(bad)
            head = without(head, bad)
        entries, taken = merge_with_head(self._looked, local, head)
        snapshot = identified.snapshot if entries is local else snapshot_id(entries)
        changes = diff(head.entries, entries)
        warn_of_pointers(self._dataset, self._looked.root, local, changes, self._sink)
        return Merged(local, head, known, entries, snapshot, taken, changes, damaged_elsewhere)

    # --- plan -----------------------------------------------------------------------------------------------

    def _plan(self, merged: Merged, sender: PackSender | None) -> SyncPlan:
        head = self._plain_files.trusted(merged.head, merged.taken)
        if self._plain_files.is_mirror:
            return self._plain_files.plan(merged.entries, head)
        early: Mapping[str, StoredAt] = {} if sender is None else sender.places

        def look_up(entries: Sequence[FileEntry]) -> Mapping[str, StoredAt]:
            rest = [entry for entry in entries if entry.content_id not in early]
            return {**early, **merged.known(rest)} if rest else early

        sent_bytes = 0 if sender is None else sender.content_bytes
        return plan_sync(merged.entries, head, self._layout, look_up, sent_bytes=sent_bytes)

    def _is_committed(self, merged: Merged, plan: SyncPlan) -> bool:
        """Whether HEAD names it already, and nothing is to be sent."""
        head = self._looked.head
        if head is None or plan.send_files or plan.repacked or merged.head.layout != plan.layout:
            return False
        return merged.snapshot == head.snapshot and not self._options.repair

    # --- send and commit ------------------------------------------------------------------------------------

    def _send(self, merged: Merged, plan: SyncPlan, sender: PackSender) -> _Sent:
        head = merged.head
        self._plain_files.make_room(plan, head)  # old away before new
        places, pack_sizes, was_there = send_plan(
            plan,
            self._looked.root,
            replace(head, pack_sizes={**merged.known.pack_sizes, **head.pack_sizes}),
            sender,
            max_workers=self._options.workers(self._store),
            destination=self._plain_files.destination,
        )
        manifest = Manifest(
            self._dataset,
            plan.layout,
            plan.entries,
            places,
            pack_sizes,
            merged.snapshot,
            created_by=user_at_host(),
            shards=head.shards,
        )
        alone = () if self._plain_files.is_mirror else plan.files
        new = (sender.places.keys() | {entry.content_id for entry in alone}) - was_there
        sent = {entry.content_id for entry in plan.files} | sender.places.keys()
        return _Sent(manifest, sent, places.keys() - head.places.keys() - new, new)

    def _commit(self, merged: Merged, sent: _Sent) -> None:
        """Raises HeadMoved, ValuesLost."""
        store, dataset, looked = self._store, self._dataset, self._looked
        manifest = sent.manifest
        written = write_manifest(store, manifest, replace=self._options.repair)
        if self._options.repair:
            read_back(store, written.key, sent.sent, self._sink)
        ensure_kept(store, self._watch, manifest, written, reused=sent.reused, sent=sent.new)
        self._plain_files.confirm()
        value = Head(manifest.snapshot, written.key, manifest.layout, looked.store_id)
        base = self._only_here(merged) if merged.taken else Base(value.snapshot, value.manifest_key)
        expected = looked.head or looked.removed
        tried = encode_head(next_head(store, value, expected), dataset)
        try:
            looked.begin(Step.COMMIT, base._replace(head=tried))
        except NotFound as error:  # a gc that has started since has deleted the manifest
            raise HeadMoved(error.message, hint=AGAIN) from error
        try:
            looked.head = swap_head(store, dataset, value, expected, generation=self._watch.generation)
        except Conflict as error:
            raise HeadMoved(error.message, hint=error.hint, details=error.details) from error
        looked.context.dataset_contents.add(manifest)
        self._sink(SnapshotCommitted(dataset, manifest.snapshot))

    # --- remember -------------------------------------------------------------------------------------------

    def _remember(self, merged: Merged) -> None:
        """What both sides have in common now. What only the store has is not part of it: the next sync would take its
        absence here for a deletion."""
        base = None
        if merged.taken:
            pull = Command("sync", "--pull", below_data_blobs(self._dataset))
            self._sink(Note(Message(f"{self._dataset}: changes of the store are not here yet: ", pull)))
            base = self._only_here(merged)
        self._looked.agree(self._committed, base=base)

    def _only_here(self, merged: Merged) -> Base:
        """The store has no snapshot that is just this, and needs none."""
        ours = Manifest(self._dataset, merged.head.layout, merged.local, {}, {})
        return Base(ours.snapshot, "", encode_section(merged.local, ours))

    def _check(self, merged: Merged) -> None:
        """What --repair and --verify add. Raises IntegrityError."""
        if self._options.repair:
            drop_lost_lists(self._store, self._dataset, self._sink)
            report_not_here(self._dataset, merged.damaged_elsewhere, merged.entries)
        elif self._options.verify:
            manifest = self._looked.head_manifest()
            report_damage(damage(self._store, manifest, manifest.entries, self._sink).contents, manifest)


def _with_sent(result: SyncResult, plan: SyncPlan, sender: PackSender) -> SyncResult:
    blobs = len(sender.pack_sizes) + len(plan.files)
    sent_bytes = sender.content_bytes + total_bytes(plan.files)
    return replace(result, uploaded_blobs=blobs, reused_bytes=max(0, result.bytes - sent_bytes))
