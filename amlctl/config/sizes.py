"""Sizes as people write them."""

from __future__ import annotations

import re

from amlctl.errors import UsageError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", re.ASCII)
_UNITS: dict[str, int] = {"": 1, "b": 1} | {
    unit: base**power
    for power, letter in enumerate("kmgt", 1)
    for unit, base in ((f"{letter}ib", 1024), (f"{letter}b", 1000), (letter, 1024))
}


def parse_size(text: str) -> int:
    """Bytes of `64MiB` (1024²), `64MB` (1000²), `64M` (as MiB) or `67108864`; case does not matter.

    Raises UsageError.
    """
    match = _SIZE.fullmatch(text.strip())
    factor = _UNITS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise UsageError(f"{text!r} is no size", hint="for example 512KiB, 64MiB or 1GiB")
    return round(float(match[1]) * factor) if "." in match[1] else int(match[1]) * factor
