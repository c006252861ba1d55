"""Pure: JSON documents of Azure ML. A value of another kind than the service gives is an error, never a default: it may
come from a proxy, and a missing state, say, means something. Null counts as missing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from amlctl.core.message import Command, Message
from amlctl.errors import ServiceUnavailable

_MAPPINGS = (
    *("properties", "tags", "services", "logFiles", "systemData", "outputs", "credentials", "resources", "identity"),
    *("scaleSettings", "nodeStateCounts", "subnet", "sshSettings"),
)
_TEXTS = (
    *("status", "provisioningState", "runId", "jobType", "experimentName", "computeType", "datastoreType"),
    *("containerName", "accountName", "secretsType", "nextLink", "discoveryUrl", "dataUri", "latestVersion"),
)
_KINDS = {
    **dict.fromkeys(_MAPPINGS, (dict, "an object")),
    **dict.fromkeys(_TEXTS, (str, "a string")),
    **dict.fromkeys(("provisioningErrors", "errors"), (list, "a list")),
    "hidden": (bool, "a boolean"),
}
_LIST = "value"


def parsed(data: bytes) -> dict[str, Any]:
    """Raises ValueError."""
    if not data.strip():
        raise ValueError("it is empty")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(document, dict):
        raise ValueError("it is not an object")
    if not document:
        raise ValueError("it is empty")
    _check(document)
    items = document.get(_LIST)
    for item in items if isinstance(items, list) else ():
        if not isinstance(item, dict):
            raise ValueError("it has a list with something else than objects")
        _check(item)
    return document


def _check(document: Mapping[str, Any]) -> None:
    """With its properties, but for those that users choose: of a run in run history, of a job in its properties."""
    level: Any = document
    while level:
        for name, (kind, shown) in _KINDS.items():
            value = level.get(name)
            if value is not None and not isinstance(value, kind):
                raise ValueError(f"it has {name!r}, which is not {shown}")
        is_chosen = "runId" in level or (level is not document and "computeType" not in level)
        level = None if is_chosen else level.get("properties")


def invalid_answer(thing: str, why: str) -> ServiceUnavailable:
    return ServiceUnavailable(
        f"the answer of Azure ML about {thing} is not valid: {why}",
        hint=Message("run the same command again; ", Command("doctor"), " checks the network and the workspace"),
    )


def as_object(value: Any) -> Mapping[str, Any]:
    """Empty for anything else."""
    return value if isinstance(value, dict) else {}


def objects(value: Any) -> list[Mapping[str, Any]]:
    """Those of a list."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def whole(value: Any) -> int | None:
    return value if type(value) is int else None
