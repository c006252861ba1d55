"""One attempt to make the store hold what a dataset's folder holds, on one reading of HEAD."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from amlctl.core.diff import Changes, diff
from amlctl.core.events import Note, SnapshotCommitted, Warned
from amlctl.core.head import HeadValue, encode_head
from amlctl.core.manifest import (
    FileEntry,
    Manifest,
    empty_manifest,
    encode_section,
    snapshot_id,
    total_bytes,
)
from amlctl.core.message import Command, Message
from amlctl.core.names import colliding_names
from amlctl.core.store_keys import head_key
from amlctl.core.sync_plan import FEW_FILES, SyncPlan, plan_sync
from amlctl.core.wording import below_data_blobs
from amlctl.errors import Conflict, IntegrityError, NotFound
from amlctl.localfs.identify import Identified, identify
from amlctl.localfs.plain_files_under_way import PlainFilesUnderWay
from amlctl.localfs.read_file import Taker
from amlctl.localfs.sync_state import Agreement, Base, Step
from amlctl.mirror.plain_files import in_the_way
from amlctl.operations.context import Context
from amlctl.operations.sync.dataset_state import (
    LocalState,
    agree,
    begin,
    head_manifest,
    look_at,
)
from amlctl.operations.sync.early_packs import EarlyPacks, also_packed
from amlctl.operations.sync.merge import confirm_changes, merge_with_head
from amlctl.operations.sync.mirror import (
    arrived_files,
    leftovers,
    refuse_shared_files,
    refuse_unfit_names,
    undamaged_plain_files,
)
from amlctl.operations.sync.repair import drop_lost_lists, read_back, report_not_here, to_send_again
from amlctl.operations.sync.result import SyncOptions, SyncResult, committed_result, unchanged_result
from amlctl.operations.sync.retry import ContentsLost, HeadMoved
from amlctl.operations.sync.verify import damaged_contents, report_damage, without
from amlctl.snapshots.deletion import delete_all
from amlctl.snapshots.gc_mark import GcWatch
from amlctl.snapshots.heads import Head, fence_writer, next_head, swap_head
from amlctl.snapshots.kept import ValuesLost, ensure_kept
from amlctl.snapshots.known import KnownContents
from amlctl.snapshots.lease import MirrorLease
from amlctl.snapshots.manifests import write_manifest
from amlctl.snapshots.pack_sender import PackSender, pack_sender
from amlctl.snapshots.send import send_plan
from amlctl.snapshots.store_format import ensure_format

_MUCH_BYTES = 16 << 20
"""New bytes from which on other datasets are asked for their contents."""


class SyncAttempt:
    """Run it, or foresee what it would do; one of the two, once."""

    def __init__(
        self,
        context: Context,
        dataset: str,
        options: SyncOptions,
        state: LocalState,
        lease: MirrorLease,
        *,
        lost: Collection[str] = (),
    ) -> None:
        """`lost` are contents that are sent again, whatever the store seems to have of them."""
        self._lost = lost
        self._here: Collection[str] = ()
        self._damaged_elsewhere: Mapping[str, FileEntry] = {}
        self._displaced: Mapping[str, str] = {}
        self._replace = options.repair or bool(lost)
        self._watch = GcWatch(context.store, context.sink)
        self._store = context.store
        self._dataset = dataset
        self._options = options
        self._state = state
        self._lease = lease
        self._sink = context.sink
        self._looked = look_at(context, dataset, options.ignore, state, is_repair=options.repair)
        self._scanned = self._looked.local()
        if self._looked.agreement == Agreement(None):
            self._tell_overlap()
        head = self._looked.head
        self._layout = options.layout_rules(None if head is None else head.layout)
        self._is_list_lost = False
        self._project = context.project
        self._in_doubt = self._under_way.paths()

    @property
    def _under_way(self) -> PlainFilesUnderWay:
        return PlainFilesUnderWay(self._project.state_dir, self._looked.store_key, self._dataset)

    def _tell_overlap(self) -> None:
        for other in self._state.sync.datasets(self._looked.store_key):
            if f"{other}/".startswith(f"{self._dataset}/") or f"{self._dataset}/".startswith(f"{other}/"):
                self._sink(Note(f"{self._dataset}: {other} is a dataset, too; what both hold is synced with each"))

    def run(self) -> SyncResult:
        unchanged = self._nothing_to_do()
        if unchanged is not None:
            return unchanged
        if self._looked.head is None:
            self._looked.know_store(ensure_format(self._store), self._state)
        with pack_sender(
            self._store,
            self._state.sync,
            self._options.pack_size,
            store_key=self._looked.store_key,
            replace=self._replace,
        ) as sender:
            identified = self._identify(self._pack_early(sender))
            sender.finish()
            unchanged = self._same_contents(identified)
            if unchanged is not None:
                return unchanged
            local, hashed = identified.entries, identified.hashed_bytes
            if self._options.repair:
                self._here = {entry.content_id for entry in local}
            head, known = self._stored
            if self._is_list_lost:
                known.distrust({entry.content_id for entry in local})
            entries, taken = merge_with_head(self._store, self._looked, local, head, self._options, self._sink)
            changes = diff(head.entries, entries)
            confirm_changes(self._store, self._looked, local, head, entries, changes, self._options, self._sink)
            snapshot = identified.snapshot if entries is local else snapshot_id(entries)
            known_now = also_packed(known, sender)
            sure = self._sure(head, taken)
            plan = plan_sync(entries, sure, self._layout, known_now, sent_bytes=sender.content_bytes)
            if self._touches_plain_files(snapshot, head, plan):
                self._write_alone()
                plan = self._without_arrived(plan)
            gone = self._leftovers(entries, is_sure=self._options.yes)
            present = self._looked.head
            if present is not None and self._is_committed(present, snapshot, head, plan):
                result = committed_result(self._dataset, present.value, entries, head, changes, plan, hashed)
            else:
                result = self._commit(snapshot, head, changes, plan, known, sender, hashed, local if taken else None)
            self._under_way.end()
        self._agree(local, taken, head)
        result = replace(result, not_here=len(taken))
        if self._options.repair:
            drop_lost_lists(self._store, self._dataset, self._sink)
            report_not_here(self._dataset, self._damaged_elsewhere, entries)
        elif self._options.verify:
            manifest = head_manifest(self._store, self._dataset, self._looked.head)
            report_damage(damaged_contents(self._store, manifest, manifest.entries, self._sink), manifest)
        # What was in the way has gone already; on some disks its key is another spelling of a new one.
        gone = [key for key in gone if key not in self._displaced]
        if gone:
            self._lease.confirm()
            delete_all(self._store, gone, guard=self._lease.guard)
        return result

    def foresee(self) -> SyncResult:
        unchanged = self._nothing_to_do()
        if unchanged is not None:
            return unchanged
        identified = self._identify(None)
        unchanged = self._same_contents(identified)
        if unchanged is not None:
            return unchanged
        head, known = self._stored
        entries, taken = merge_with_head(self._store, self._looked, identified.entries, head, self._options, self._sink)
        plan = plan_sync(entries, self._sure(head, taken), self._layout, known)
        snapshot = snapshot_id(entries)
        self._touches_plain_files(snapshot, head, plan)
        self._leftovers(entries, is_sure=True)
        value = HeadValue(snapshot, "", plan.layout)
        changes = diff(head.entries, entries)
        result = committed_result(self._dataset, value, entries, head, changes, plan, identified.hashed_bytes)
        return replace(result, uploaded_bytes=plan.send_bytes)

    @cached_property
    def _stored(self) -> tuple[Manifest, KnownContents]:
        """What HEAD lists, and what else is known to be there: read when the first new content asks for it."""
        self._watch.note()
        head = self._head()
        known = self._known(head)
        if self._lost:
            known.distrust(self._lost)
            head = without(head, self._lost)
        if self._options.repair:
            bad, self._damaged_elsewhere = to_send_again(self._store, head, self._here, self._sink)
            known.distrust(bad)
            head = without(head, bad)
        return head, known

    def _head(self) -> Manifest:
        """What HEAD lists. A repair does without it where nothing but the list is lost."""
        looked = self._looked
        try:
            return head_manifest(self._store, self._dataset, looked.head)
        except (NotFound, IntegrityError) as error:
            if not self._options.repair or looked.head is None:
                raise
            is_ours = looked.base is not None and looked.base.snapshot == looked.head.snapshot
            if not is_ours and not self._options.force:
                raise IntegrityError(
                    f"{error.message}; what the store had last was not what this machine has",
                    hint="repair it where it was synced last, or add --force: the store then gets what is here",
                ) from error
            self._sink(Warned(f"{self._dataset}: {error.message}; all is sent again from here"))
            self._is_list_lost = True
            return empty_manifest(self._dataset)

    def _nothing_to_do(self) -> SyncResult | None:
        """The whole answer, where neither stat data nor HEAD moved; nothing else is read then."""
        settled, head = self._looked.settled, self._looked.head
        if settled is None or head is None or settled.snapshot != head.snapshot:
            return None
        if self._options.checksum or not self._may_skip(head):
            return None
        base = self._looked.base
        if base is None or base.snapshot != head.snapshot or not base.head:
            agree(self._state, self._looked, self._store, head)
        return unchanged_result(self._dataset, head, settled.files, settled.size_bytes)

    def _same_contents(self, identified: Identified) -> SyncResult | None:
        """The whole answer, where files were touched but none of them changed: HEAD's manifest is not read."""
        head, base = self._looked.head, self._looked.base
        if "_stored" in vars(self) or head is None or base is None or base.snapshot != head.snapshot:
            return None  # a new content has asked for what is stored already
        if not self._may_skip(head):
            return None
        if identified.snapshot != head.snapshot:
            return None
        result = unchanged_result(self._dataset, head, len(identified.entries), total_bytes(identified.entries))
        return replace(result, hashed_bytes=identified.hashed_bytes)

    def _may_skip(self, head: Head) -> bool:
        """True if no option needs more than an up-to-date store in its present layout."""
        options = self._options
        asked = options.verify or options.repair or options.delete
        return not asked and head.layout == self._layout.written_as and not self._in_doubt

    def _sure(self, head: Manifest, taken: Sequence[str]) -> Manifest:
        """Without the plain files that an earlier sync from here may have replaced. Those of them that are `taken` from
        the store are not here to be sent again: they are looked at. Raises Conflict."""
        if not self._in_doubt:
            return head
        to_replace = self._in_doubt - undamaged_plain_files(self._store, head, self._in_doubt.intersection(taken))
        entries = [entry for entry in head.entries if entry.path not in to_replace]
        return replace(head, entries=entries, shards={})

    def _known(self, head: Manifest) -> KnownContents:
        # Other datasets cost a request each: they are asked where much has arrived that may be theirs.
        has_grown = self._scanned.size_bytes - head.size_bytes >= _MUCH_BYTES
        return KnownContents(
            self._store,
            self._looked.store_key,
            self._state.sync,
            self._layout,
            look_at_other_datasets=self._looked.head is None or has_grown,
        )

    def _identify(self, taker: Taker | None) -> Identified:
        identified = identify(
            self._scanned,
            self._state.cache,
            self._looked.cache_key,
            digest=self._looked.digest,
            checksum=self._options.checksum or self._options.repair,
            taker=taker,
            sink=self._sink,
            subject=self._dataset,
        )
        for one, other in colliding_names(identified.entries)[:5]:
            self._sink(Warned(f"{self._dataset}: {one!r} and {other!r} are one name on some file systems"))
        return identified

    def _pack_early(self, sender: PackSender) -> Taker | None:
        """Pack new small files while they are hashed, so that they are read once. Only where that is sure to
        be what the plan says: HEAD is where we left it, so no merge can come between."""
        base = None if self._looked.base is None else self._looked.base.snapshot
        is_ours = base == (None if self._looked.head is None else self._looked.head.snapshot)
        if not is_ours or self._layout.name == "mirror" or self._replace:
            return None
        if self._layout.name == "auto" and not self._scanned.has_small_files(self._layout.pack_below, FEW_FILES):
            return None
        return EarlyPacks(sender, self._layout, lambda: self._stored)

    def _leftovers(self, entries: Sequence[FileEntry], *, is_sure: bool) -> Sequence[str]:
        """Plain files that go if `delete` is asked for. Listed before anything is sent: so is the stop."""
        if not self._options.delete:
            return ()
        if self._layout.name != "mirror":
            self._sink(Warned(f"{self._dataset} is not a mirror: --delete does nothing; gc removes old contents"))
            return ()
        return leftovers(self._store, self._dataset, entries, is_sure=is_sure, sink=self._sink)

    def _write_alone(self) -> None:
        """From here on nobody else writes this mirror: what HEAD names now is what its files are."""
        if self._lease.is_held:
            return
        self._lease.take()
        if self._lease.was_taken_over:
            fence_writer(self._store, self._dataset)
        present, known = self._store.get_versioned(head_key(self._dataset)), self._looked.head
        if (present and present.version) != (known and known.version):
            told = f"{self._dataset} was synced by another machine"
            raise HeadMoved(Conflict(told, hint="run the same command again"))

    def _without_arrived(self, plan: SyncPlan) -> SyncPlan:
        """Without the plain files that a sync had sent which was cut off: no manifest names these."""
        if not self._lease.was_left_unfinished or self._options.repair:
            return plan
        arrived = arrived_files(self._store, self._dataset, plan.mirror_files)
        return replace(plan, mirror_files=[entry for entry in plan.mirror_files if entry not in arrived])

    def _touches_plain_files(self, snapshot: str, head: Manifest, plan: SyncPlan) -> bool:
        """Whether some may come, change or go. Raises SettingsError where they cannot have their names, Conflict where
        they are those of another mirror as well."""
        if plan.layout != "mirror":
            return False
        present = self._looked.head
        if present is not None and self._is_committed(present, snapshot, head, plan) and not self._options.delete:
            return False
        refuse_unfit_names(self._store, self._dataset, plan.mirror_files)
        refuse_shared_files(self._store, self._dataset, plan.entries)
        return True

    def _is_committed(self, present: Head, snapshot: str, head: Manifest, plan: SyncPlan) -> bool:
        if plan.send_files or plan.repacked or head.layout != plan.layout:
            return False
        return snapshot == present.snapshot and not self._options.repair

    def _commit(
        self,
        snapshot: str,
        head: Manifest,
        changes: Changes,
        plan: SyncPlan,
        known: KnownContents,
        sender: PackSender,
        hashed: int,
        ours: Sequence[FileEntry] | None,
    ) -> SyncResult:
        """`ours`: what this machine has, where that is not what is committed."""
        store, dataset = self._store, self._dataset
        before = replace(head, pack_sizes={**known.pack_sizes, **head.pack_sizes})
        if plan.mirror_files:
            self._displaced = self._in_the_way(head, plan)
            self._under_way.begin([*(entry.path for entry in plan.mirror_files), *self._displaced.values()])
            delete_all(store, self._displaced, guard=self._lease.guard)  # old away before new
        places, pack_sizes, was_there = send_plan(
            store,
            plan,
            self._looked.root,
            before,
            sender,
            dataset=dataset,
            max_workers=self._options.file_workers(self._store),
            replace=self._replace,
            may_replace=self._lease.check,
            sink=self._sink,
        )
        manifest = Manifest(dataset, plan.layout, plan.entries, places, pack_sizes, snapshot, shards=head.shards)
        written = write_manifest(store, manifest, before=head, replace=self._options.repair)
        value = HeadValue(manifest.snapshot, written.key, manifest.layout)
        sent_now = (sender.places.keys() | {entry.content_id for entry in plan.objects}) - was_there
        if self._options.repair:
            sent_again = {entry.content_id for entry in [*plan.objects, *plan.mirror_files]} | sender.places.keys()
            read_back(store, written.key, sent_again, sender.pack_sizes, self._sink)
        foreign = places.keys() - head.places.keys() - sent_now
        try:
            ensure_kept(store, self._watch, manifest, written, reused=foreign, sent=sent_now)
        except ValuesLost as error:
            raise ContentsLost(error.contents(places), error.told) from error
        self._lease.confirm()
        looked, generation = self._looked, self._watch.generation
        base = Base(value.snapshot, value.manifest_key) if ours is None else self._only_here(ours, head)
        tried = encode_head(next_head(store, value, looked.head), dataset)
        try:
            begin(self._state, looked, store, Step.COMMIT, base._replace(head=tried))
        except NotFound as error:  # a gc that has started since has deleted the manifest
            raise HeadMoved(Conflict(error.message, hint="run the same command again")) from error
        try:
            looked.head = swap_head(store, dataset, value, looked.head, generation=generation)
        except Conflict as error:
            raise HeadMoved(error) from error
        self._sink(SnapshotCommitted(dataset, manifest.snapshot))
        result = committed_result(self._dataset, value, plan.entries, head, changes, plan, hashed)
        blobs = len(sender.pack_sizes) + len(plan.objects) + len(plan.mirror_files)
        sent = sender.content_bytes + total_bytes([*plan.objects, *plan.mirror_files])
        return replace(result, uploaded_blobs=blobs, reused_bytes=max(0, result.bytes - sent))

    def _in_the_way(self, head: Manifest, plan: SyncPlan) -> Mapping[str, str]:
        return in_the_way(
            self._store,
            self._dataset,
            plan.mirror_files,
            plan.entries,
            head,
            doubtful=self._in_doubt,
            may_delete_others=self._options.delete,
        )

    def _agree(self, local: Sequence[FileEntry], taken: Sequence[str], head: Manifest) -> None:
        """Remember what both sides have in common now. What only the store has stays out of it, or the next
        sync would take its absence here for a deletion."""
        committed = self._looked.head
        assert committed is not None
        base = None
        if taken:
            self._sink(
                Note(
                    Message(
                        f"{self._dataset}: changes of the store are not here yet: ",
                        Command("sync", "--pull", below_data_blobs(self._dataset)),
                    )
                )
            )
            base = self._only_here(local, head)
        agree(self._state, self._looked, self._store, committed, base=base)

    def _only_here(self, local: Sequence[FileEntry], head: Manifest) -> Base:
        """The store has no snapshot that is just this, and needs none."""
        ours = Manifest(self._dataset, head.layout, local, {}, {})
        return Base(ours.snapshot, "", encode_section(local, ours))
