"""Plain files of a mirrored dataset: whose they are, and those that nothing names any more, which are removed only
when asked, and not carelessly."""

from __future__ import annotations

from collections.abc import Sequence

from amlctl.core.events import EventSink, Note
from amlctl.core.manifest import ONE_FILE, FileEntry, Manifest
from amlctl.core.message import Command, Message
from amlctl.core.store_keys import mirror_key
from amlctl.core.wording import below_data_blobs, count
from amlctl.errors import CheckFailed, Conflict, NotFound, SettingsError
from amlctl.mirror.nested import mirrors_sharing_files
from amlctl.snapshots.contents import stored_content_id
from amlctl.snapshots.heads import datasets_inside
from amlctl.stores.contract import Store

_CAREFUL_ABOVE = 0.1
"""Share of a mirror's files above which deleting needs a word."""


def refuse_shared_files(store: Store, dataset: str, entries: Sequence[FileEntry]) -> None:
    """Raises Conflict where the plain files of `entries` are, or would be, those of another mirror as well."""
    for other in mirrors_sharing_files(store, dataset, entries):
        outer, inner = sorted((dataset, other), key=len)
        raise Conflict(
            f"{dataset} cannot be written as a mirror: its plain files are those of the mirror {other} as well, "
            "which would be damaged",
            hint=Message(
                "sync only one of them; ",
                Command("sync", "--layout", "pack", below_data_blobs(dataset)),
                " writes other files, and ",
                f"/{inner[len(outer) + 1 :]} in data_blobs/{outer}/.amlctlignore keeps it out of {outer}",
            ),
        )


def refuse_unfit_names(store: Store, dataset: str, files: Sequence[FileEntry]) -> None:
    """Raises SettingsError that lists the files whose name a plain file in the store cannot have."""
    refused: list[SettingsError] = []
    for entry in files:
        try:
            store.check_key(mirror_key(dataset, entry.path))
        except SettingsError as error:
            refused.append(error)
    if len(refused) == 1:
        raise refused[0]
    if refused:
        raise SettingsError(
            f"{count(len(refused), 'file')} of {dataset} cannot have their names in {store.url}",
            hint=refused[0].hint,
            details=[error.message for error in refused],
        )


def arrived_files(store: Store, dataset: str, files: Sequence[FileEntry]) -> set[FileEntry]:
    """Those that stand in the store as they are here, as far as it says so."""
    stored = {entry.key: entry.content_id for entry in store.list(mirror_key(dataset, ""))}
    return {entry for entry in files if stored.get(mirror_key(dataset, entry.path)) == entry.content_id}


def undamaged_plain_files(store: Store, head: Manifest, paths: frozenset[str]) -> frozenset[str]:
    """All of `paths`, after a look whether they still are what HEAD says: a sync from here broke off, and this machine
    does not have those bytes. Raises Conflict where they are not."""
    replaced = [entry.path for entry in head.entries if entry.path in paths and not _is_as_listed(store, head, entry)]
    if replaced:
        raise Conflict(
            f"{count(len(replaced), 'plain file')} of {head.dataset} replaced in the store by a sync that broke off",
            hint=Message("on the machine that has them: ", Command("sync", "--repair", below_data_blobs(head.dataset))),
            details=replaced,
        )
    return paths


def _is_as_listed(store: Store, head: Manifest, entry: FileEntry) -> bool:
    try:
        return stored_content_id(store, mirror_key(head.dataset, entry.path)) == entry.content_id
    except NotFound:
        return False


def leftovers(
    store: Store, dataset: str, entries: Sequence[FileEntry], *, is_sure: bool, sink: EventSink
) -> Sequence[str]:
    """Keys of the files that `entries` do not have; the sink is told of each.

    Raises CheckFailed where they are more than a tenth and nobody is sure.
    """
    kept = {mirror_key(dataset, entry.path) for entry in entries}
    # A dataset may stand inside this one, with files that this one does not have.
    inside = tuple(mirror_key(other, "") for other in datasets_inside(store, dataset))
    listed = [*store.list(mirror_key(dataset, ""))]
    present = [entry.key for entry in listed if not f"{entry.key}/".startswith(inside or ("\0",))]
    if store.info(mirror_key(dataset, ONE_FILE)) is not None:
        present.append(mirror_key(dataset, ONE_FILE))
    gone = [key for key in present if key not in kept]
    for key in gone:
        sink(Note(f"no longer in {dataset}: {key}"))
    if len(gone) > _CAREFUL_ABOVE * len(present) and not is_sure:
        raise CheckFailed(
            f"{len(gone)} of {len(present)} files of the mirror of {dataset} would be deleted",
            hint="add --yes if that is meant",
            details=gone,
        )
    return gone
