"""Pure: what the service says of a compute target, in the words of the YAML that describes one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from amlctl.core.compute import ClusterTarget, duration_s
from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.azureml.job import SERVERLESS, moment
from amlctl.workspaces.azureml.looks import AzureMLTiming
from amlctl.workspaces.contract import PresentTarget

_TIERS = {"dedicated": "dedicated", "lowpriority": "low_priority"}


def present(document: Mapping[str, Any]) -> PresentTarget:
    """From the service's document; a kind that amlctl cannot make (Kubernetes, say) has its name and state."""
    properties = document.get("properties") or {}
    inner = properties.get("properties") or {}
    kind = str(properties.get("computeType") or "").lower()
    scale = inner.get("scaleSettings") or {}
    is_cluster = kind == "amlcompute"
    most = _number(scale.get("maxNodeCount"))
    target = ClusterTarget(
        name=str(document.get("name") or ""),
        type=kind,
        size=str(inner.get("vmSize") or ""),
        tier=_TIERS.get(str(inner.get("vmPriority") or "").lower(), "") if is_cluster else "",
        location=str(properties.get("computeLocation") or document.get("location") or ""),
        description=str(properties.get("description") or ""),
        min_instances=_number(scale.get("minNodeCount")),
        max_instances=most,
        idle_time_before_scale_down=duration_s(str(scale.get("nodeIdleTimeBeforeScaleDown") or "")),
        rest=_rest(document, inner, is_cluster=is_cluster),
    )
    notes = errors_of(document)
    if is_cluster and properties.get("provisioningState") == "Succeeded":
        notes.insert(0, f"{inner.get('currentNodeCount') or 0} of {most or 0} nodes")
    return PresentTarget(target, _state(properties, inner), "; ".join(notes))


def changed(document: Mapping[str, Any], target: ClusterTarget) -> dict[str, Any]:
    """The whole document of a cluster as it is sent back, with what the target says of the fields that can change.

    Everything else stays as the service has it, also what amlctl and the SDK do not know.
    """
    properties = {name: value for name, value in (document.get("properties") or {}).items() if name not in _READ_ONLY}
    inner = {name: value for name, value in (properties.get("properties") or {}).items() if name not in _READ_ONLY}
    now = present(document).target
    scale = dict(inner.get("scaleSettings") or {})
    if target.min_instances is not None:
        scale["minNodeCount"] = target.min_instances
    if target.max_instances is not None:
        scale["maxNodeCount"] = target.max_instances
    idle_s = target.idle_time_before_scale_down
    if idle_s is not None and idle_s != now.idle_time_before_scale_down:
        scale["nodeIdleTimeBeforeScaleDown"] = f"PT{idle_s}S"
    properties["properties"] = {**inner, "scaleSettings": scale}
    if target.description:
        properties["description"] = target.description
    body = {name: document[name] for name in ("location", "sku") if document.get(name)}
    identity = target.rest.get("identity") or {}
    if identity.get("type"):
        body["identity"] = _identity_document(identity)
    return {**body, "tags": target.rest.get("tags") or document.get("tags") or {}, "properties": properties}


_READ_ONLY = frozenset(
    {
        "allocationState",
        "allocationStateTransitionTime",
        "createdOn",
        "currentNodeCount",
        "errors",
        "isAttachedCompute",
        "modifiedOn",
        "nodeStateCounts",
        "provisioningErrors",
        "provisioningState",
        "targetNodeCount",
    }
)


def _identity_document(identity: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {"system_assigned": "SystemAssigned", "user_assigned": "UserAssigned"}
    words = [word.strip() for word in str(identity["type"]).split(",")]
    users = identity.get("user_assigned_identities") or []
    ids: dict[str, Any] = {str(one.get("resource_id") if isinstance(one, Mapping) else one): {} for one in users}
    return {
        "type": ",".join(kinds.get(word.lower(), word) for word in words),
        **({"userAssignedIdentities": ids} if ids else {}),
    }


def errors_of(document: Mapping[str, Any]) -> list[str]:
    """Why it is not as it was asked for, in the service's words."""
    properties = document.get("properties") or {}
    return [
        *_errors(properties.get("provisioningErrors")),
        *_errors((properties.get("properties") or {}).get("errors")),
    ]


def _state(properties: Mapping[str, Any], inner: Mapping[str, Any]) -> str:
    provisioning = str(properties.get("provisioningState") or "Unknown")
    if inner.get("state") and provisioning in ("Succeeded", "Updating"):
        return str(inner["state"])
    return "ready" if provisioning == "Succeeded" else provisioning


def _rest(document: Mapping[str, Any], inner: Mapping[str, Any], *, is_cluster: bool) -> Mapping[str, Any]:
    """In the words of the YAML, all that the service tells."""
    rest: dict[str, Any] = {"tags": document.get("tags") or {}, "identity": _identity(document.get("identity") or {})}
    subnet = str((inner.get("subnet") or {}).get("id") or "")
    rest["network_settings"] = {}
    if subnet:
        network = subnet.partition("/subnets/")[0].rpartition("/")[2]
        rest["network_settings"] = {"vnet_name": network, "subnet": subnet}
    ssh = inner.get("remoteLoginPortPublicAccess") if is_cluster else (inner.get("sshSettings") or {}).get(_SSH)
    if str(ssh or "").lower() in ("enabled", "disabled"):
        rest["ssh_public_access_enabled"] = str(ssh).lower() == "enabled"
    idle = inner.get("idleTimeBeforeShutdown")
    if not is_cluster:
        rest["idle_time_before_shutdown"] = idle
        rest["idle_time_before_shutdown_minutes"] = (duration_s(str(idle or "")) or 0) // 60
    for name, key in _TOLD.items():
        if inner.get(key) is not None:
            rest[name] = inner[key]
    return rest


_SSH = "sshPublicAccess"
_TOLD = {
    "enable_node_public_ip": "enableNodePublicIp",
    "enable_sso": "enableSSO",
    "enable_root_access": "enableRootAccess",
    "enable_os_patching": "enableOSPatching",
    "release_quota_on_stop": "releaseQuotaOnStop",
}


def _identity(identity: Mapping[str, Any]) -> Mapping[str, Any]:
    kind = str(identity.get("type") or "").replace(" ", "").lower()
    if not kind or kind == "none":
        return {}
    known = {
        "systemassigned": "system_assigned",
        "userassigned": "user_assigned",
        "systemassigned,userassigned": "system_assigned, user_assigned",
    }
    users = [{"resource_id": resource} for resource in identity.get("userAssignedIdentities") or {}]
    return {"type": known.get(kind, kind), **({"user_assigned_identities": users} if users else {})}


def _errors(found: Any) -> list[str]:
    errors = [one.get("error") or one for one in found or () if isinstance(one, Mapping)]
    return [in_words(str(one.get("code") or ""), str(one.get("message") or "")) for one in errors]


def told(document: Mapping[str, Any]) -> str:
    return "; ".join(_errors([document]))


def in_words(code: str, message: str) -> str:
    text = " ".join(message.split())
    return f"{text} ({code})" if text and code else text or code


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) else None


_VERSION = "2023-08-01-preview"


class Queueing:
    """Asks the target where a run waits for long, and not each time. Not thread-safe."""

    def __init__(self, connection: Connection, timing: AzureMLTiming) -> None:
        self._connection = connection
        self._timing = timing
        self._known: dict[str, tuple[float, str]] = {}

    def reason(self, record: RunRecord, now: datetime) -> str:
        """In words; empty where nothing is known, or not yet worth a request. Raises what the connection raises."""
        since = moment(record.times.get(RunState.QUEUED))
        if record.status != RunState.QUEUED or record.spec.compute == SERVERLESS or since is None:
            return ""
        if (now - since).total_seconds() < self._timing.queue_patience_s:
            return ""
        asked_at, known = self._known.get(record.spec.compute, (float("-inf"), ""))
        if time.monotonic() - asked_at > self._timing.queue_fresh_s:
            path = f"/computes/{record.spec.compute}"
            answer = self._connection.workspace("GET", path, _VERSION, accept=(403, 404))
            known = reason_of(answer.document, record) if answer.status < 400 else ""
            self._known[record.spec.compute] = time.monotonic(), known
        return known


def reason_of(document: Any, record: RunRecord) -> str:
    """Pure: from the target's own document."""
    if not isinstance(document, Mapping):
        return ""
    errors = errors_of(document)
    if errors:
        return f"{record.spec.compute} gets no nodes: {'; '.join(errors)}"
    inner = (document.get("properties") or {}).get("properties") or {}
    counts, scale = inner.get("nodeStateCounts") or {}, inner.get("scaleSettings") or {}
    busy, most = int(counts.get("runningNodeCount") or 0), int(scale.get("maxNodeCount") or 0)
    if record.spec.instances > most > 0:
        return f"{record.spec.compute} has {most} nodes at most, and the run wants {record.spec.instances}"
    if busy and busy + record.spec.instances > most > 0:
        return f"{busy} of the {most} nodes of {record.spec.compute} are busy with other runs"
    if counts.get("preparingNodeCount") or inner.get("allocationState") == "Resizing":
        return f"{record.spec.compute} starts nodes"
    return ""
