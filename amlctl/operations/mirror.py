"""Plain files of a mirrored dataset that nothing names any more: removed only when asked, and not carelessly."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from amlctl.core.events import EventSink, Note
from amlctl.core.manifest import FileEntry, dataset_folder, dataset_of_folder, mirror_key
from amlctl.errors import CheckFailed
from amlctl.stores.contract import Store
from amlctl.transfer.heads import list_datasets

_CAREFUL_ABOVE = 0.1
"""Share of a mirror's files above which deleting needs a word."""


def leftovers(
    store: Store, dataset: str, entries: Sequence[FileEntry], *, is_sure: bool, sink: EventSink
) -> Sequence[str]:
    """Keys of the files that `entries` do not have; the sink is told of each.

    Raises CheckFailed where they are more than a tenth and nobody is sure.
    """
    kept = {mirror_key(dataset, entry.path) for entry in entries}
    # A dataset may stand inside this one, with files that this one does not have.
    folder = f"{dataset_folder(dataset)}/"
    inside = tuple(
        f"mirror/{dataset_of_folder(other)}/" for other in list_datasets(store, folder) if other + "/" != folder
    )
    present = [
        entry.key for entry in store.list(f"mirror/{dataset}/") if not f"{entry.key}/".startswith(inside or ("\0",))
    ]
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


def delete_all(store: Store, keys: Sequence[str]) -> None:
    """In parallel."""
    if keys:
        with ThreadPoolExecutor(min(store.concurrency, len(keys))) as pool:
            list(pool.map(store.delete, keys))
