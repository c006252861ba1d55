"""Compute targets: this machine, or a cluster or instance of Azure ML, and how two of them differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Optional, Union

TIERS = ("dedicated", "low_priority")


@dataclass(frozen=True)
class LocalTarget:
    """This machine. `slots` runs at a time; `gpus` to share among them (None: as many as there are)."""

    name: str = "local"
    slots: int = 1
    gpus: Optional[int] = None
    type: str = "local"


@dataclass(frozen=True)
class ClusterTarget:
    """Azure ML's own `amlcompute` or `computeinstance` YAML (schemas amlCompute and computeInstance).

    Empty or None: the file does not say, and the service decides. `idle_time_before_scale_down` in seconds.
    `rest` has the fields that are handed on as they are.
    """

    name: str
    type: str
    size: str = ""
    tier: str = ""
    location: str = ""
    description: str = ""
    min_instances: Optional[int] = None
    max_instances: Optional[int] = None
    idle_time_before_scale_down: Optional[int] = None
    rest: Mapping[str, Any] = field(default_factory=dict)


ComputeTarget = Union[LocalTarget, ClusterTarget]


@dataclass(frozen=True)
class FieldDifference:
    """One field that two targets have differently; a field inside another one is `outer.inner`."""

    field: str
    present: Any
    wanted: Any


def differences(present: ComputeTarget, wanted: ComputeTarget) -> list[FieldDifference]:
    """Field by field, in the order of the fields. What `wanted` does not say is no difference.

    Sizes, tiers and locations are compared without case, as the service does.
    """
    return _differences("", _fields(present), _fields(wanted))


def _fields(target: ComputeTarget) -> Mapping[str, Any]:
    fields = asdict(target)
    rest = fields.pop("rest", {})
    return {**fields, **rest}


def _differences(prefix: str, present: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[FieldDifference]:
    found: list[FieldDifference] = []
    for name, value in wanted.items():
        here = present.get(name)
        if isinstance(value, Mapping) and isinstance(here, Mapping):
            found += _differences(f"{prefix}{name}.", here, value)
        elif value not in (None, "") and _folded(name, here) != _folded(name, value):
            found.append(FieldDifference(prefix + name, here, value))
    return found


def _folded(name: str, value: Any) -> Any:
    is_folded = name in ("type", "size", "tier", "location") and isinstance(value, str)
    return value.casefold() if is_folded else value
