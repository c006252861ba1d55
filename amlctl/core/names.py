"""Names that are two here and one elsewhere: by case (macOS, Windows) or by Unicode normal form (macOS)."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from amlctl.core.manifest import FileEntry


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
