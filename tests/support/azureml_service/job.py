"""One command job: what was asked, how it stands, and its document."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .place import Place, now

ENDED = ("Completed", "Failed", "Canceled")


@dataclass
class Job:
    """`asked` is `properties` of the PUT. Changed by its execution and by cancel; `lock` guards the status."""

    name: str
    asked: dict[str, Any]
    parent: str | None = None
    created: str = field(default_factory=now)
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: str = "NotStarted"
    tags: dict[str, str] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)
    tracked: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """What its MLflow run has, by name, in the order of arrival."""
    parameters: dict[str, str] = field(default_factory=dict)
    started: str | None = None
    ended: str | None = None
    error: dict[str, Any] | None = None
    command_began_at_s: float | None = None
    """Monotonic; of the first attempt."""
    attempt: int = 0
    cancel: threading.Event = field(default_factory=threading.Event)
    preempt: threading.Event = field(default_factory=threading.Event)
    preempt_grace_s: float = 0.0
    is_over: threading.Event = field(default_factory=threading.Event)
    """Nothing of it will change any more, not even its logs."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    statuses: list[str] = field(default_factory=list)
    """Every state it was in, in order."""

    def __post_init__(self) -> None:
        self.tags = dict(self.asked.get("tags") or {})
        self.properties = {**(self.asked.get("properties") or {}), "_azureml.ComputeTargetType": "amlctrain"}
        self.statuses.append(self.status)

    @property
    def metrics(self) -> dict[str, float]:
        """The last values, as MLflow counts: of the greatest step, then of the latest time."""
        return {
            name: max(points, key=lambda one: (int(one["step"]), int(one["timestamp"])))["value"]
            for name, points in self.tracked.items()
        }

    @property
    def is_family(self) -> bool:
        return str(self.asked.get("jobType", "")).lower() in ("sweep", "pipeline")

    @property
    def experiment(self) -> str:
        return str(self.asked.get("experimentName") or "Default")

    @property
    def container_id(self) -> str:
        """The folder under ExperimentRun."""
        return f"dcid.{self.name}"

    @property
    def artifacts(self) -> str:
        """The prefix of logs and of what the run left behind, ending in a slash."""
        return f"ExperimentRun/{self.container_id}/"

    @property
    def instance_count(self) -> int:
        return int((self.asked.get("resources") or {}).get("instanceCount") or 1)

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED

    def enter(self, status: str) -> bool:
        """False, and no change, when somebody asked to cancel."""
        with self.lock:
            if self.cancel.is_set():
                return False
            self._set(status)
            return True

    def end(self, status: str, error: dict[str, Any] | None = None) -> None:
        with self.lock:
            self.error = error
            self.ended = now()
            self._set(status)

    def ask_to_cancel(self) -> bool:
        """False when it has ended already."""
        with self.lock:
            if self.has_ended:
                return False
            if not self.cancel.is_set():
                self._set("CancelRequested")
                self.cancel.set()
            return True

    def wait(self, timeout_s: float = 60.0) -> str:
        """Until nothing changes any more. Returns the state. Raises TimeoutError."""
        if not self.is_over.wait(timeout_s):
            raise TimeoutError(f"{self.name} is still {self.status} after {timeout_s:g} s")
        return self.status

    def wait_for(self, status: str, timeout_s: float = 60.0) -> None:
        """Until it is, or was, in the state. Raises TimeoutError; RuntimeError when it ended otherwise."""
        until = time.monotonic() + timeout_s
        while status not in self.statuses:
            if self.has_ended:
                raise RuntimeError(f"{self.name} ended {self.status}, {self.error}, and never was {status}")
            if time.monotonic() > until:
                raise TimeoutError(f"{self.name} is {self.status}, not {status}, after {timeout_s:g} s")
            time.sleep(0.005)

    def document(self, place: Place) -> dict[str, Any]:
        asked = self.asked
        resources = asked.get("resources") or {}
        if self.is_family:
            common = {"status": self.status, "services": self._services(place), "outputs": self._outputs()}
            own = {
                "tags": self.tags,
                "properties": self.properties,
                "displayName": asked.get("displayName") or self.name,
            }
            return place.resource("jobs", self.name, {**asked, **own, **common}, self.created, self.created)
        properties: dict[str, Any] = {
            "description": asked.get("description"),
            "tags": self.tags,
            "properties": self.properties,
            "displayName": asked.get("displayName") or self.name,
            "status": self.status,
            "experimentName": self.experiment,
            "services": self._services(place),
            "computeId": asked.get("computeId"),
            "isArchived": bool(asked.get("isArchived")),
            "identity": asked.get("identity"),
            "componentId": None,
            "jobType": "Command",
            "resources": {
                "instanceCount": self.instance_count,
                "instanceType": resources.get("instanceType"),
                "properties": resources.get("properties") or None,
                "shmSize": resources.get("shmSize") or "2g",
                "dockerArgs": resources.get("dockerArgs"),
            },
            "codeId": asked.get("codeId"),
            "command": asked.get("command"),
            "environmentId": asked.get("environmentId"),
            "inputs": self._inputs(),
            "outputs": self._outputs(),
            "distribution": asked.get("distribution"),
            "autologgerSettings": None,
            "limits": asked.get("limits"),
            "environmentVariables": asked.get("environmentVariables") or {},
            "parameters": {},
        }
        if asked.get("queueSettings"):
            properties["queueSettings"] = {"priority": None, **asked["queueSettings"]}
        document = place.resource("jobs", self.name, properties, self.created, self.created)
        times = document["systemData"]
        return {**document, "systemData": {key: times[key] for key in times if key.startswith("created")}}

    def named_outputs(self) -> Mapping[str, Mapping[str, Any]]:
        return {name: one for name, one in (self.asked.get("outputs") or {}).items() if name != "default"}

    def _inputs(self) -> dict[str, Any]:
        given = {}
        for name, one in (self.asked.get("inputs") or {}).items():
            mode = {} if one.get("jobInputType") == "literal" else {"mode": "ReadOnlyMount"}
            given[name] = {"description": None, **mode, **{key: one[key] for key in one if one[key] is not None}}
        return given

    def _outputs(self) -> dict[str, Any]:
        common = {"description": None, "uri": None, "assetName": None, "assetVersion": None, "mode": "ReadWriteMount"}
        given = {
            name: {**common, **{key: value for key, value in one.items() if value is not None}}
            for name, one in self.named_outputs().items()
        }
        default_uri = f"azureml://datastores/workspaceartifactstore/ExperimentRun/{self.container_id}"
        return {**given, "default": {**common, "uri": default_uri, "jobOutputType": "uri_folder"}}

    def _services(self, place: Place) -> dict[str, Any]:
        empty = {"port": None, "status": None, "errorMessage": None, "properties": None, "nodes": None}
        host = place.endpoint.removeprefix("https://")
        studio = (
            f"https://ml.azure.com/runs/{self.name}?wsid=/subscriptions/{place.subscription_id}"
            f"/resourcegroups/{place.resource_group}/workspaces/{place.workspace_name}"
        )
        asked = {
            name: {**empty, "jobServiceType": one.get("jobServiceType"), "endpoint": self._endpoint(name, place)}
            for name, one in (self.asked.get("services") or {}).items()
        }
        return {
            **asked,
            "Tracking": {
                "jobServiceType": "Tracking",
                "endpoint": f"azureml://{host}/mlflow/v1.0{place.id}?",
                **empty,
            },
            "Studio": {"jobServiceType": "Studio", "endpoint": studio, **empty},
        }

    def _endpoint(self, name: str, place: Place) -> str | None:
        """It is there while the job runs."""
        return f"https://{name}-{self.name}.{place.region}.nodes.azureml.ms" if self.status == "Running" else None

    def _set(self, status: str) -> None:
        if self.status != status:
            self.status = status
            self.statuses.append(status)
