"""What this machine and the store have agreed on: where a three-way merge starts.

The base is kept here with its entries, so that no gc takes it. A command that was killed has left its step behind
(`SyncState.begin`); what it had done by then is worked out from what the folder has and from where HEAD is.
"""

from __future__ import annotations

from collections.abc import Sequence

from amlctl.core.diff import arrived
from amlctl.core.events import EventSink, Warned
from amlctl.core.head import HeadValue, Relation, parse_head, relation
from amlctl.core.manifest import FileEntry, Manifest, decode_section
from amlctl.errors import IntegrityError, NotFound
from amlctl.localfs.sync_state import Base, Step
from amlctl.operations.sync.dataset_state import DatasetState
from amlctl.snapshots.manifests import read_manifest
from amlctl.stores.contract import Store


def agreed_entries(
    store: Store, looked: DatasetState, local: Sequence[FileEntry], stored: Manifest, sink: EventSink
) -> Sequence[FileEntry]:
    """Empty where nothing was agreed, or where it cannot be known any more. `stored` is what HEAD lists, or another
    snapshot that is to come here."""
    if looked.base is not None and looked.base.snapshot == stored.snapshot:
        return stored.entries
    head = None if looked.head is None else looked.head.value
    entries, seen = _follow(store, looked, local, head)
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


def _follow(
    store: Store, looked: DatasetState, local: Sequence[FileEntry], head: HeadValue | None
) -> tuple[Sequence[FileEntry], HeadValue | None]:
    """The base, and the steps that broke off since; the HEAD that was seen last."""
    entries: Sequence[FileEntry] = ()
    seen: HeadValue | None = None
    agreement = looked.agreement
    if agreement.base is not None:
        entries, seen = _entries(store, looked, agreement.base), _head(looked, agreement.base)
    for step, base in agreement.under_way:
        tried = _head(looked, base)
        if step is not Step.COMMIT:
            before = () if step is Step.PULL_ALL else entries
            entries, seen = arrived(before, local, _entries(store, looked, base)), tried
        elif head is not None and tried is not None and tried.commit in (head.commit, *head.before):
            entries, seen = _entries(store, looked, base), tried
    return entries, seen


def _entries(store: Store, looked: DatasetState, base: Base) -> Sequence[FileEntry]:
    if base.section:
        entries: list[FileEntry] = []
        decode_section(base.section, entries, {}, {})
        return entries
    for source in (looked.kept, store):
        try:
            return read_manifest(source, base.manifest_key).entries
        except (NotFound, IntegrityError):
            continue
    return ()


def _head(looked: DatasetState, base: Base) -> HeadValue | None:
    return parse_head(base.head, looked.dataset) if base.head else None
