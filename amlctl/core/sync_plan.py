"""From "this is what the store shall hold" to "these bytes have to go there". Pure data.

`status`, `--dry-run` and the real sync use the same plan. Rules, in order:

1. Content that the store has already (from HEAD, from packs that arrived before, under any path) is reused.
2. New small files go into packs in canonical order; new large ones, and those of a dataset of only a few
   files, become objects. (Plain files of a mirror have a plan of their own.)
3. Where more than a third of the bytes of a dataset's packs is dead, the live rest of the deadest packs is sent
   again in packs of its own, but never more than the new bytes of this sync, so that no sync sends more than
   twice its change. What is left of such a pack follows with the next syncs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Callable

from amlctl.core.manifest import FileEntry, Kind, Manifest, StoredAt, StoredLayout, needs_no_bytes, total_bytes
from amlctl.core.pack import MAX_MEMBERS, local_size, stored_size

if TYPE_CHECKING:
    from amlctl.core.settings import LayoutName

FEW_FILES = 8
"""A dataset with fewer small files than this is not packed: nothing would be won."""
DEAD_SHARE = 1 / 3
"""Share of dead bytes in a dataset's packs from which they are repacked."""


@dataclass(frozen=True)
class Layout:
    """`name`: auto, pack or mirror. Files below `pack_below` bytes are packed, to packs of `pack_size` bytes."""

    name: LayoutName = "auto"
    pack_below: int = 1 << 20
    pack_size: int = 64 << 20

    def is_small(self, entry: FileEntry) -> bool:
        return entry.size_bytes < self.pack_below

    def packs(self, entries: Sequence[FileEntry]) -> bool:
        """Whether the small files of a dataset go into packs."""
        if self.name != "auto":
            return self.name == "pack"
        small = 0
        for entry in entries:
            small += self.is_small(entry) and not needs_no_bytes(entry)
            if small >= FEW_FILES:
                return True
        return False

    @property
    def is_mirror(self) -> bool:
        return self.name == "mirror"

    @property
    def written_as(self) -> StoredLayout:
        """The layout as results and manifests name it: what `auto` came to."""
        return "mirror" if self.is_mirror else "pack"


@dataclass(frozen=True)
class SyncPlan:
    """`packs`: lists of contents, one list a pack. `files` are sent alone, as objects or plain files.

    `repacked` are contents that are there already and are sent again; they share no pack with new ones. Sizes are
    those of the content; what goes over the wire may be less where members are deflated, and is a little more for
    the zips' own bytes. `places` may have further contents.
    """

    entries: Sequence[FileEntry]
    layout: StoredLayout
    places: Mapping[str, StoredAt]
    packs: Sequence[Sequence[FileEntry]] = ()
    files: Sequence[FileEntry] = ()
    repacked: frozenset[str] = field(default_factory=frozenset)

    @property
    def send_files(self) -> int:
        return sum(map(len, self.packs)) + len(self.files)

    @property
    def send_bytes(self) -> int:
        return sum(map(total_bytes, (*self.packs, self.files)))

    @property
    def reused_bytes(self) -> int:
        return max(0, total_bytes(self.entries) - self.send_bytes)


Known = Callable[[Sequence[FileEntry]], Mapping[str, StoredAt]]
"""Asked once with the entries whose content HEAD does not place; answers with what the store has besides."""


def plan_sync(
    entries: Sequence[FileEntry], head: Manifest, layout: Layout, known: Known, *, sent_bytes: int = 0
) -> SyncPlan:
    """What has to be sent so that the store holds `entries` (canonical order).

    `sent_bytes` of new content were sent already, before there was a plan; they count as change of this sync.
    """
    places = {content: place for content, place in head.places.items() if place.kind is not Kind.MIRROR}
    new: dict[str, FileEntry] = {}
    for entry in entries:
        if entry.content_id not in places and not needs_no_bytes(entry):
            new.setdefault(entry.content_id, entry)
    if new:
        places.update(known(list(new.values())))
    to_send = [entry for content, entry in new.items() if content not in places]
    is_packed = layout.packs(entries)
    small = [entry for entry in to_send if is_packed and layout.is_small(entry)]
    alone = [entry for entry in to_send if not (is_packed and layout.is_small(entry))]
    repacked = _repack(entries, head, sent_bytes + total_bytes(to_send))
    return SyncPlan(
        entries,
        layout.written_as,
        places,
        packs=split_packs(small, layout.pack_size) + split_packs(repacked, layout.pack_size),
        files=alone,
        repacked=frozenset(entry.content_id for entry in repacked),
    )


def _repack(entries: Sequence[FileEntry], head: Manifest, budget_bytes: int) -> list[FileEntry]:
    """Live contents of the deadest packs, at most `budget_bytes` of them, if too much is dead."""
    alive = {entry.content_id for entry in entries} & head.places.keys()
    # Without the zips' own bytes: most of the time this is enough to say that little is dead.
    if sum(head.places[content].length for content in alive) >= (1 - DEAD_SHARE) * sum(head.pack_sizes.values()):
        return []
    live: dict[str, dict[str, FileEntry]] = {}
    for entry in entries:
        place = head.places.get(entry.content_id)
        if place is not None and place.kind is Kind.PACK:
            live.setdefault(place.pack, {}).setdefault(entry.content_id, entry)
    held = {
        pack: sum(stored_size(entry.path, head.places[content].length) for content, entry in contents.items())
        for pack, contents in live.items()
    }
    sizes = {pack: head.pack_sizes[pack] for pack in held}
    total = sum(sizes.values())
    if sum(held.values()) >= (1 - DEAD_SHARE) * total:
        return []
    chosen: list[FileEntry] = []
    for pack in sorted(held, key=lambda pack: (held[pack] / max(1, sizes[pack]), pack)):
        if held[pack] >= (1 - DEAD_SHARE) * sizes[pack]:
            break
        for entry in live[pack].values():
            if entry.size_bytes <= budget_bytes:
                budget_bytes -= entry.size_bytes
                chosen.append(entry)
    return chosen


def split_packs(entries: Sequence[FileEntry], pack_size: int) -> list[list[FileEntry]]:
    """One list a pack, in the given order; a pack is full once it holds `pack_size` bytes."""
    packs: list[list[FileEntry]] = []
    filled = pack_size
    for entry in entries:
        if filled >= pack_size or len(packs[-1]) >= MAX_MEMBERS:
            packs.append([])
            filled = 0
        packs[-1].append(entry)
        filled += local_size(entry.path, entry.size_bytes)
    return packs
