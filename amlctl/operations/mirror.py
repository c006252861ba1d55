"""Plain files of a mirrored dataset that nothing names any more: removed only when asked, and not carelessly."""

from __future__ import annotations

from collections.abc import Sequence

from amlctl.core.events import EventSink, Note
from amlctl.core.manifest import FileEntry, mirror_key
from amlctl.errors import CheckFailed
from amlctl.stores.contract import Store

_CAREFUL_ABOVE = 0.1
"""Share of a mirror's files above which deleting needs a word."""


def delete_leftovers(
    store: Store, dataset: str, entries: Sequence[FileEntry], *, is_sure: bool, sink: EventSink
) -> None:
    """List what goes, then delete it. Raises CheckFailed where it is more than a tenth and nobody is sure."""
    kept = {mirror_key(dataset, entry.path) for entry in entries}
    present = [entry.key for entry in store.list(f"mirror/{dataset}/")]
    gone = [key for key in present if key not in kept]
    for key in gone:
        sink(Note(f"no longer in {dataset}: {key}"))
    if len(gone) > _CAREFUL_ABOVE * len(present) and not is_sure:
        raise CheckFailed(
            f"{len(gone)} of {len(present)} files of the mirror of {dataset} would be deleted",
            hint="add --yes if that is meant",
            details=gone,
        )
    for key in gone:
        store.delete(key)
