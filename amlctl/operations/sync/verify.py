"""Read back what a store has of a dataset, and say what is damaged or missing."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from functools import partial

from amlctl.core.events import EventSink, Stage, StageProgress
from amlctl.core.manifest import FileEntry, Kind, Manifest, StoredAt, needs_no_bytes, repair_command
from amlctl.core.store_keys import pack_key
from amlctl.core.wording import count
from amlctl.errors import AmlctlError, IntegrityError, NotFound
from amlctl.operations.store.damage import is_of_one_value
from amlctl.parallel import in_parallel
from amlctl.snapshots.contents import PackRange, checked, pack_ranges, place_key, read_range, stored_content_id
from amlctl.stores.contract import Store

_MOST_WORKERS = 4
"""Each holds a stretch of a pack, or a piece of a large file, in memory."""


def damaged_contents(
    store: Store, manifest: Manifest, entries: Sequence[FileEntry], sink: EventSink
) -> dict[str, FileEntry]:
    """Content ids whose bytes are missing or wrong, each with the first entry that needs it. Reads everything."""
    bad: dict[str, FileEntry] = {}
    packs: dict[str, list[tuple[FileEntry, StoredAt]]] = {}
    large: list[tuple[FileEntry, StoredAt]] = []
    seen: set[str] = set()
    for entry in entries:
        if needs_no_bytes(entry):
            continue
        place = manifest.places.get(entry.content_id)
        if place is None:
            bad.setdefault(entry.content_id, entry)
        elif place.kind is Kind.MIRROR:
            large.append((entry, place))
        elif entry.content_id not in seen:
            seen.add(entry.content_id)
            if place.kind is Kind.PACK:
                packs.setdefault(place.pack, []).append((entry, place))
            else:
                large.append((entry, place))
    total = sum(entry.size_bytes for entry in entries)
    done_files = done_bytes = 0
    stretches = [one for pack, wanted in packs.items() for one in pack_ranges(manifest.dataset, pack, wanted)]
    checks = [partial(_bad_members, store, stretch) for stretch in stretches]
    checks += [partial(_bad_large, store, manifest, entry, place) for entry, place in large]
    for checked_entries, found in in_parallel(lambda check: check(), checks, min(_MOST_WORKERS, store.concurrency)):
        for entry in found:
            bad.setdefault(entry.content_id, entry)
        done_files += len(checked_entries)
        done_bytes += sum(entry.size_bytes for entry in checked_entries)
        sink(StageProgress(Stage.VERIFY, manifest.dataset, done_files, done_bytes, len(entries), total))
    sink(StageProgress(Stage.VERIFY, manifest.dataset, len(entries), total, len(entries), total, is_done=True))
    return bad


def damaged_packs(store: Store, manifest: Manifest) -> set[str]:
    """Packs whose bytes are not those of their name, also around their members."""

    def is_whole(pack: str) -> bool:
        try:
            return stored_content_id(store, pack_key(pack)) == pack
        except AmlctlError as error:
            if isinstance(error, NotFound) or is_of_one_value(store, error):
                return False
            raise

    packs = sorted(manifest.pack_sizes)
    are_whole = in_parallel(is_whole, packs, min(_MOST_WORKERS, store.concurrency))
    return {pack for pack, is_right in zip(packs, are_whole, strict=True) if not is_right}


def _bad_members(store: Store, stretch: PackRange) -> tuple[list[FileEntry], list[FileEntry]]:
    remaining = {entry.content_id: entry for entry, _ in stretch.members}
    entries = list(remaining.values())
    bad: list[FileEntry] = []
    try:
        for entry, place, stored in read_range(store, stretch):
            del remaining[entry.content_id]
            try:
                checked(stretch.dataset, entry, stored, place)
            except IntegrityError:
                bad.append(entry)
    except AmlctlError as error:
        if not isinstance(error, (NotFound, IntegrityError)) and not is_of_one_value(store, error):
            raise
        bad += remaining.values()  # the pack is gone, too short or unreadable: what was not seen of it is lost
    return entries, bad


def _bad_large(
    store: Store, manifest: Manifest, entry: FileEntry, place: StoredAt
) -> tuple[list[FileEntry], list[FileEntry]]:
    key = place_key(manifest, entry, place)
    try:
        found = stored_content_id(store, key)
    except AmlctlError as error:
        if not isinstance(error, NotFound) and not is_of_one_value(store, error):
            raise
        found = ""
    return [entry], [] if found == entry.content_id else [entry]


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
