"""Paths that exclude each other: a file is not a folder at the same time, and some file systems take two spellings for
one name, by case (macOS, Windows) or by Unicode normal form (macOS).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Sequence

from amlctl.core.manifest import ONE_FILE, FileEntry


def displaced(before: Iterable[str], written: Collection[str], kept: Collection[str]) -> set[str]:
    """Paths of `before` that have to go before `written` can be there; `kept` are all that are wanted in the end.

    All are paths of files. The path of a dataset that is one file stands for the folder of all others.
    """
    above: set[str] = set()
    for path in written:
        above.update(_above(path))
    new = set(written)
    folded = {_folded(path) for path in written}
    wanted = set(kept)
    found: set[str] = set()
    for path in before:
        if path in new:
            continue
        is_displaced = path in above or not new.isdisjoint(_above(path))
        if is_displaced or (path not in wanted and _folded(path) in folded):
            found.add(path)
    return found


def _above(path: str) -> list[str]:
    """What must be a folder where the path is a file."""
    if path == ONE_FILE:
        return []
    found = [ONE_FILE]
    while path := path.rpartition("/")[0]:
        found.append(path)
    return found


def _folded(path: str) -> str:
    return path.casefold() if path.isascii() else unicodedata.normalize("NFC", path).casefold()


def colliding_names(entries: Sequence[FileEntry]) -> list[tuple[str, str]]:
    """Pairs of paths that cannot stand beside each other on every file system, in canonical order."""
    if len({entry.path.lower() for entry in entries if entry.path.isascii()}) == len(entries):
        return []
    seen: dict[str, str] = {}
    pairs = []
    for entry in entries:
        folded = entry.path if entry.path.isascii() else unicodedata.normalize("NFC", entry.path)
        other = seen.setdefault(folded.casefold(), entry.path)
        if other != entry.path:
            pairs.append((other, entry.path))
    return pairs
