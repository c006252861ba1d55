"""Numbers, sizes and suggestions in messages."""

from __future__ import annotations

from collections.abc import Iterable

ID_CELLS = 12
"""Digits of an id that are shown; any unique prefix can be typed."""


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 file`, `12,000 files`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def similar(word: str, known: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """Up to three of `known` that `word` may be a typo of, the most similar first; `cutoff` 1 means identical."""
    from difflib import get_close_matches  # here, since few commands end with a typo

    return get_close_matches(word.lower(), list(known), cutoff=cutoff)


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """`did you mean X?` for the most similar of `known`; empty if none is similar enough."""
    near = similar(word, known, cutoff)
    return f"did you mean {near[0]}?" if near else ""


def below_data_blobs(dataset: str) -> str:
    """The dataset as the argument of a command in a message."""
    return f"data_blobs/{dataset}"


def size(size_bytes: float) -> str:
    """`999 B`, `1.2 kB`, `380 MB`: decimal units, three digits at most."""
    if size_bytes < 999.5:
        return f"{size_bytes:.0f} B"
    units = ["kB", "MB", "GB", "TB", "PB"]
    value = size_bytes / 1000
    unit = units.pop(0)
    while value >= 999.5 and units:
        value /= 1000
        unit = units.pop(0)
    return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"
