"""What `sync --repair` adds to a sync: find all that is damaged, and read back what was sent again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from amlctl.core.content_id import content_id
from amlctl.core.document import MOST_BYTES, gunzip
from amlctl.core.events import EventSink, Note, Warned
from amlctl.core.manifest import FileEntry, Manifest, repair_command
from amlctl.core.message import Message
from amlctl.core.store_keys import folders_of, shards_prefix
from amlctl.core.wording import count
from amlctl.errors import IntegrityError, NotFound
from amlctl.operations.sync.verify import damaged_contents, damaged_packs, report_damage
from amlctl.snapshots.heads import list_manifests
from amlctl.snapshots.manifests import read_manifest
from amlctl.stores.contract import Store


def to_send_again(
    store: Store, head: Manifest, here: Collection[str], sink: EventSink
) -> tuple[Mapping[str, FileEntry], Mapping[str, FileEntry]]:
    """Contents of HEAD that are damaged, each with an entry that needs it: those of this machine (`here`), and those
    that it does not have, for example because it has not pulled.

    A pack that is damaged around its members is replaced as far as these are here.
    """
    bad = damaged_contents(store, head, head.entries, sink)
    packs = damaged_packs(store, head)
    for entry in head.entries if packs else ():
        place = head.places.get(entry.content_id)
        if place is not None and place.pack in packs and entry.content_id in here:
            bad.setdefault(entry.content_id, entry)
    found = {content: entry for content, entry in bad.items() if content in here}
    if found:
        sink(Note(f"{head.dataset}: sending {count(len(found), 'damaged or missing content')} again"))
    return found, {content: entry for content, entry in bad.items() if content not in here}


def report_not_here(dataset: str, damaged: Mapping[str, FileEntry], entries: Sequence[FileEntry]) -> None:
    """Raises IntegrityError if some of `entries` are damaged in the store and this machine cannot send them."""
    paths = [entry.path for entry in entries if entry.content_id in damaged] if damaged else []
    if paths:
        raise IntegrityError(
            f"{count(len(paths), 'file')} of {dataset} damaged or missing in the store, in a version that is not on"
            " this machine; all others are repaired",
            hint=Message(repair_command(dataset), " on a machine that has them"),
            details=paths,
        )


def drop_lost_lists(store: Store, dataset: str, sink: EventSink) -> None:
    """Once HEAD is good: remove manifests and shards that cannot be read: nothing repairs them, and gc stops there."""
    for entry in list_manifests(store, dataset):
        try:
            read_manifest(store, entry.key)
        except (IntegrityError, NotFound) as error:
            sink(Warned(f"{dataset}: an older list of files was lost, and is removed: {error.message}"))
            store.delete(entry.key)
    for folder in folders_of(dataset):
        for entry in [*store.list(shards_prefix(folder))]:
            if not _is_whole_shard(store, entry.key):
                store.delete(entry.key)


def _is_whole_shard(store: Store, key: str) -> bool:
    try:
        return key.endswith(f"/{content_id(gunzip(store.get(key, length=MOST_BYTES)))}.gz")
    except (ValueError, IntegrityError):
        return False


def read_back(
    store: Store, manifest_key: str, sent: Collection[str], pack_sizes: Mapping[str, int], sink: EventSink
) -> None:
    """The manifest, and what was sent again, before it is said to be repaired. Raises IntegrityError."""
    manifest = read_manifest(store, manifest_key)
    entries = [entry for entry in manifest.entries if entry.content_id in sent]
    bad = damaged_contents(store, manifest, entries, sink)
    packs = damaged_packs(store, replace(manifest, pack_sizes=pack_sizes))
    for entry in entries if packs else ():
        if manifest.places[entry.content_id].pack in packs:
            bad.setdefault(entry.content_id, entry)
    report_damage(bad, manifest)
