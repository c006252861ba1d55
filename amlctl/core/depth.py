"""How deep a document may be nested: what reads, compares or shows it may be recursive."""

from __future__ import annotations

from typing import Any

MAX_DEPTH = 100
"""Of mappings and lists in each other; well below Python's limit of 1,000 calls."""


def is_deep(value: Any) -> bool:
    """Whether a value that JSON can hold has more than `MAX_DEPTH` levels."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [one for outer in level if isinstance(outer, (list, dict)) for one in _inside(outer)]
    return bool(level)


def _inside(outer: Any) -> list[Any]:
    return list(outer.values()) if isinstance(outer, dict) else outer
