"""How messages say how many."""

from __future__ import annotations


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 file`, `12,000 files`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
