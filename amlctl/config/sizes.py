"""Sizes as people write them: `64MiB`, `1 MB`, `4096`."""

from __future__ import annotations

import re

_UNITS = {
    "": 1,
    "B": 1,
    "K": 1024,
    "KIB": 1024,
    "KB": 1000,
    "M": 1024**2,
    "MIB": 1024**2,
    "MB": 1000**2,
    "G": 1024**3,
    "GIB": 1024**3,
    "GB": 1000**3,
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def parse_size(value: str | int) -> int:
    """Bytes. Raises ValueError whose text says what is expected."""
    match = _SIZE.fullmatch(str(value))
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None or isinstance(value, bool):
        raise ValueError(f"{value!r} is no size: a number with KiB, MiB or GiB is")
    return int(float(match[1]) * unit)
