"""What `--json` prints of a result."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any


class Document:
    """A dataclass whose document has all its fields."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload,no-any-return]  # not known to be a dataclass
