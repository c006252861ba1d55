"""Names that the store spells in another way than this disk, where both are one name for the disk.

macOS and the Windows drives of WSL ignore case, macOS also the Unicode form. A file that others have renamed from
`a.txt` to `A.txt` is there under its new name before it is written: as a file in the way, although it is the one that
goes, and whose deletion would hit the new one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from amlctl.core.diff import colliding_names, folded, folders_above
from amlctl.core.events import EventSink, Warned
from amlctl.core.manifest import FileEntry

_MOST_TWINS = 5


def respelled(
    root: Path, deleted: Iterable[str], to_write: Iterable[FileEntry], wanted: Iterable[FileEntry]
) -> Mapping[str, str]:
    """Paths to be deleted by what they are to be named; empty on a disk that tells these names apart. `wanted` is what
    the store has: of a folder that it spells in both ways none can be right here."""
    gone = {folded(path): path for path in deleted}
    pairs = {entry.path: gone[folded(entry.path)] for entry in to_write if folded(entry.path) in gone}
    if not pairs:
        return {}
    kept = {folder for entry in wanted for folder in folders_above(entry.path)}
    names = cache(lambda folder: _names(root / folder))

    def is_one(old: str, new: str) -> bool:
        folder, before, after = next(renames(old, new))
        here = names(folder)
        return before in here and after not in here and os.path.lexists(root / folder / after)

    return {new: old for new, old in pairs.items() if kept.isdisjoint(_left(old, new)) and is_one(old, new)}


def renames(old: str, new: str) -> Iterator[tuple[str, str, str]]:
    """The folder, and the name in it before and after, from the outermost that differs inwards."""
    parts, wanted = old.rstrip("/").split("/"), new.rstrip("/").split("/")
    for at, (before, after) in enumerate(zip(parts, wanted, strict=True)):
        if before != after:
            yield "/".join(wanted[:at]), before, after


def _left(old: str, new: str) -> set[str]:
    """Folders that get another name."""
    return set(folders_above(old)) - set(folders_above(new))


def _names(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except OSError:
        return frozenset()


def warn_of_twins(dataset: str, entries: Sequence[FileEntry], sink: EventSink) -> None:
    """Such a disk holds one of the two: the other one is in its way."""
    for one, other in colliding_names(entries)[:_MOST_TWINS]:
        sink(Warned(f"{dataset}: {one!r} and {other!r} are one name on some file systems"))
