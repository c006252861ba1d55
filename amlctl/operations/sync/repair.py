"""Read back what a store has of a dataset, and say what is damaged or missing; send it again (`sync --repair`)."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from amlctl.core.events import EventSink, Note, Stage, StageProgress, Warned
from amlctl.core.manifest import FileEntry, Kind, Manifest, needs_no_bytes, repair_command
from amlctl.core.message import Message, count
from amlctl.core.store_keys import FORMAT_KEY, folders_of, shards_prefix
from amlctl.errors import AmlctlError, Conflict, IntegrityError, NotFound, SettingsError
from amlctl.operations.store.damage import Member, is_of_one_value, is_whole_shard, read_pack
from amlctl.parallel import in_parallel
from amlctl.snapshots.contents import place_key, stored_content_id
from amlctl.snapshots.heads import list_datasets, list_manifests, read_head
from amlctl.snapshots.manifests import read_manifest
from amlctl.snapshots.store_format import STORE_FORMAT, find_store_id
from amlctl.stores.contract import Store

_MOST_WORKERS = 4
"""Each holds a pack, or a piece of a large file, in memory."""


class Damaged(NamedTuple):
    """`contents` whose bytes are missing or wrong, each with the first entry that needs it, and `packs` whose bytes are
    not those of their name, also around their members."""

    contents: dict[str, FileEntry]
    packs: set[str]

    def with_neighbors(self, manifest: Manifest, entries: Sequence[FileEntry]) -> dict[str, FileEntry]:
        """The contents, and those of `entries` that are whole, but in a damaged pack."""
        found = dict(self.contents)
        for entry in entries if self.packs else ():
            place = manifest.places.get(entry.content_id)
            if place is not None and place.pack in self.packs:
                found.setdefault(entry.content_id, entry)
        return found


def damage(store: Store, manifest: Manifest, entries: Sequence[FileEntry], sink: EventSink) -> Damaged:
    """Reads every value that holds some of `entries`."""
    found = Damaged({}, set())
    packs: dict[str, list[Member]] = {}
    large: list[Member] = []
    seen: set[str] = set()
    for entry in entries:
        if needs_no_bytes(entry):
            continue
        place = manifest.places.get(entry.content_id)
        if place is None:
            found.contents.setdefault(entry.content_id, entry)
        elif place.kind is Kind.MIRROR:
            large.append((entry, place))
        elif entry.content_id not in seen:
            seen.add(entry.content_id)
            (packs.setdefault(place.pack, []) if place.kind is Kind.PACK else large).append((entry, place))
    total = sum(entry.size_bytes for entry in entries)
    done_files = done_bytes = 0
    checks = [partial(_check_pack, store, manifest, pack, members) for pack, members in packs.items()]
    checks += [partial(_check_large, store, manifest, [member]) for member in large]
    for checked, bad, pack in in_parallel(lambda check: check(), checks, min(_MOST_WORKERS, store.concurrency)):
        for entry in bad:
            found.contents.setdefault(entry.content_id, entry)
        found.packs.update([pack] if pack else ())
        done_files += len(checked)
        done_bytes += sum(entry.size_bytes for entry, _ in checked)
        sink(StageProgress(Stage.VERIFY, manifest.dataset, done_files, done_bytes, len(entries), total))
    sink(StageProgress(Stage.VERIFY, manifest.dataset, len(entries), total, len(entries), total, is_done=True))
    return found


_Checked = tuple[Sequence[Member], Sequence[FileEntry], str]
"""What was checked, what of it is missing or wrong, and the pack that is damaged."""


def _check_pack(store: Store, manifest: Manifest, pack: str, members: Sequence[Member]) -> _Checked:
    try:
        is_whole, bad = read_pack(store, manifest.dataset, pack, manifest.pack_sizes[pack], members)
    except AmlctlError as error:
        _raise_unless_lost(store, error)
        is_whole, bad = False, [entry for entry, _ in members]
    return members, bad, "" if is_whole else pack


def _check_large(store: Store, manifest: Manifest, members: Sequence[Member]) -> _Checked:
    [(entry, place)] = members
    try:
        found = stored_content_id(store, place_key(manifest, entry, place))
    except AmlctlError as error:
        _raise_unless_lost(store, error)
        found = ""
    return members, [] if found == entry.content_id else [entry], ""


def _raise_unless_lost(store: Store, error: AmlctlError) -> None:
    """Unless it is about the one value that was read."""
    if not isinstance(error, NotFound) and not is_of_one_value(store, error):
        raise error


def without(manifest: Manifest, bad: Container[str]) -> Manifest:
    """The manifest as if the store did not have these contents."""
    return replace(manifest, places={c: p for c, p in manifest.places.items() if c not in bad}, shards={})


def report_damage(bad: dict[str, FileEntry], manifest: Manifest) -> None:
    """Raises IntegrityError that lists what is damaged, if anything is."""
    if bad:
        raise IntegrityError(
            f"{count(len(bad), 'content')} of {manifest.dataset} damaged or missing in the store",
            hint=repair_command(manifest.dataset),
            details=[entry.path for entry in bad.values()],
        )


def to_send_again(
    store: Store, head: Manifest, here: Collection[str], sink: EventSink
) -> tuple[Mapping[str, FileEntry], Mapping[str, FileEntry]]:
    """Contents of HEAD that are damaged, each with an entry that needs it: those of this machine (`here`), and those
    that it does not have, for example because it has not pulled.

    A pack that is damaged around its members is replaced as far as these are here.
    """
    damaged = damage(store, head, head.entries, sink)
    bad = damaged.with_neighbors(head, [entry for entry in head.entries if entry.content_id in here])
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
            if not is_whole_shard(store, entry.key):
                store.delete(entry.key)


def read_back(store: Store, manifest_key: str, sent: Collection[str], sink: EventSink) -> None:
    """The manifest, and what was sent again, before it is reported as repaired. Raises IntegrityError."""
    manifest = read_manifest(store, manifest_key)
    entries = [entry for entry in manifest.entries if entry.content_id in sent]
    report_damage(damage(store, manifest, entries, sink).with_neighbors(manifest, entries), manifest)


def repair_format(store: Store) -> bool:
    """Whether it had to be repaired. Raises SettingsError (a newer format), and what the store raises."""
    found = store.get_versioned(FORMAT_KEY)
    present = None
    if found is not None:
        try:
            present = find_store_id(store)
        except IntegrityError:
            present = None
    elif not list_datasets(store):
        return False  # a new store
    wanted = _id_in_heads(store)
    if present is not None and wanted in ("", present):
        return False
    data = (json.dumps({"format": STORE_FORMAT, "id": wanted or os.urandom(16).hex()}) + "\n").encode()
    try:
        store.swap(FORMAT_KEY, data, expected=None if found is None else found.version)
    except Conflict:
        return False  # another command was faster
    return True


def _id_in_heads(store: Store) -> str:
    """The one that most HEADs have; empty where none has one."""
    ids: Counter[str] = Counter()
    for dataset in list_datasets(store):
        with suppress(IntegrityError, SettingsError):
            head = read_head(store, dataset)
            ids[head.store_id if head else ""] += 1
    del ids[""]
    return ids.most_common(1)[0][0] if ids else ""
