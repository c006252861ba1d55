"""Pure: the service's documents of compute targets, in the words of compute YAML; and why a run is queued."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from amlctl.core.compute import ClusterTarget, duration_s
from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState
from amlctl.workspaces.azureml.connection import Connection, is_workspace_missing
from amlctl.workspaces.azureml.documents import whole
from amlctl.workspaces.azureml.job import SERVERLESS, time_of
from amlctl.workspaces.azureml.looks import AzureMLTiming
from amlctl.workspaces.contract import PresentTarget

_VERSION = "2023-08-01-preview"
_TIERS = {"dedicated": "dedicated", "lowpriority": "low_priority"}
_IDENTITIES = {"systemassigned": "system_assigned", "userassigned": "user_assigned"}
_SAME_VALUES = {
    "enable_node_public_ip": "enableNodePublicIp",
    "enable_sso": "enableSSO",
    "enable_root_access": "enableRootAccess",
    "enable_os_patching": "enableOSPatching",
    "release_quota_on_stop": "releaseQuotaOnStop",
}
"""Fields whose value is the same in YAML and in the document."""
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


def present(document: Mapping[str, Any]) -> PresentTarget:
    """A kind that amlctl cannot make (Kubernetes, say) has only name and state."""
    properties = document.get("properties") or {}
    inner = properties.get("properties") or {}
    kind = str(properties.get("computeType") or "").lower()
    scale = inner.get("scaleSettings") or {}
    is_cluster = kind == "amlcompute"
    most = whole(scale.get("maxNodeCount"))
    target = ClusterTarget(
        name=str(document.get("name") or ""),
        type=kind,
        size=str(inner.get("vmSize") or ""),
        tier=_TIERS.get(str(inner.get("vmPriority") or "").lower(), "") if is_cluster else "",
        location=str(properties.get("computeLocation") or document.get("location") or ""),
        description=str(properties.get("description") or ""),
        min_instances=whole(scale.get("minNodeCount")),
        max_instances=most,
        idle_time_before_scale_down=duration_s(str(scale.get("nodeIdleTimeBeforeScaleDown") or "")),
        rest=_rest(document, inner, is_cluster=is_cluster),
    )
    notes = errors_of(document)
    provisioning = str(properties.get("provisioningState") or "Unknown")
    if is_cluster and provisioning == "Succeeded":
        notes.insert(0, f"{inner.get('currentNodeCount') or 0} of {most or 0} nodes")
    state = "ready" if provisioning == "Succeeded" else provisioning
    if inner.get("state") and provisioning in ("Succeeded", "Updating"):
        state = str(inner["state"])
    return PresentTarget(target, state, "; ".join(notes))


def changed(document: Mapping[str, Any], target: ClusterTarget) -> dict[str, Any]:
    """The whole document of a cluster to send back, with the target's values of fields that can change.

    All else stays as the service has it, including fields that amlctl and the SDK do not know.
    """
    properties = {name: value for name, value in (document.get("properties") or {}).items() if name not in _READ_ONLY}
    inner = {name: value for name, value in (properties.get("properties") or {}).items() if name not in _READ_ONLY}
    scale = dict(inner.get("scaleSettings") or {})
    if target.min_instances is not None:
        scale["minNodeCount"] = target.min_instances
    if target.max_instances is not None:
        scale["maxNodeCount"] = target.max_instances
    idle_s = target.idle_time_before_scale_down
    if idle_s is not None and idle_s != present(document).target.idle_time_before_scale_down:
        scale["nodeIdleTimeBeforeScaleDown"] = f"PT{idle_s}S"
    properties["properties"] = {**inner, "scaleSettings": scale}
    if target.description:
        properties["description"] = target.description
    body = {name: document[name] for name in ("location", "sku") if document.get(name)}
    identity = target.rest.get("identity") or {}
    if identity.get("type"):
        body["identity"] = _identity_document(identity)
    return {**body, "tags": target.rest.get("tags") or document.get("tags") or {}, "properties": properties}


def _identity_document(identity: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {"system_assigned": "SystemAssigned", "user_assigned": "UserAssigned"}
    words = [word.strip() for word in str(identity["type"]).split(",")]
    users = identity.get("user_assigned_identities") or []
    ids: dict[str, Any] = {str(one.get("resource_id") if isinstance(one, Mapping) else one): {} for one in users}
    kind = ",".join(kinds.get(word.lower(), word) for word in words)
    return {"type": kind, **({"userAssignedIdentities": ids} if ids else {})}


def _rest(document: Mapping[str, Any], inner: Mapping[str, Any], *, is_cluster: bool) -> Mapping[str, Any]:
    """Further fields of the YAML that the service returns."""
    network: dict[str, str] = {}
    if subnet := str((inner.get("subnet") or {}).get("id") or ""):
        network = {"vnet_name": subnet.partition("/subnets/")[0].rpartition("/")[2], "subnet": subnet}
    rest: dict[str, Any] = {
        "tags": document.get("tags") or {},
        "identity": _identity(document.get("identity") or {}),
        "network_settings": network,
    }
    instance_ssh = (inner.get("sshSettings") or {}).get("sshPublicAccess")
    ssh = str((inner.get("remoteLoginPortPublicAccess") if is_cluster else instance_ssh) or "").lower()
    if ssh in ("enabled", "disabled"):
        rest["ssh_public_access_enabled"] = ssh == "enabled"
    if not is_cluster:
        idle = inner.get("idleTimeBeforeShutdown")
        rest["idle_time_before_shutdown"] = idle
        rest["idle_time_before_shutdown_minutes"] = (duration_s(str(idle or "")) or 0) // 60
    return {**rest, **{name: inner[key] for name, key in _SAME_VALUES.items() if inner.get(key) is not None}}


def _identity(identity: Mapping[str, Any]) -> Mapping[str, Any]:
    kind = str(identity.get("type") or "").replace(" ", "").lower()
    if not kind or kind == "none":
        return {}
    users = [{"resource_id": resource} for resource in identity.get("userAssignedIdentities") or {}]
    words = ", ".join(_IDENTITIES.get(word, word) for word in kind.split(","))
    return {"type": words, **({"user_assigned_identities": users} if users else {})}


def errors_of(document: Mapping[str, Any]) -> list[str]:
    """Why it is not as requested, in the service's words."""
    properties = document.get("properties") or {}
    inner = properties.get("properties") or {}
    return [
        error_text(one) for found in (properties.get("provisioningErrors"), inner.get("errors")) for one in found or ()
    ]


def error_text(found: Any) -> str:
    """`message (code)` of an error, or of a document that has one."""
    error = (found.get("error") or found) if isinstance(found, Mapping) else {}
    code, message = str(error.get("code") or ""), " ".join(str(error.get("message") or "").split())
    return f"{message} ({code})" if message and code else message or code


class Queueing:
    """Asks the compute target why a run waits, if it waits for long. Not thread-safe."""

    def __init__(self, connection: Connection, timing: AzureMLTiming) -> None:
        self._connection = connection
        self._timing = timing
        self._known: dict[str, tuple[float, str]] = {}

    def reason(self, record: RunRecord, now: datetime) -> str:
        """Empty if it is unknown, or the wait is short. Raises what the connection raises."""
        since = time_of(record.times.get(RunState.QUEUED))
        if record.status != RunState.QUEUED or record.spec.compute == SERVERLESS or since is None:
            return ""
        if (now - since).total_seconds() < self._timing.queue_patience_s:
            return ""
        asked_at, known = self._known.get(record.spec.compute, (float("-inf"), ""))
        if time.monotonic() - asked_at > self._timing.queue_fresh_s:
            path = f"/computes/{record.spec.compute}"
            answer = self._connection.workspace("GET", path, _VERSION, accept=(403, 404))
            known = reason_of(answer.document, record) if answer.status < 400 else ""
            if answer.status == 404 and not is_workspace_missing(answer):
                known = f"compute target {record.spec.compute} does not exist any more"
            self._known[record.spec.compute] = time.monotonic(), known
        return known


def reason_of(document: Mapping[str, Any], record: RunRecord) -> str:
    """Why a run waits, from the target's document."""
    errors = errors_of(document)
    if errors:
        return f"{record.spec.compute} gets no nodes: {'; '.join(errors)}"
    inner = (document.get("properties") or {}).get("properties") or {}
    counts, scale = inner.get("nodeStateCounts") or {}, inner.get("scaleSettings") or {}
    busy, most = whole(counts.get("runningNodeCount")) or 0, whole(scale.get("maxNodeCount")) or 0
    if record.spec.instances > most > 0:
        return f"{record.spec.compute} has at most {most} nodes, and the run requires {record.spec.instances}"
    if busy and busy + record.spec.instances > most > 0:
        return f"{busy} of the {most} nodes of {record.spec.compute} are busy with other runs"
    if counts.get("preparingNodeCount") or inner.get("allocationState") == "Resizing":
        return f"{record.spec.compute} is starting nodes"
    return ""
