"""How messages say how many."""

from __future__ import annotations


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 file`, `12,000 files`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def below_data_blobs(dataset: str) -> str:
    """The dataset as an argument of a command that a message names."""
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
