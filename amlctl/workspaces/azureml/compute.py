"""Compute targets of an Azure ML workspace. Read over our own connection; made, changed and deleted through
`azure.ai.ml`, which knows every field of the YAML schemas (amlCompute, computeInstance). Imported here alone.

A cluster does not start or stop: started it keeps one node, stopped it goes down to none.
"""

from __future__ import annotations

import io
import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from amlctl.core.compute import ClusterTarget
from amlctl.core.events import EventSink, Note
from amlctl.errors import AmlctlError, Conflict, NotFound, RightsError, ServiceUnavailable, UsageError
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.contract import PresentTarget

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.core.credentials import AccessToken

_VERSION = "2023-08-01-preview"
_TOKEN_S = 300
_IDLE_S = 120
_POLL_S = 1.0
_LONGEST_S = 1800.0
_DURATION = re.compile(r"PT(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?")
_KINDS = {"amlcompute": "amlcompute", "computeinstance": "computeinstance"}
_QUOTA = re.compile(r"quota", re.IGNORECASE)


class Computes:
    """Satisfies `ComputeTargets`."""

    def __init__(self, connection: Connection, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._connection = connection
        self._sleep = sleep

    def list(self) -> list[PresentTarget]:
        documents = self._connection.values("/computes", _VERSION)
        found = [present(document) for document in documents]
        return sorted((one for one in found if one is not None), key=lambda one: one.target.name)

    def find(self, name: str) -> PresentTarget | None:
        answer = self._connection.workspace("GET", f"/computes/{name}", _VERSION, accept=(404,))
        return None if answer.status == 404 else present(answer.document)

    def create(self, target: ClusterTarget, sink: EventSink) -> PresentTarget:
        """Also changes one that is there. Raises ServiceUnavailable (quota, provisioning), UsageError (refused)."""
        import yaml
        from azure.ai.ml import load_compute

        entity = load_compute(io.StringIO(yaml.safe_dump(_schema(target))))
        verb = "changes" if self.find(target.name) is not None else "makes"
        sink(Note(f"{verb} {target.name} ({target.size or target.type}) in {self._connection.place.shown}"))
        self._act(target.name, lambda client: client.compute.begin_create_or_update(entity))
        return self._settled(target.name)

    def start(self, name: str, sink: EventSink) -> PresentTarget:
        if self._known(name).target.type == "amlcompute":
            sink(Note(f"{name} is a cluster: it keeps one node from now on, until amlctl compute stop {name}"))
            return self._keep_nodes(name, 1)
        self._act(name, lambda client: client.compute.begin_start(name))
        return self._settled(name)

    def stop(self, name: str, sink: EventSink) -> PresentTarget:
        if self._known(name).target.type == "amlcompute":
            sink(Note(f"{name} is a cluster: it keeps no node from now on; runs that are going go on"))
            return self._keep_nodes(name, 0)
        self._act(name, lambda client: client.compute.begin_stop(name))
        return self._settled(name)

    def delete(self, name: str) -> None:
        self._known(name)
        self._act(name, lambda client: client.compute.begin_delete(name, action="Delete"))

    def _keep_nodes(self, name: str, count: int) -> PresentTarget:
        def change(client: MLClient) -> Any:
            entity = client.compute.get(name)
            entity.min_instances = count
            return client.compute.begin_update(entity)

        self._act(name, change)
        return self._settled(name)

    def _known(self, name: str) -> PresentTarget:
        found = self.find(name)
        if found is None:
            place = self._connection.place
            raise NotFound(f"{place.shown} has no compute target {name}", hint=f"amlctl compute create {name}")
        return found

    def _act(self, name: str, begin: Callable[[MLClient], Any]) -> None:
        """Raises what a refusal or a failed operation means."""
        from azure.core.exceptions import AzureError, HttpResponseError

        try:
            begin(self._client()).result()
        except HttpResponseError as error:
            raise self._told(name, error.status_code or 0, _code(error), _message(error)) from error
        except AzureError as error:
            raise ServiceUnavailable(
                f"Azure ML does not answer about {name}: {error}".splitlines()[0], hint="run the same command again"
            ) from error

    def _settled(self, name: str) -> PresentTarget:
        """Raises ServiceUnavailable where it has not come to be."""
        deadline = time.monotonic() + _LONGEST_S
        while True:
            answer = self._connection.workspace("GET", f"/computes/{name}", _VERSION)
            properties = (answer.document or {}).get("properties") or {}
            state = str(properties.get("provisioningState") or "")
            inner = properties.get("properties") or {}
            for error in [*(properties.get("provisioningErrors") or ()), *(inner.get("errors") or ())]:
                told = error.get("error") or error
                raise self._told(name, 0, str(told.get("code") or ""), str(told.get("message") or "no reason given"))
            if state == "Succeeded":
                found = present(answer.document)
                assert found is not None
                return found
            if state in ("Failed", "Canceled") or time.monotonic() > deadline:
                raise ServiceUnavailable(f"{name} is {state}", hint="Studio, Compute, shows more")
            self._sleep(_POLL_S)

    def _told(self, name: str, status: int, code: str, message: str) -> AmlctlError:
        first = message.strip().splitlines()[0] if message.strip() else f"status {status}"
        told = f"{first} ({code})" if code and code not in first else first
        if _QUOTA.search(f"{code} {message}"):
            return ServiceUnavailable(
                f"no quota for {name}: {told}",
                hint="ask for more (Azure portal, Quotas, Machine learning), or take another size or tier",
            )
        if status in (401, 403):
            return RightsError(f"no right to act on {name}: {told}", hint="ask for the role AzureML Compute Operator")
        if status == 409:
            return Conflict(f"{name} is in use: {told}", hint="amlctl runs; cancel what uses it, then try again")
        if 400 <= status < 500:
            return UsageError(f"Azure ML refused {name}: {told}", hint="amlctl compute show tells what is there")
        return ServiceUnavailable(f"Azure ML failed at {name}: {told}", hint="run the same command again")

    def _client(self) -> MLClient:
        from azure.ai.ml import MLClient

        # Notes on experimental classes and the like would stand between our lines.
        logging.getLogger("azure").setLevel(logging.ERROR)
        place = self._connection.place
        cloud = place.cloud
        return MLClient(
            _Credential(self._connection),
            place.subscription_id,
            place.resource_group,
            place.workspace_name,
            cloud=cloud.name if cloud.resource_manager == cloud.audience else f"{cloud.name} at {place.name}",
            cloud_metadata={
                "azure_portal": "https://portal.azure.com",
                "resource_manager": f"{cloud.resource_manager}/",
                "active_directory": f"{cloud.authority}/",
                "aml_resource_id": cloud.audience,
                "storage_endpoint": cloud.storage_suffix,
                "registry_discovery_endpoint": f"{cloud.resource_manager}/",
            },
            polling_interval=_POLL_S,
        )


class _Credential:
    """Our login as the SDK wants it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        from azure.core.credentials import AccessToken

        token = self._connection.login.token(self._connection.place.cloud.audience)
        return AccessToken(token, int(time.time()) + _TOKEN_S)


def present(document: Any) -> PresentTarget | None:
    """What the service says of a target; None for kinds that are none of ours (attached clusters)."""
    properties = document.get("properties") or {}
    kind = str(properties.get("computeType") or "").lower()
    if kind not in _KINDS:
        return None
    inner = properties.get("properties") or {}
    scale = inner.get("scaleSettings") or {}
    is_low = str(inner.get("vmPriority") or "").lower() == "lowpriority"
    target = ClusterTarget(
        str(document.get("name") or ""),
        _KINDS[kind],
        size=str(inner.get("vmSize") or ""),
        tier=("low_priority" if is_low else "dedicated") if kind == "amlcompute" else "",
        location=str(document.get("location") or ""),
        description=str(properties.get("description") or ""),
        min_instances=scale.get("minNodeCount"),
        max_instances=scale.get("maxNodeCount"),
        idle_time_before_scale_down=_seconds(str(scale.get("nodeIdleTimeBeforeScaleDown") or "")),
        rest={"tags": document["tags"]} if document.get("tags") else {},
    )
    provisioning = str(properties.get("provisioningState") or "Unknown")
    if provisioning != "Succeeded":
        return PresentTarget(target, provisioning)
    if kind == "computeinstance":
        return PresentTarget(target, str(inner.get("state") or "ready"))
    nodes = f"{inner.get('currentNodeCount') or 0} of {scale.get('maxNodeCount') or 0} nodes"
    return PresentTarget(target, "ready", nodes)


def _schema(target: ClusterTarget) -> Mapping[str, Any]:
    """The target in Azure ML's own YAML; what it does not say is what costs least."""
    fields: dict[str, Any] = {"name": target.name, "type": target.type, "size": target.size or None}
    if target.type == "amlcompute":
        idle_s = target.idle_time_before_scale_down
        fields |= {
            "tier": target.tier or None,
            "min_instances": target.min_instances or 0,
            "max_instances": target.max_instances,
            "idle_time_before_scale_down": _IDLE_S if idle_s is None else idle_s,
        }
    fields |= {"location": target.location or None, "description": target.description or None, **target.rest}
    return {name: value for name, value in fields.items() if value is not None}


def _seconds(text: str) -> int | None:
    found = _DURATION.fullmatch(text)
    if found is None or not text[2:]:
        return None
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return int(hours * 3600 + minutes * 60 + seconds)


def _code(error: Any) -> str:
    """Of the service; the innermost one says most."""
    found = error.error
    code = ""
    while found is not None:
        code = str(getattr(found, "code", "") or code)
        found = getattr(found, "innererror", None)
        found = found.get("innerError") if isinstance(found, dict) else found
    return code


def _message(error: Any) -> str:
    return str(getattr(error.error, "message", "") or error.message or error)
