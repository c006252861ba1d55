"""What a sync does about the plain files of its dataset. Of a dataset that is not a mirror it does next to nothing.

Packs and objects never change, so a swap of HEAD is all that two writers need. Plain files are replaced in place: there
a lease lets one machine write at a time, and this machine writes down which of them it is about to replace. Until HEAD
has moved, those count as lost: the next sync writes them again, whatever they are here by then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Optional

from amlctl.core.events import Note, Warned
from amlctl.core.head import Head
from amlctl.core.manifest import MIRROR, ONE_FILE, FileEntry, Manifest, needs_no_bytes
from amlctl.core.message import AGAIN, Command, Message, below_data_blobs, count, if_intended
from amlctl.core.store_keys import head_key, mirror_key
from amlctl.core.sync_plan import SyncPlan
from amlctl.errors import Conflict, NeedsConfirmation, NotFound, SettingsError
from amlctl.localfs.atomic import read_json, write_json
from amlctl.mirror.plain_files import MirrorLease, files_in_the_way, mirrors_sharing_files
from amlctl.snapshots.contents import stored_content_id
from amlctl.snapshots.heads import HeadMoved, datasets_inside, fence_writer
from amlctl.snapshots.lease import delete_all
from amlctl.snapshots.manifests import name_here
from amlctl.snapshots.send import OBJECTS, Destination

_CAREFUL_ABOVE = 0.1
"""Share of a mirror's files above which deleting has to be confirmed."""


class PlainFilesUnderWay:
    """Plain files that this machine may have replaced without having moved HEAD, of one dataset in one store: a small
    JSON file in the project's local state. For one command at a time (see `locks.py`)."""

    def __init__(self, state_dir: Path, store: str, dataset: str) -> None:
        self._state_dir = state_dir
        self._dataset = dataset
        self._path = state_dir / "mirrors" / f"{name_here(store, dataset)}.json"

    def adopt(self, known_as: str) -> None:
        """Take over what was written down when the store had another name. Raises OSError."""
        before = PlainFilesUnderWay(self._state_dir, known_as, self._dataset)
        if in_doubt := before.paths():
            self.begin(in_doubt)
        before.end()

    def paths(self) -> frozenset[str]:
        try:
            return frozenset(map(str, read_json(self._path)))
        except (FileNotFoundError, SettingsError, TypeError):
            return frozenset()

    def begin(self, paths: Iterable[str]) -> None:
        """Before the first of them is replaced. Raises OSError."""
        write_json(self._path, sorted({*self.paths(), *paths}))

    def end(self) -> None:
        """HEAD names what they are now."""
        self._path.unlink(missing_ok=True)


class MirrorSync:
    """What one sync does about them."""

    def __init__(
        self,
        lease: MirrorLease,
        under_way: PlainFilesUnderWay,
        *,
        is_mirror: bool,
        may_delete: bool,
        is_repair: bool,
    ) -> None:
        """Of the dataset of the lease. `is_mirror`: it is to be one. `may_delete`: files that no snapshot names may
        go."""
        self._store = lease.store
        self._dataset = lease.dataset
        self._sink = lease.sink
        self._lease = lease
        self._under_way = under_way
        self._in_doubt = under_way.paths()
        self._displaced: dict[str, str] = {}
        self._may_delete = may_delete
        self._is_repair = is_repair
        self.is_mirror = is_mirror

    @property
    def are_in_doubt(self) -> bool:
        """Whether a sync from here has replaced some, and broke off."""
        return bool(self._in_doubt)

    def trusted(self, head: Manifest, taken: Sequence[str]) -> Manifest:
        """HEAD without the files that an earlier sync from here may have replaced. Those that are `taken` from the
        store are not on this machine, so they cannot be sent again: they are read. Raises Conflict."""
        if not self._in_doubt:
            return head
        replaced = self._in_doubt - self._undamaged(head, self._in_doubt.intersection(taken))
        return replace(head, entries=[entry for entry in head.entries if entry.path not in replaced], shards={})

    def plan(self, entries: Sequence[FileEntry], head: Manifest) -> SyncPlan:
        """Every file that is not a plain file with its content yet is sent."""
        before = {entry.path: entry for entry in head.entries} if head.layout == "mirror" else {}
        to_send = []
        for entry in entries:
            was = before.get(entry.path)
            # An empty file needs no bytes, but a mirror shows it.
            is_file = not entry.path.endswith("/")
            # What a run has published into a mirror that moved meanwhile is an object, or in a pack, for now.
            is_there = needs_no_bytes(entry) or head.places.get(entry.content_id) == MIRROR
            if is_file and (was is None or was.content_id != entry.content_id or not is_there):
                to_send.append(entry)
        places = {entry.content_id: MIRROR for entry in entries if not needs_no_bytes(entry)}
        return SyncPlan(entries, "mirror", places, files=to_send)

    @property
    def destination(self) -> Destination:
        """Plain files go to their own paths, as long as no other machine writes them."""
        return Destination(self._key, replaces=True, check=self._lease.check) if self.is_mirror else OBJECTS

    def _key(self, entry: FileEntry) -> str:
        return mirror_key(self._dataset, entry.path)

    def check_names(self, plan: SyncPlan) -> None:
        """Raises SettingsError where files cannot have their names in the store, Conflict where they would be those of
        another mirror as well."""
        if self.is_mirror:
            self._refuse_unfit_names(plan.files)
            self._refuse_shared_files(plan.entries)

    def prepare(self, plan: SyncPlan, head: Optional[Head]) -> SyncPlan:
        """From here on no other machine writes this mirror. What of the plan has arrived already is left out. Raises as
        `check_names`, and HeadMoved where `head` is not the latest any more."""
        if not self.is_mirror:
            return plan
        self.check_names(plan)
        if not self._lease.is_held:
            self._take_lease(head)
        if not self._lease.was_left_unfinished or self._is_repair:
            return plan
        # No manifest names what a sync had sent which was cut off.
        stored = {entry.key: entry.content_id for entry in self._store.list(mirror_key(self._dataset, ""))}
        return replace(plan, files=[entry for entry in plan.files if stored.get(self._key(entry)) != entry.content_id])

    def _take_lease(self, head: Optional[Head]) -> None:
        self._lease.take()
        if self._lease.was_taken_over:
            fence_writer(self._store, self._dataset)
        present = self._store.get_versioned(head_key(self._dataset))
        if (present and present.version) != (head and head.version):
            moved = f"{self._dataset} was synced by another machine"
            raise HeadMoved(moved, hint=AGAIN)

    def make_room(self, plan: SyncPlan, head: Manifest) -> None:
        """Delete what cannot be there together with the files of the plan. Raises Conflict."""
        if not self.is_mirror or not plan.files:
            return
        self._displaced = files_in_the_way(
            self._store,
            plan.files,
            plan.entries,
            head,
            doubtful=self._in_doubt,
            may_delete_others=self._may_delete,
        )
        self._under_way.begin([*(entry.path for entry in plan.files), *self._displaced.values()])
        delete_all(self._store, self._displaced, guard=self._lease.guard)

    def confirm(self) -> None:
        """Right before HEAD moves. Raises Conflict where another machine writes the plain files by now."""
        self._lease.confirm()

    def end(self) -> None:
        """HEAD names what they are now."""
        self._under_way.end()

    def leftovers(self, entries: Sequence[FileEntry], command: Command, *, is_sure: bool) -> Sequence[str]:
        """Keys of the files that go if that is wanted, since `entries` do not have them; each is an event.

        Raises NeedsConfirmation where they are more than a tenth, unless the user is sure; `command` is the sync.
        """
        if not self._may_delete:
            return ()
        if not self.is_mirror:
            self._sink(Warned(f"{self._dataset} is not a mirror: --delete does nothing; gc removes old contents"))
            return ()
        kept = {self._key(entry) for entry in entries}
        # A dataset may be inside this one, with files that this one does not have.
        inside = tuple(mirror_key(other, "") for other in datasets_inside(self._store, self._dataset))
        listed = [*self._store.list(mirror_key(self._dataset, ""))]
        present = [entry.key for entry in listed if not f"{entry.key}/".startswith(inside or ("\0",))]
        if self._store.info(mirror_key(self._dataset, ONE_FILE)) is not None:
            present.append(mirror_key(self._dataset, ONE_FILE))
        gone = [key for key in present if key not in kept]
        for key in gone:
            self._sink(Note(f"no longer in {self._dataset}: {key}"))
        if len(gone) > _CAREFUL_ABOVE * len(present) and not is_sure:
            raise NeedsConfirmation(
                f"{len(gone)} of {len(present)} files of the mirror of {self._dataset} would be deleted",
                hint=if_intended(*command.words),
                details=gone,
            )
        return gone

    def delete(self, leftovers: Sequence[str]) -> None:
        """Raises Conflict where another machine writes the plain files by now."""
        # What was in the way is gone already; on some disks its key is another spelling of a new one.
        gone = [key for key in leftovers if key not in self._displaced]
        if gone:
            self._lease.confirm()
            delete_all(self._store, gone, guard=self._lease.guard)
            self._sink(Note(f"{self._dataset}: deleted {count(len(gone), 'file')} from the mirror"))

    def _undamaged(self, head: Manifest, paths: frozenset[str]) -> frozenset[str]:
        """All of `paths`, after a look whether they still are what HEAD says. Raises Conflict where they are not."""
        replaced = [entry.path for entry in head.entries if entry.path in paths and not self._is_as_listed(entry)]
        if replaced:
            repair = Command("sync", "--repair", below_data_blobs(self._dataset))
            raise Conflict(
                f"{count(len(replaced), 'plain file')} of {self._dataset} replaced in the store by an interrupted sync",
                hint=Message("on the machine that has them: ", repair),
                details=replaced,
            )
        return paths

    def _is_as_listed(self, entry: FileEntry) -> bool:
        try:
            return stored_content_id(self._store, self._key(entry)) == entry.content_id
        except NotFound:
            return False

    def _refuse_shared_files(self, entries: Sequence[FileEntry]) -> None:
        for other in mirrors_sharing_files(self._store, self._dataset, entries):
            outer, inner = sorted((self._dataset, other), key=len)
            raise Conflict(
                f"{self._dataset} cannot be written as a mirror: its plain files are those of the mirror {other} as "
                "well, which would be damaged",
                hint=Message(
                    "sync only one of them; ",
                    Command("sync", "--layout", "pack", below_data_blobs(self._dataset)),
                    " writes other files, and ",
                    f"/{inner[len(outer) + 1 :]} in data_blobs/{outer}/.amlctlignore keeps it out of {outer}",
                ),
            )

    def _refuse_unfit_names(self, files: Sequence[FileEntry]) -> None:
        refused: list[SettingsError] = []
        for entry in files:
            try:
                self._store.check_key(self._key(entry))
            except SettingsError as error:
                refused.append(error)
        packed = Command("sync", "--layout", "pack", below_data_blobs(self._dataset))
        hint = Message("rename them, or use packs, which take every name: ", packed)
        if len(refused) == 1:
            raise SettingsError(refused[0].message, hint=hint) from refused[0]
        if refused:
            raise SettingsError(
                f"{count(len(refused), 'file')} of {self._dataset} cannot have their names in {self._store.url}",
                hint=hint,
                details=[error.message for error in refused],
            )
