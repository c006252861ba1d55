"""What `--json` prints of a result, and of a moment."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any


class Document:
    """A dataclass whose document has all its fields."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload,no-any-return]  # not known to be a dataclass


def iso_time(seconds: float) -> str:
    """Since 1970, in ISO 8601, UTC. A file may have a time that no calendar has: then the last day that is one in every
    time zone."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return "9999-12-30T00:00:00+00:00"
