"""What `doctor` reports: findings, and the steps of a probe, which can be shown to anyone."""

from __future__ import annotations

from collections.abc import Mapping
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


@dataclass(frozen=True)
class ProbeStep:
    """`message` is what was seen, or the service's refusal."""

    name: str
    ok: bool
    seconds: float
    message: str = ""


@dataclass(frozen=True)
class ProbeResult:
    """`versions` by name, of what took part."""

    steps: tuple[ProbeStep, ...]
    versions: Mapping[str, str]

    @property
    def ok(self) -> bool:
        return all(step.ok for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "versions": dict(self.versions), "probe": [asdict(step) for step in self.steps]}


def hidden(text: str, names: Mapping[str, str]) -> str:
    """The text with each of the names (subscription, account …) replaced by what it is."""
    for name, kind in sorted(names.items(), key=lambda one: -len(one[0])):
        text = text.replace(name, f"<{kind}>") if name else text
    return text
