"""What `doctor` finds: one line a thing that was tried out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """One finding; `hint` is what to type or do, and empty if there is nothing to do."""

    name: str
    ok: bool
    message: str
    hint: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
