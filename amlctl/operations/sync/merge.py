"""The three-way merge of a sync: where it starts, what it comes to, and what has to be confirmed first.

It starts at what this machine and the store have agreed on (the base), which is kept here with its entries, so that no
gc deletes it. A command that was killed has left its step behind (`SyncState.begin`); what it had done by then follows
from what the folder has and from where HEAD is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from amlctl.core.diff import Changes, Side, arrived, merge
from amlctl.core.events import Warned
from amlctl.core.head import Head, Relation, parse_head, relation
from amlctl.core.manifest import FileEntry, Manifest
from amlctl.core.message import Command, Message, below_data_blobs, count, if_intended
from amlctl.errors import AmlctlError, Conflict, NeedsConfirmation, StoreGone
from amlctl.localfs.sync_state import Base, Step
from amlctl.operations.sync.dataset_state import DatasetState
from amlctl.operations.sync.result import SyncOptions
from amlctl.snapshots.known import KnownContents
from amlctl.stores.contract import Store
from amlctl.stores.presence import begin_again


def agreed_entries(looked: DatasetState, local: Sequence[FileEntry], stored: Manifest) -> Sequence[FileEntry]:
    """Empty where nothing was agreed, or where it cannot be known any more. `stored` is what HEAD lists, or another
    snapshot that is to come here."""
    if looked.base is not None and looked.base.snapshot == stored.snapshot:
        return stored.entries
    head, sink = looked.head, looked.sink
    entries, seen = _follow(looked, local)
    if head is None or seen is None:
        return entries
    found = relation(seen, head)
    if found is Relation.BEHIND:
        sink(Warned(f"{looked.dataset}: the store has an older snapshot than this machine has seen (was it restored?)"))
        return stored.entries if stored.snapshot == head.snapshot else ()
    if found is Relation.UNRELATED:
        sink(Warned(f"{looked.dataset}: the store has other commits than this machine has seen (is it a copy?)"))
        return ()
    return entries


def _follow(looked: DatasetState, local: Sequence[FileEntry]) -> tuple[Sequence[FileEntry], Head | None]:
    """The base, and the steps that broke off since; the HEAD that was seen last."""
    entries: Sequence[FileEntry] = ()
    seen: Head | None = None
    agreement, head = looked.agreement, looked.head
    if agreement.base is not None:
        entries, seen = looked.entries_of(agreement.base), _head(looked, agreement.base)
    for step, base in agreement.under_way:
        tried = _head(looked, base)
        if step is not Step.COMMIT:
            before = () if step is Step.PULL_ALL else entries
            entries, seen = arrived(before, local, looked.entries_of(base)), tried
        elif head is not None and tried is not None and tried.commit in (head.commit, *head.before):
            entries, seen = looked.entries_of(base), tried
    return entries, seen


def _head(looked: DatasetState, base: Base) -> Head | None:
    return parse_head(base.head, looked.dataset) if base.head else None


def was_removed(dataset: str, head: Head, kind: type[AmlctlError] = Conflict, *, is_here: bool = False) -> AmlctlError:
    """Someone has removed the dataset on purpose: a sync by habit does not bring it back. What would only read it gets
    NotFound. Only where the dataset `is_here` could it be started again."""
    again = Command("sync", "--force", below_data_blobs(dataset))
    return kind(
        f"{dataset} was removed from the store by {head.removed_by or 'someone'} on "
        f"{head.removed_at[:16].replace('T', ' ')} UTC",
        hint=Message(
            Command("dataset", "restore", dataset),
            " brings it back",
            *(("; ", again, " starts it again from here") if is_here else ()),
        ),
    )


_SHARE = 0.5
_MANY = 10


def confirm_deletions(
    deleted: Sequence[str],
    before: Sequence[FileEntry],
    after: Sequence[FileEntry],
    *,
    where: str,
    command: Command,
    is_sure: bool,
) -> None:
    """`deleted` are the paths of `before` that `after` lacks; `where` says from where they would go. A file that is
    still there under another name does not go.

    Raises NeedsConfirmation where more than half of the files, and more than ten, would go.
    """
    if is_sure or len(deleted) <= _MANY:
        return
    gone = set(deleted)
    files = [entry for entry in before if not entry.path.endswith("/")]
    kept_contents = {entry.content_id for entry in after}
    lost = [entry.path for entry in files if entry.path in gone and entry.content_id not in kept_contents]
    if len(lost) > max(_MANY, _SHARE * len(files)):
        raise NeedsConfirmation(
            f"{count(len(lost), 'file')} of {len(files)} would be deleted {where}",
            hint=if_intended(*command.words),
            details=lost,
        )


@dataclass(frozen=True)
class Merged:
    """`entries` are to be committed; `changes` lead to them from `head`, what HEAD lists and the store is sure to have.

    `local` is what this machine has, `taken` the paths of entries that it does not have. `damaged_elsewhere` are
    contents that are damaged in the store and not on this machine, with an entry of each.
    """

    local: Sequence[FileEntry]
    head: Manifest
    known: KnownContents
    entries: Sequence[FileEntry]
    snapshot: str
    taken: Sequence[str]
    changes: Changes
    damaged_elsewhere: Mapping[str, FileEntry]


def merge_with_head(
    looked: DatasetState, local: Sequence[FileEntry], head: Manifest
) -> tuple[Sequence[FileEntry], Sequence[str]]:
    """The entries to commit, and the paths of them that are not what this machine has. Raises Conflict."""
    options = looked.options
    if looked.head is None or options.force:
        return local, ()
    if looked.base is not None and looked.base.snapshot == looked.head.snapshot:
        return local, ()
    base = agreed_entries(looked, local, head)
    merged = merge(base, local, head.entries, prefer=options.prefer)
    if merged.conflicts:
        raise Conflict(
            f"{count(len(merged.conflicts), 'file')} of {looked.dataset} changed here and in the store",
            hint=Message(
                options.command(looked.dataset, "--ours"),
                " keeps yours, --theirs takes the store's",
            ),
            details=merged.conflicts,
        )
    return merged.entries, merged.taken_from_theirs


@contextmanager
def new_store_confirmed(store: Store, command: Command, options: SyncOptions) -> Iterator[None]:
    """Raises NeedsConfirmation where a store that this project has used is gone: what others have synced would be
    missing in a new one; `command` starts it. Raises StoreGone for --verify, which never does."""
    if options.yes and not options.verify:
        begin_again(store)
    try:
        yield
    except StoreGone as gone:
        if options.verify:
            raise StoreGone(gone.message, hint="mount or restore it") from gone
        hint = Message("mount or restore it; to start a new one: ", Command(*command.words, "--yes"))
        raise NeedsConfirmation(gone.message, hint=hint) from gone


def confirm_changes(looked: DatasetState, merged: Merged) -> None:
    """Raises NeedsConfirmation where much of what the store has, or work of others, would go."""
    options, head = looked.options, merged.head
    if options.yes:
        return
    prefer = [options.prefer.value] if options.prefer else []
    command = options.command(looked.dataset, *prefer)
    if options.force:
        base = agreed_entries(looked, merged.local, head)
        theirs = merge(base, merged.local, head.entries, prefer=Side.THEIRS).taken_from_theirs
        stored = {entry.path for entry in head.entries}
        if lost := [path for path in theirs if path in stored]:
            raise NeedsConfirmation(
                f"{count(len(lost), 'file')} of {looked.dataset} from other machines would be replaced or deleted",
                hint=if_intended(*command.words),
                details=lost,
            )
    confirm_deletions(
        merged.changes.deleted,
        head.entries,
        merged.entries,
        where=f"from {looked.dataset} in the store",
        command=command,
        is_sure=False,
    )
