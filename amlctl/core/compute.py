"""Compute targets: this machine, or a cluster or instance of Azure ML, and how two of them differ."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Optional, Union

TIERS = ("dedicated", "low_priority")
FAILED_STATES = ("Failed", "Canceled", "SetupFailed", "CreateFailed")
"""Of a target in Azure ML that cannot be used."""
HOURS_A_MONTH = 730
_IDLE_S = 120
_MOST = 4
_INSTANCE_IDLE_MINUTES = 60
_DURATION = re.compile(r"P(?:(\d{1,9})D)?(?:T(?:(\d{1,9})H)?(?:(\d{1,9})M)?(?:(\d{1,9})(?:\.\d+)?S)?)?")


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
    `rest` has the fields that are handed on as they are. `file` is the path that it was read from.
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
    file: str = field(default="", compare=False)

    @property
    def is_cluster(self) -> bool:
        return self.type == "amlcompute"

    @property
    def node_hours_a_month(self) -> int:
        """Of the nodes that are there while nothing runs."""
        return (self.min_instances or 0) * HOURS_A_MONTH


ComputeTarget = Union[LocalTarget, ClusterTarget]


@dataclass(frozen=True)
class BrokenTarget:
    """A file of `compute/` that cannot be used."""

    name: str
    file: str
    type: str = "unknown"


@dataclass(frozen=True)
class FieldDifference:
    """One field that two targets have differently; a field inside another one is `outer.inner`."""

    field: str
    present: Any
    wanted: Any


def differences(present: ComputeTarget, wanted: ComputeTarget) -> list[FieldDifference]:
    """Field by field, in the order of the fields. Fields that `wanted` does not set are ignored.

    Values are compared as the service does: sizes, tiers and locations without case, say.
    """
    return _differences("", _fields(present), _fields(wanted))


def with_defaults(target: ClusterTarget) -> ClusterTarget:
    """What is made where the file is silent: no node while nothing runs, and an instance that stops by itself."""
    if target.is_cluster:
        most = target.max_instances
        return replace(
            target,
            min_instances=target.min_instances or 0,
            max_instances=max(_MOST, target.min_instances or 0) if most is None else most,
            idle_time_before_scale_down=target.idle_time_before_scale_down or _IDLE_S,
        )
    if {"idle_time_before_shutdown", "idle_time_before_shutdown_minutes"} & target.rest.keys():
        return target
    return replace(target, rest={**target.rest, "idle_time_before_shutdown_minutes": _INSTANCE_IDLE_MINUTES})


def merged(present: ClusterTarget, wanted: ClusterTarget) -> ClusterTarget:
    """`present` with all that `wanted` says; tags and their like are merged one by one."""
    wanted_fields = {name: value for name, value in vars(wanted).items() if value not in (None, "") and name != "rest"}
    return replace(present, **wanted_fields, rest=_overlaid(present.rest, wanted.rest))


def duration_s(text: str) -> Optional[int]:
    """Seconds of an ISO 8601 duration such as `PT1M40S`; None for what is none."""
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()):
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> Mapping[str, Any]:
    both = {
        name: _overlaid(below[name], value)
        for name, value in above.items()
        if isinstance(value, Mapping) and isinstance(below.get(name), Mapping)
    }
    return {**below, **above, **both}


def _fields(target: ComputeTarget) -> Mapping[str, Any]:
    fields = asdict(target)
    rest = fields.pop("rest", {})
    return {name: value for name, value in {**fields, **rest}.items() if name != "file"}


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
    """As the service compares it: names without case, a subnet by its last part, durations by length."""
    if name == "user_assigned_identities" and isinstance(value, list):
        return sorted(str(one.get("resource_id") if isinstance(one, Mapping) else one).casefold() for one in value)
    if not isinstance(value, str):
        return value
    if name == "subnet":
        return value.rpartition("/")[2].casefold()
    if name == "idle_time_before_shutdown":
        return duration_s(value) or value
    return value.casefold() if name in ("type", "size", "tier", "location", "vnet_name") else value
