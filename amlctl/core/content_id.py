"""Content ids: xxh3-128 of the bytes, 32 lower-case hex digits (canonical, big-endian form of XXH3).

xxhash finds accidents, not attackers: content is trusted no further than the access rules of its store.
"""

from __future__ import annotations

import re

import xxhash

EMPTY: str = xxhash.xxh3_128_hexdigest(b"")
"""Content id of zero bytes; such a file takes no room in the store."""

_PATTERN = re.compile(r"[0-9a-f]{32}")


def content_id(data: bytes | bytearray | memoryview) -> str:
    """Content id of bytes held in memory."""
    return xxhash.xxh3_128_hexdigest(data)


ContentHasher = xxhash.xxh3_128
"""Of bytes that arrive in parts: its `hexdigest` is their content id."""


def is_content_id(text: str) -> bool:
    return _PATTERN.fullmatch(text) is not None
