"""What the store shall hold after a sync: the three-way merge with HEAD, and what has to be confirmed first."""

from __future__ import annotations

from collections.abc import Sequence

from amlctl.core.diff import Changes, merge
from amlctl.core.events import EventSink
from amlctl.core.manifest import FileEntry, Manifest
from amlctl.core.message import Command, Message
from amlctl.core.wording import below_data_blobs, count
from amlctl.errors import Conflict, NeedsConfirmation
from amlctl.operations.sync.agreement import agreed_entries
from amlctl.operations.sync.dataset_state import DatasetState
from amlctl.operations.sync.large_deletions import confirm_deletions
from amlctl.operations.sync.result import SyncOptions
from amlctl.stores.contract import Store


def merge_with_head(
    store: Store,
    looked: DatasetState,
    local: Sequence[FileEntry],
    head: Manifest,
    options: SyncOptions,
    sink: EventSink,
) -> tuple[Sequence[FileEntry], Sequence[str]]:
    """The entries to commit, and the paths of them that are not what this machine has. Raises Conflict."""
    if looked.head is None or options.force:
        return local, ()
    if looked.base is not None and looked.base.snapshot == looked.head.snapshot:
        return local, ()
    base = agreed_entries(store, looked, local, head, sink)
    merged = merge(base, local, head.entries, prefer=options.prefer)
    if merged.conflicts:
        raise Conflict(
            f"{count(len(merged.conflicts), 'file')} of {looked.dataset} changed here and in the store",
            hint=Message(
                Command("sync", *options.words, "--ours", below_data_blobs(looked.dataset)),
                " keeps yours, --theirs takes the store's",
            ),
            details=merged.conflicts,
        )
    return merged.entries, merged.taken_from_theirs


def confirm_changes(
    store: Store,
    looked: DatasetState,
    local: Sequence[FileEntry],
    head: Manifest,
    entries: Sequence[FileEntry],
    changes: Changes,
    options: SyncOptions,
    sink: EventSink,
) -> None:
    """`changes` lead from HEAD to `entries`.

    Raises NeedsConfirmation where much of what the store has, or work of others, would go.
    """
    if options.yes:
        return
    prefer = [f"--{options.prefer}"] if options.prefer else []
    command = Command("sync", *options.words, *prefer, below_data_blobs(looked.dataset))
    if options.force:
        base = agreed_entries(store, looked, local, head, sink)
        theirs = merge(base, local, head.entries, prefer="theirs").taken_from_theirs
        stored = {entry.path for entry in head.entries}
        if lost := [path for path in theirs if path in stored]:
            raise NeedsConfirmation(
                f"{count(len(lost), 'file')} of {looked.dataset} from other machines would be replaced or deleted",
                hint=Message("if that is intended: ", Command(*command.words, "--yes")),
                details=lost,
            )
    confirm_deletions(
        changes.deleted,
        head.entries,
        entries,
        where=f"from {looked.dataset} in the store",
        command=command,
        is_sure=False,
    )
