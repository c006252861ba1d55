"""How messages say how many."""

from __future__ import annotations


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 file`, `12,000 files`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def below_data_blobs(dataset: str) -> str:
    """The dataset as an argument of a command that a message names."""
    return f"data_blobs/{dataset}"
