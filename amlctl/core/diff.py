"""What changed between snapshots, how three of them merge, and which paths exclude each other.

A file is not a folder at the same time, and some file systems take two spellings for one name, by case (macOS,
Windows) or by Unicode normal form (macOS).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from amlctl.core.manifest import ONE_FILE, FileEntry, entry_order


@dataclass(frozen=True)
class Changes:
    """From one list of entries to another. Paths are in canonical order."""

    added: Sequence[str]
    modified: Sequence[str]
    deleted: Sequence[str]
    unchanged: int

    @property
    def count(self) -> int:
        return len(self.added) + len(self.modified) + len(self.deleted)

    @property
    def is_empty(self) -> bool:
        return not self.count


def by_path(entries: Iterable[FileEntry]) -> dict[str, FileEntry]:
    return {entry.path: entry for entry in entries}


def diff(old: Sequence[FileEntry], new: Sequence[FileEntry]) -> Changes:
    """Both in canonical order. A changed executable bit is a modification."""
    before = by_path(old)
    added, modified, unchanged = [], [], 0
    for entry in new:
        was = before.pop(entry.path, None)
        if was is None:
            added.append(entry.path)
        elif was == entry:
            unchanged += 1
        else:
            modified.append(entry.path)
    return Changes(added, modified, list(before), unchanged)


def arrived(base: Sequence[FileEntry], local: Sequence[FileEntry], target: Sequence[FileEntry]) -> Sequence[FileEntry]:
    """What was agreed, once a transfer that was to make `local` what `target` has broke off.

    Where the folder is as the target says, the transfer has made it so; elsewhere `base` still holds. Folders that are
    empty only because their files have not arrived, or are gone already, are the transfer's as well.
    """
    agreed, here, wanted = by_path(base), by_path(local), by_path(target)
    folders = {path[: at + 1] for path in {*agreed, *wanted} for at, sign in enumerate(path) if sign == "/"}
    for path in {*agreed, *wanted, *here}:
        entry = here.get(path)
        if entry == wanted.get(path) or (path in folders and path not in agreed):
            agreed.pop(path, None)
            if entry is not None:
                agreed[path] = entry
    return sorted(agreed.values(), key=entry_order)


class Side(Enum):
    """Of a merge; the values are the options that choose it."""

    OURS = "--ours"
    THEIRS = "--theirs"


class Merge(NamedTuple):
    """Of two sides that both started from `base`. `conflicts`: paths that both changed, differently."""

    entries: Sequence[FileEntry]
    conflicts: Sequence[str]
    taken_from_theirs: Sequence[str]


def merge(
    base: Sequence[FileEntry],
    ours: Sequence[FileEntry],
    theirs: Sequence[FileEntry],
    *,
    prefer: Side | None = None,
) -> Merge:
    """Three-way, path by path: the side that changed wins; where both did, `prefer` decides.

    `taken_from_theirs` are the paths whose result differs from ours. Without `prefer` a conflict keeps ours
    in `entries` and is listed; nothing may then be written. A file where the other side has made a folder is
    a conflict of the file's path.
    """
    was, mine, other = by_path(base), by_path(ours), by_path(theirs)
    result: dict[str, FileEntry] = {}
    conflicts: list[str] = []
    taken: list[str] = []
    for path in {**mine, **other}:
        old, our, their = was.get(path), mine.get(path), other.get(path)
        if our == their or their == old:
            chosen = our
        elif our == old:
            chosen = their
            taken.append(path)
        else:
            if prefer is None:
                conflicts.append(path)
            chosen = their if prefer is Side.THEIRS else our
            if chosen is not our:
                taken.append(path)
        if chosen is not None:
            result[path] = chosen
    conflicts += _settle_shapes(result, mine, prefer, taken)
    entries = sorted(result.values(), key=entry_order)
    return Merge(entries, sorted(set(conflicts)), sorted(set(taken)))


def _settle_shapes(
    result: dict[str, FileEntry], mine: Mapping[str, FileEntry], prefer: Side | None, taken: list[str]
) -> list[str]:
    """Remove what cannot stand beside each other: `a` and `a/b`, and the mark of a folder that is not empty."""
    folders: dict[str, list[str]] = {}
    if ONE_FILE in result and len(result) > 1:
        folders[ONE_FILE] = [path for path in result if path != ONE_FILE]
    for path in result:
        body = path.rstrip("/")
        for position, character in enumerate(body):
            if character == "/":
                folders.setdefault(body[:position], []).append(path)
    conflicts = []
    for folder, inside in folders.items():
        if folder + "/" in result:
            del result[folder + "/"]
        if folder not in result:
            continue
        conflicts += [] if prefer else [folder]
        file_is_mine = folder in mine
        losers = inside if file_is_mine == (prefer is not Side.THEIRS) else [folder]
        for path in losers:
            result.pop(path, None)
            taken.append(path)
    return conflicts


def displaced(before: Iterable[str], written: Collection[str], kept: Collection[str]) -> set[str]:
    """Paths of `before` that have to go before `written` can be there; `kept` are all that are wanted in the end.

    All are paths of files. The path of a dataset that is one file stands for the folder of all others.
    """
    above: set[str] = set()
    for path in written:
        above.update(_above(path))
    new = set(written)
    names = {folded(path) for path in written}
    wanted = set(kept)
    found: set[str] = set()
    for path in before:
        if path in new:
            continue
        is_displaced = path in above or not new.isdisjoint(_above(path))
        if is_displaced or (path not in wanted and folded(path) in names):
            found.add(path)
    return found


def _above(path: str) -> list[str]:
    """What must be a folder where the path is a file."""
    return [] if path == ONE_FILE else [ONE_FILE, *folders_above(path)]


def folders_above(path: str) -> list[str]:
    """The folders that it is in, the outermost first."""
    parts = path.rstrip("/").split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def folded(path: str) -> str:
    """The same for paths that are one on a disk that ignores case and the Unicode form."""
    return path.casefold() if path.isascii() else unicodedata.normalize("NFC", path).casefold()


def colliding_names(entries: Sequence[FileEntry]) -> list[tuple[str, str]]:
    """Pairs of paths that cannot stand beside each other on every file system, in canonical order."""
    if len({entry.path.lower() for entry in entries if entry.path.isascii()}) == len(entries):
        return []
    seen: dict[str, str] = {}
    pairs = []
    for entry in entries:
        other = seen.setdefault(folded(entry.path), entry.path)
        if other != entry.path:
            pairs.append((other, entry.path))
    return pairs
