"""One cluster or compute instance, and its document."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .operations import Operation
from .place import Place, now
from .replies import user_error

QUOTA_ERROR = {
    "code": "ClusterCoreQuotaReached",
    "message": "The specified subscription has a standardNCSv3Family vCPU quota of 0 and cannot accomodate for at "
    "least 1 requested managed compute node which maps to 6 vCPUs. Talk to your Subscription Admin or refer to "
    "https://docs.microsoft.com/azure/machine-learning/how-to-manage-quotas.",
}
_NODE_KINDS = ("preparing", "running", "idle", "unusable", "leaving", "preempted")
_SWITCHING = {"start": ("Starting", "Running"), "stop": ("Stopping", "Stopped"), "restart": ("Restarting", "Running")}


@dataclass
class Compute:
    """`in_progress` is the provisioning state until `operation` is done. `jobs`: name to nodes that it has."""

    name: str
    asked: dict[str, Any]
    tags: dict[str, str] | None
    location: str
    operation: Operation
    in_progress: str
    created: str = field(default_factory=now)
    modified: str = field(default_factory=now)
    jobs: dict[str, int] = field(default_factory=dict)
    errors: list[dict[str, Any]] | None = None
    identity: dict[str, Any] | None = None
    states: tuple[str, str] = ("Creating", "Running")
    """Of an instance: while the operation lasts, and after it."""

    @property
    def inner(self) -> dict[str, Any]:
        return self.asked.get("properties") or {}

    @property
    def is_instance(self) -> bool:
        return bool(self.asked["computeType"] == "ComputeInstance")

    @property
    def is_gone(self) -> bool:
        return self.in_progress == "Deleting" and self.operation.is_done

    @property
    def provisioning_state(self) -> str:
        if not self.operation.is_done:
            return self.in_progress
        return "Succeeded" if self.operation.error is None else "Failed"

    @property
    def is_usable(self) -> bool:
        return self.provisioning_state in ("Succeeded", "Updating") and (
            not self.is_instance or self._state == "Running"
        )

    @property
    def is_kubernetes(self) -> bool:
        return bool(self.asked["computeType"] == "Kubernetes")

    @property
    def max_nodes(self) -> int:
        if self.is_kubernetes:
            return sys.maxsize  # its own matter
        return 1 if self.is_instance else int((self.inner.get("scaleSettings") or {}).get("maxNodeCount") or 1)

    @property
    def busy_nodes(self) -> int:
        return sum(self.jobs.values())

    def change(self, body: Mapping[str, Any], operation: Operation) -> None:
        """Raises RefusedError for what never changes."""
        asked = body.get("properties") or {}
        new = asked.get("properties") or {}
        for key in ("vmSize", "vmPriority"):
            old = self.inner.get(key)
            if new.get(key) and old and str(new[key]).lower() != str(old).lower():
                raise user_error(400, f"{key} of compute {self.name} cannot be changed from {old}.", "BadArgument")
        # A PUT replaces the whole: what is left out is gone.
        self.asked, self.tags, self.identity = asked, body.get("tags"), body.get("identity")
        self.operation, self.in_progress, self.modified = operation, "Updating", now()

    def switch(self, action: str, operation: Operation) -> None:
        self.operation, self.in_progress, self.states = operation, "Updating", _SWITCHING[action]

    def document(self, place: Place) -> dict[str, Any]:
        properties = {
            "createdOn": self.created,
            "modifiedOn": self.modified,
            "disableLocalAuth": bool(self.asked.get("disableLocalAuth")),
            "description": self.asked.get("description"),
            "resourceId": None,
            "computeType": self.asked["computeType"],
            "provisioningState": self.provisioning_state,
            "provisioningErrors": self._provisioning_errors(),
            "isAttachedCompute": self.is_kubernetes,
            "properties": self._details(),
        }
        document = {
            **place.resource("computes", self.name, properties, self.created, self.modified),
            "location": self.location,
            "tags": self.tags,
            **({"identity": self.identity} if self.identity else {}),
        }
        del document["systemData"]
        if self.provisioning_state != "Creating":
            properties["computeLocation"] = self.location
            document["tags"] = self.tags or {}
        return document

    @property
    def _state(self) -> str:
        return self.states[1] if self.operation.is_done else self.states[0]

    def _provisioning_errors(self) -> list[dict[str, Any]] | None:
        has_failed = self.operation.is_done and self.operation.error is not None
        return [{"error": self.operation.error}] if has_failed else None

    def _details(self) -> dict[str, Any]:
        if self.is_kubernetes:
            return self.inner
        return self._instance() if self.is_instance else self._cluster()

    def _cluster(self) -> dict[str, Any]:
        is_new = self.provisioning_state == "Creating"
        scale = self.inner.get("scaleSettings") or {}
        least, busy = int(scale.get("minNodeCount") or 0), self.busy_nodes
        current = 0 if self.errors else max(least, busy)
        counts = {f"{kind}NodeCount": 0 for kind in _NODE_KINDS}
        counts.update(runningNodeCount=busy, idleNodeCount=current - busy)
        is_resizing = not self.operation.is_done or self.errors is not None
        return {
            "osType": "Linux",
            "vmSize": str(self.inner.get("vmSize", "Standard_DS3_v2")).upper(),
            "vmPriority": self.inner.get("vmPriority") or "Dedicated",
            "virtualMachineImage": None,
            "isolatedNetwork": False,
            "scaleSettings": {
                "maxNodeCount": self.max_nodes,
                "minNodeCount": least,
                "nodeIdleTimeBeforeScaleDown": scale.get("nodeIdleTimeBeforeScaleDown") or "PT2M",
            },
            "subnet": self.inner.get("subnet"),
            "currentNodeCount": None if is_new else current,
            "targetNodeCount": None if is_new else max(current, least),
            "nodeStateCounts": None if is_new else counts,
            "allocationState": None if is_new else "Resizing" if is_resizing else "Steady",
            "errors": self.errors,
            **self._credentials(),
            "remoteLoginPortPublicAccess": self.inner.get("remoteLoginPortPublicAccess") or "NotSpecified",
            "enableNodePublicIp": self.inner.get("enableNodePublicIp", True),
            **({} if is_new else {"allocationStateTransitionTime": self.modified, "propertyBag": {}}),
        }

    def _credentials(self) -> dict[str, Any]:
        """Without the password, which the service never shows again."""
        given = self.inner.get("userAccountCredentials")
        return {"userAccountCredentials": {**given, "adminUserPassword": None}} if given else {}

    def _instance(self) -> dict[str, Any]:
        return {
            "vmSize": str(self.inner.get("vmSize", "Standard_DS3_v2")).upper(),
            "subnet": None,
            "applicationSharingPolicy": self.inner.get("applicationSharingPolicy") or "Personal",
            "sshSettings": {"sshPublicAccess": "Disabled"},
            "idleTimeBeforeShutdown": self.inner.get("idleTimeBeforeShutdown"),
            "state": self._state,
            "errors": self.errors,
            "createdBy": {"userName": "Test Person", "userId": "00000000-0000-0000-0000-000000000001"},
            "lastOperation": {
                "operationName": "Create",
                "operationTime": self.modified,
                "operationStatus": self._state,
            },
        }
