"""How messages say how many."""

from __future__ import annotations

import shlex


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 file`, `12,000 files`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def typed_dataset(dataset: str) -> str:
    """The dataset as it is typed in a shell, for a command that a message names."""
    return shlex.quote(f"data_blobs/{dataset}")
