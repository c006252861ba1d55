"""Read back everything that a store holds, and check it against its names and against what names it.

A value whose name is a content id is checked as a whole, so that packs are also whole around their members; the others
(HEADs, indexes, records) by what they say of each other. What has neither is listed as unchecked.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from amlctl.core.events import EventSink, Stage, StageProgress
from amlctl.core.head import Head
from amlctl.core.manifest import FileEntry, Kind, Manifest, StoredAt, needs_no_bytes, repair_command, snapshot_id
from amlctl.core.message import Command, Message, count
from amlctl.core.store_keys import (
    DATASETS,
    FORMAT_KEY,
    OBJECTS,
    PACKS,
    dataset_of_key,
    folders_of,
    head_key_in,
    is_head_key,
    is_shard_key,
    mirror_key,
    object_key,
    pack_key,
)
from amlctl.errors import AmlctlError, IntegrityError, NotFound
from amlctl.operations.context import Context, Document
from amlctl.operations.store.damage import (
    Damage,
    Member,
    StoreListing,
    damaged_bytes,
    is_whole_shard,
    read_pack,
    unreadable,
)
from amlctl.operations.store.verify_runs import Check, code_checks, manifests_of_runs, run_checks
from amlctl.parallel import ended_by_interrupt, in_parallel
from amlctl.snapshots.contents import stored_content_id
from amlctl.snapshots.heads import find_head
from amlctl.snapshots.manifests import read_with_header
from amlctl.snapshots.store_format import find_store_id, require_format
from amlctl.stores.contract import Store
from amlctl.stores.wrappers import without_copies

LOST_SNAPSHOT = "no command does, since only an older snapshot needs it; gc will remove that one in time"


@dataclass
class StoredDatasets:
    """What can be read of them. `heads` has the manifest of each HEAD, by dataset; `members` what each pack holds,
    `pack_sizes` the size of each in bytes; `plain` the plain file of each key; `named_by` a dataset whose HEAD needs
    the value of a key, `older_by` one that needs it for an older snapshot."""

    heads: dict[str, Manifest] = field(default_factory=dict)
    members: dict[str, set[Member]] = field(default_factory=dict)
    pack_sizes: dict[str, int] = field(default_factory=dict)
    plain: dict[str, FileEntry] = field(default_factory=dict)
    named_by: dict[str, str] = field(default_factory=dict)
    older_by: dict[str, str] = field(default_factory=dict)
    damages: list[Damage] = field(default_factory=list)


def check_datasets(store: Store, listing: StoreListing, store_id: str | None) -> StoredDatasets:
    found = StoredDatasets()
    by_dataset: dict[str, list[str]] = {}
    for key in listing.below(DATASETS):
        if is_shard_key(key):
            listing.mark(key)
            found.damages += _check_shard(store, key)
        elif is_head_key(key) or key.endswith(".gz"):
            listing.mark(key)
            by_dataset.setdefault(dataset_of_key(key), []).append(key)
    not_committed = manifests_of_runs(store, listing)
    for dataset, keys in by_dataset.items():
        manifests = [key for key in keys if not is_head_key(key)]
        head_keys = [head_key_in(folder) for folder in folders_of(dataset)]
        head_key = next((key for key in head_keys if key in keys), head_keys[0])
        head = None
        if head_key in keys:
            head = _check_head(store, head_key, dataset, store_id, manifests, found)
        elif not not_committed.issuperset(manifests):
            what = f"is missing, although {count(len(manifests), 'snapshot')} of the dataset are there"
            found.damages.append(Damage(head_key, what, repair_command(dataset), dataset))
        for key in manifests:
            manifest, damages = _check_manifest(store, key)
            found.damages += damages
            is_head = head is not None and key == head.manifest_key
            if manifest is not None:
                _take(manifest, found, listing, is_head=is_head)
            if head is not None and is_head and manifest is not None:
                found.heads[dataset] = manifest
                if manifest.layout != head.layout:
                    what = f"has the layout {head.layout}, its manifest {manifest.layout}"
                    found.damages.append(Damage(head_key, what, repair_command(dataset), dataset))
    return found


def _check_head(
    store: Store,
    key: str,
    dataset: str,
    store_id: str | None,
    manifests: Sequence[str],
    found: StoredDatasets,
) -> Head | None:
    """None where it names no manifest that is there."""

    def damaged(what: str) -> None:
        found.damages.append(Damage(key, what, repair_command(dataset), dataset))

    try:
        head = find_head(store, dataset)
    except AmlctlError as error:
        damaged(unreadable(store, error))
        return None
    if head is None:
        return None  # removed in the meantime
    if head.is_fence:
        if manifests and head.before and not head.removed_at:
            damaged("names no snapshot, although some are there")
        return None
    if store_id is not None and head.store_id and head.store_id != store_id:
        damaged("names another store than format.json")
    if head.manifest_key not in manifests:
        damaged(f"names {head.manifest_key}, which is missing")
        return None
    return head


def _check_manifest(store: Store, key: str) -> tuple[Manifest | None, Sequence[Damage]]:
    """None where it cannot be used."""
    damages: list[Damage] = []

    def damaged(what: str) -> tuple[None, Sequence[Damage]]:
        dataset = dataset_of_key(key)
        damages.append(Damage(key, what, repair_command(dataset), dataset))
        return None, damages

    try:
        header, manifest = read_with_header(store, key)
    except NotFound as error:
        return damaged(f"cannot be read: {error.message}")
    except AmlctlError as error:
        return damaged(unreadable(store, error))
    if snapshot_id(manifest.entries) != manifest.snapshot:
        return damaged("lists other files than those of its snapshot")
    if header.size_bytes != manifest.size_bytes:
        damaged(f"says {header.size_bytes} bytes, its files have {manifest.size_bytes}")
    unplaced = [e.path for e in manifest.entries if not needs_no_bytes(e) and e.content_id not in manifest.places]
    if unplaced:
        return damaged(f"does not say where the bytes of {count(len(unplaced), 'file')} are")
    return manifest, damages


def _check_shard(store: Store, key: str) -> list[Damage]:
    dataset = dataset_of_key(key)
    try:
        is_whole = is_whole_shard(store, key)
    except NotFound:
        return []
    except AmlctlError as error:
        return [Damage(key, unreadable(store, error), repair_command(dataset), dataset)]
    return [] if is_whole else [Damage(key, _NOT_OF_NAME, repair_command(dataset), dataset)]


def _take(manifest: Manifest, found: StoredDatasets, listing: StoreListing, *, is_head: bool) -> None:
    """What the manifest needs of other values; what is missing of it is damage."""
    dataset = manifest.dataset
    missing: dict[str, str] = {}
    for entry in manifest.entries:
        place = manifest.places.get(entry.content_id)
        if needs_no_bytes(entry):
            if not is_head or manifest.layout != "mirror" or entry.path.endswith("/"):
                continue
            place = StoredAt(Kind.MIRROR)
        if place is None:
            continue
        if place.kind is Kind.MIRROR:
            if not is_head:
                continue  # it keeps the newest bytes only
            key = mirror_key(dataset, entry.path)
            found.plain[key] = entry
        elif place.kind is Kind.PACK:
            key = pack_key(place.pack)
            found.members.setdefault(place.pack, set()).add((entry, place))
            found.pack_sizes[place.pack] = manifest.pack_sizes[place.pack]
        else:
            key = object_key(entry.content_id)
        (found.named_by if is_head else found.older_by).setdefault(key, dataset)
        if key not in listing.sizes:
            missing.setdefault(key, entry.path)
    for key, path in missing.items():
        if is_head:
            damage = Damage(key, f"is missing; {dataset} has {path} there", repair_command(dataset), dataset)
        else:
            what = f"is missing; snapshot {manifest.snapshot[:12]} of {dataset} has {path} there"
            damage = Damage(key, what, LOST_SNAPSHOT)
        found.damages.append(damage)


_NOT_OF_NAME = "its bytes are not those of its name"
_UNNAMED = Message(Command("store", "gc", "--yes"), " removes it: nothing names it")


def bytes_checks(store: Store, listing: StoreListing, datasets: StoredDatasets) -> Iterator[Check]:
    for key in listing.below(PACKS):
        listing.mark(key)
        name = key.rpartition("/")[2].removesuffix(".zip")
        members = sorted(datasets.members.get(name, ()), key=lambda member: member[1].offset)
        size_bytes = datasets.pack_sizes.get(name, 0)
        yield functools.partial(_check_pack, store, key, name, members, size_bytes, datasets.named_by.get(key, ""))
    for key in listing.below(OBJECTS):
        listing.mark(key)
        dataset, wanted = datasets.named_by.get(key, ""), [key.rpartition("/")[2]]
        repair = _repair(dataset, is_older=key in datasets.older_by)
        yield functools.partial(damaged_bytes, store, key, wanted, wrong=_NOT_OF_NAME, repair=repair, dataset=dataset)
    for key, entry in datasets.plain.items():
        if key in listing.sizes:
            listing.mark(key)
            dataset, wrong = datasets.named_by[key], "its bytes are not those of HEAD"
            repair = repair_command(dataset)
            yield functools.partial(
                damaged_bytes, store, key, [entry.content_id], wrong=wrong, repair=repair, dataset=dataset
            )


def _repair(dataset: str, *, is_older: bool) -> str:
    """Of bytes that the HEAD of a dataset needs, or only an older snapshot, or nothing."""
    return repair_command(dataset) if dataset else LOST_SNAPSHOT if is_older else _UNNAMED


def _check_pack(
    store: Store, key: str, pack: str, members: Sequence[Member], size_bytes: int, dataset: str
) -> list[Damage]:
    """Its bytes around the members, and each member where the manifests have it."""
    repair = _repair(dataset, is_older=bool(members))
    lost: Sequence[FileEntry] = ()
    try:
        if members:
            is_whole, lost = read_pack(store, dataset, pack, size_bytes, members)
        else:
            is_whole = stored_content_id(store, key) == pack
    except NotFound:
        return []  # gc has removed it in the meantime, or it was missing from the listing
    except AmlctlError as error:
        return [Damage(key, f"cannot be read: {unreadable(store, error)}", repair, dataset)]
    if is_whole:
        return [Damage(key, f"a manifest has {entry.path} elsewhere in it", repair, dataset) for entry in lost]
    what = _NOT_OF_NAME
    if dataset:
        what += f"; of {dataset} damaged: {', '.join(entry.path for entry in lost) or 'no file'}"
    return [Damage(key, what, repair, dataset)]


_MOST_WORKERS = 4
"""Each holds a pack, or a piece of a large file, in memory."""


@dataclass(frozen=True)
class VerifyResult(Document):
    """`files` and `bytes` are those of the datasets at their HEADs. `damaged` has a line for each value or file that is
    wrong or missing, `damages` the same in parts; `to_repair` the datasets among them; `unchecked` how many values of
    which kind have nothing that they could be checked against."""

    datasets: int
    files: int
    bytes: int
    damaged: Sequence[str]
    to_repair: Sequence[str]
    damages: Sequence[Damage] = ()
    unchecked: Sequence[str] = ()


def verify_store(context: Context) -> VerifyResult:
    """The store in use, not what this machine has of it. Raises NotFound (no store), SettingsError (a newer
    format) and what the store raises."""
    store = without_copies(context.store)
    with suppress(IntegrityError):  # reported with the other damage
        require_format(store)
    return verify(store, context.sink)


def verify(store: Store, sink: EventSink) -> VerifyResult:
    """Reads the whole store. Raises SettingsError (a newer format) and what the store raises."""
    with ended_by_interrupt(store):
        listing = StoreListing(store)
        damages: list[Damage] = []
        store_id = _store_id(store, listing, damages)
        datasets = check_datasets(store, listing, store_id)
        damages += datasets.damages
        checks = [
            *bytes_checks(store, listing, datasets),
            *code_checks(store, listing),
            *run_checks(store, listing),
        ]
        for found in _run(checks, sink):
            damages += found
    damages = sorted(set(damages), key=lambda damage: damage.key)
    return VerifyResult(
        len(datasets.heads),
        sum(len(manifest.entries) for manifest in datasets.heads.values()),
        sum(manifest.size_bytes for manifest in datasets.heads.values()),
        [damage.message for damage in damages],
        _to_repair(damages, datasets),
        damages,
        listing.unchecked(),
    )


def _store_id(store: Store, listing: StoreListing, damages: list[Damage]) -> str | None:
    """None where it cannot be read."""
    repair = Message(Command("sync", "--repair", "PATH"), ", with any dataset")
    try:
        store_id = find_store_id(store)
    except IntegrityError as error:
        damages.append(Damage(FORMAT_KEY, error.message, repair))
        return None
    if FORMAT_KEY not in listing.sizes:
        damages.append(Damage(FORMAT_KEY, "is missing", repair))
        return None
    return store_id


def _to_repair(damages: Iterable[Damage], datasets: StoredDatasets) -> list[str]:
    return sorted({damage.dataset or datasets.named_by.get(damage.key, "") for damage in damages} - {""})


def _run(checks: Sequence[Callable[[], Sequence[Damage]]], sink: EventSink) -> Iterable[Sequence[Damage]]:
    for number, damages in enumerate(in_parallel(lambda check: check(), checks, _MOST_WORKERS), 1):
        yield damages
        sink(StageProgress(Stage.VERIFY, "store", number, 0, len(checks), 0))
    sink(StageProgress(Stage.VERIFY, "store", len(checks), 0, len(checks), 0, is_done=True))
