"""Packs, objects and plain files: whether their bytes are those that their names, and the manifests, say."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

from amlctl.core.content_id import content_id, is_content_id
from amlctl.core.manifest import repair_command
from amlctl.core.message import Command, Message
from amlctl.core.store_keys import OBJECTS, PACKS
from amlctl.errors import AmlctlError, IntegrityError, NotFound
from amlctl.operations.store.damage import Damage, StoreListing, is_of_one_value
from amlctl.operations.store.verify_datasets import LOST_SNAPSHOT, Member, StoredDatasets
from amlctl.snapshots.contents import checked, stored_content_id
from amlctl.stores.contract import Store

_UNNAMED = Message(Command("store", "gc", "--yes"), " removes it: nothing names it")

Check = Callable[[], Sequence[Damage]]


def bytes_checks(store: Store, listing: StoreListing, datasets: StoredDatasets) -> Iterator[Check]:
    for key in listing.below(PACKS):
        listing.mark(key)
        name = key.rpartition("/")[2].removesuffix(".zip")
        members = sorted(datasets.members.get(name, ()), key=lambda member: member[1].offset)
        size_bytes = datasets.pack_sizes.get(name, 0)
        yield functools.partial(_check_pack, store, key, name, members, size_bytes, datasets.named_by.get(key, ""))
    for key in listing.below(OBJECTS):
        listing.mark(key)
        dataset, is_older = datasets.named_by.get(key, ""), key in datasets.older_by
        yield functools.partial(_check_whole, store, key, key.rpartition("/")[2], dataset, is_older=is_older)
    for key, entry in datasets.plain.items():
        if key in listing.sizes:
            listing.mark(key)
            dataset = datasets.named_by[key]
            wanted = entry.content_id
            yield functools.partial(_check_whole, store, key, wanted, dataset)


def _check_pack(
    store: Store, key: str, pack: str, members: Sequence[Member], size_bytes: int, dataset: str
) -> list[Damage]:
    """Read once: its bytes around the members, and each member where the manifests have it. Of a pack that is larger
    than the manifests say, which is damaged, the rest is not read."""
    repair = repair_command(dataset) if dataset else LOST_SNAPSHOT if members else _UNNAMED
    try:
        data = store.get(key, length=size_bytes + 1) if members else b""
        is_whole = is_content_id(pack) and (content_id(data) if members else stored_content_id(store, key)) == pack
    except NotFound:
        return []  # gc has removed it in the meantime, or it was missing from the listing
    except AmlctlError as error:
        return _unreadable(store, key, error, repair, dataset)
    if is_whole:
        wrong = [entry.path for entry, place in members if not _is_right(dataset, (entry, place), data)]
        if not wrong:
            return []
        return [Damage(key, f"a manifest has {path} elsewhere in it", repair, dataset) for path in wrong]
    lost = [entry.path for entry, place in members if not _is_right(dataset, (entry, place), data)]
    told = f"its bytes are not those of its name; of {dataset} damaged: {', '.join(lost) or 'no file'}"
    return [Damage(key, told if dataset else "its bytes are not those of its name", repair, dataset)]


def _is_right(dataset: str, member: Member, data: bytes) -> bool:
    entry, place = member
    stored = memoryview(data)[place.offset : place.offset + place.length]
    try:
        checked(dataset, entry, stored, place)
    except IntegrityError:
        return False
    return len(stored) == place.length


def _check_whole(store: Store, key: str, wanted: str, dataset: str, *, is_older: bool = False) -> list[Damage]:
    repair = repair_command(dataset) if dataset else LOST_SNAPSHOT if is_older else _UNNAMED
    try:
        found = stored_content_id(store, key)
    except NotFound:
        return []
    except AmlctlError as error:
        return _unreadable(store, key, error, repair, dataset)
    what = "its bytes are not those of its name" if key.startswith(OBJECTS) else "its bytes are not those of HEAD"
    return [] if found == wanted else [Damage(key, what, repair, dataset)]


def _unreadable(store: Store, key: str, error: AmlctlError, repair: str, dataset: str) -> list[Damage]:
    if not is_of_one_value(store, error):
        raise error
    return [Damage(key, f"cannot be read: {error.message}", repair, dataset)]
