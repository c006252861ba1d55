"""Compute targets: this machine, or a cluster or instance of Azure ML, and how two of them differ."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Optional, Union


@dataclass(frozen=True)
class LocalTarget:
    """This machine. `slots` runs at a time; `gpus` to share among them (None: as many as there are)."""

    name: str = "local"
    slots: int = 1
    gpus: Optional[int] = None
    type: str = "local"


@dataclass(frozen=True)
class ClusterTarget:
    """Azure ML's own `amlcompute` or `computeinstance` YAML (schemas amlCompute, computeInstance, read 2026-11).

    `idle_time_before_scale_down` in seconds; `rest` has the fields that amlctl hands on without looking at them.
    """

    name: str
    type: str
    size: str = ""
    tier: str = "dedicated"
    location: str = ""
    description: str = ""
    min_instances: int = 0
    max_instances: int = 1
    idle_time_before_scale_down: int = 120
    rest: tuple[tuple[str, Any], ...] = ()


ComputeTarget = Union[LocalTarget, ClusterTarget]


@dataclass(frozen=True)
class FieldDifference:
    """One field that two targets have differently."""

    field: str
    present: Any
    wanted: Any


def differences(present: ComputeTarget, wanted: ComputeTarget) -> list[FieldDifference]:
    """Field by field, in the order of the fields. Sizes, tiers and locations are compared without case."""
    one, other = asdict(present), asdict(wanted)
    return [
        FieldDifference(name, one.get(name), other.get(name))
        for name in dict.fromkeys([*one, *other])
        if _folded(one.get(name)) != _folded(other.get(name))
    ]


def _folded(value: Any) -> Any:
    return value.casefold() if isinstance(value, str) else value
