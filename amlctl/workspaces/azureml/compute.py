"""Clusters and compute instances of one workspace.

They are read, started, stopped and deleted through the connection, and made and changed through `azure.ai.ml`, which
knows how each field of its YAML goes over the wire. `azure.ai.ml` is imported here and nowhere else.
A cluster does not start or stop: started it keeps one node, stopped it goes down to none.
"""

from __future__ import annotations

import io
import json
import logging
import os
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from amlctl.azure_access.login import Login
from amlctl.core.compute import ClusterTarget
from amlctl.core.events import EventSink, Note, Warned
from amlctl.core.message import Command, Message
from amlctl.errors import AmlctlError, Conflict, NotFound, RightsError, ServiceUnavailable, UsageError
from amlctl.workspaces.azureml.compute_document import errors_of, in_words, present, told
from amlctl.workspaces.azureml.connection import Connection, is_of_the_workspace
from amlctl.workspaces.azureml.exchange import Answer
from amlctl.workspaces.contract import PresentTarget

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.core.credentials import AccessToken
    from azure.core.exceptions import HttpResponseError

_VERSION = "2023-08-01-preview"
_CLOUD_VARIABLE = "AZUREML_CURRENT_CLOUD"
_FAILED = ("Failed", "Canceled", "SetupFailed", "CreateFailed")
_UNDER_WAY = ("Creating", "Updating", "Deleting", "Starting", "Stopping", "Restarting", "JobRunning")


class Computes:
    """Satisfies `ComputeTargets`. `poll_s` is between two looks at what takes long: the service says nothing of it."""

    def __init__(
        self, connection: Connection, *, poll_s: float = 1.0, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._connection = connection
        self._poll_s = poll_s
        self._sleep = sleep

    def list(self) -> list[PresentTarget]:
        found = [present(document) for document in self._connection.values("/computes", _VERSION)]
        return sorted(found, key=lambda one: one.target.name)

    def find(self, name: str) -> PresentTarget | None:
        document = self._document(name)
        if document is None:
            return None
        found = present(document)
        if found.state == "ready":
            self._connection.ready_targets.add(name)
        return found

    def create(self, target: ClusterTarget, sink: EventSink) -> PresentTarget:
        """Also changes one that is there. Raises ServiceUnavailable (quota, failure), RightsError, UsageError."""
        sink(Note(f"{target.name} ({target.size or target.type}) in {self._connection.place.shown}: asked for"))
        return self._put(target)

    def start(self, name: str, sink: EventSink) -> PresentTarget:
        known = self._known(name)
        if not known.target.is_cluster:
            return self._act(name, "start")
        if not known.target.min_instances:
            known = self._put(replace(known.target, min_instances=1))
        kept = known.target.min_instances or 0
        nodes = "one node" if kept == 1 else f"{kept} nodes"
        hours = known.target.node_hours_a_month
        stop = Command("compute", "stop", name)
        sink(Warned(Message(f"{name} keeps {nodes} until ", stop, f": {hours:,} node hours a month")))
        return known

    def stop(self, name: str, sink: EventSink) -> PresentTarget:
        known = self._known(name)
        if not known.target.is_cluster:
            return self._act(name, "stop")
        if known.target.min_instances:
            known = self._put(replace(known.target, min_instances=0))
        sink(Note(f"{name} is a cluster: it keeps no node from now on; runs that are going go on"))
        return known

    def delete(self, name: str) -> None:
        self._known(name)
        answer = self._connection.workspace(
            "DELETE", _path(name), _VERSION, query={"underlyingResourceAction": "Delete"}, accept=(409,)
        )
        if answer.status == 409:
            raise Conflict(
                f"{name} is in use: {in_words(answer.code, answer.message)}",
                hint=Message(Command("runs"), "; cancel what uses it, then try again"),
            )
        self._wait(name, "delete", answer)
        while (there := self.find(name)) is not None:
            if there.state != "Deleting":
                raise _could_not("delete", name, there.note)
            self._sleep(self._poll_s)

    def _put(self, target: ClusterTarget) -> PresentTarget:
        from azure.core.exceptions import AzureError, HttpResponseError

        try:
            with self._client() as client, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                client.compute.begin_create_or_update(_entity(target, self._location(target))).result()
        except HttpResponseError as error:
            raise self._refused(error, target) from error
        except AzureError as error:
            raise _failed(error, target) from error
        document = self._document(target.name) or {}
        errors = errors_of(document)
        if errors:
            raise _unmade(target, "; ".join(errors))
        return present(document)

    def _act(self, name: str, action: str) -> PresentTarget:
        self._wait(name, action, self._connection.workspace("POST", f"{_path(name)}/{action}", _VERSION))
        while (there := self._known(name)).state in _UNDER_WAY:
            self._sleep(self._poll_s)
        if there.state in _FAILED:
            raise _could_not(action, name, there.note)
        return there

    def _wait(self, name: str, action: str, answer: Answer) -> None:
        """Until the operation that the answer has begun is at its end. The service says nothing of when to ask."""
        address = answer.headers.get("azure-asyncoperation")
        while address:
            document = self._connection.follow("GET", address).document or {}
            status = str(document.get("status") or "Succeeded")
            if status in ("Failed", "Canceled"):
                raise _could_not(action, name, told(document))
            if status == "Succeeded":
                return
            self._sleep(self._poll_s)

    def _document(self, name: str) -> Mapping[str, Any] | None:
        answer = self._connection.workspace("GET", _path(name), _VERSION, accept=(404,))
        if answer.status == 404 and is_of_the_workspace(answer):
            raise self._connection.error(answer, "GET", self._connection.place.path)
        return None if answer.status == 404 else answer.document or {}

    def _known(self, name: str) -> PresentTarget:
        found = self.find(name)
        if found is None:
            place = self._connection.place
            raise NotFound(f"{place.shown} has no compute target {name}", hint=Command("compute", "create", name))
        return found

    def _location(self, target: ClusterTarget) -> str:
        """The SDK would ask for the workspace each time. Of an instance it does so in any case, and complains."""
        return (target.location or self._connection.facts.location) if target.is_cluster else ""

    @contextmanager
    def _client(self) -> Iterator[MLClient]:
        """The SDK, with this connection's login. What it leaves in the variables of this process is taken away."""
        place = self._connection.place
        cloud = place.cloud
        before = os.environ.get(_CLOUD_VARIABLE)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from azure.ai.ml import MLClient
            logging.getLogger("azure").setLevel(logging.ERROR)  # its notes on what is experimental go to stderr
            yield MLClient(
                _Credential(self._connection.login, cloud.audience),
                place.subscription_id,
                place.resource_group,
                place.workspace_name,
                # A name that is known already cannot be told another address.
                cloud=f"amlctl-{uuid.uuid4().hex}",
                cloud_metadata={
                    "azure_portal": cloud.studio,
                    "resource_manager": cloud.resource_manager,
                    "active_directory": cloud.authority,
                    "aml_resource_id": cloud.studio,
                    "storage_endpoint": cloud.storage_suffix,
                    "registry_discovery_endpoint": cloud.resource_manager,
                },
                enable_telemetry=False,
                polling_interval=self._poll_s,
            )
        finally:
            os.environ.pop(_CLOUD_VARIABLE, None)
            if before is not None:
                os.environ[_CLOUD_VARIABLE] = before

    def _refused(self, error: HttpResponseError, target: ClusterTarget) -> AmlctlError:
        """What the service said no to, at once or at the end of the operation."""
        response: Any = error.response
        status = int(error.status_code or 0)
        data = response.text().encode() if response is not None else b""
        headers = {} if response is None else {name.lower(): value for name, value in response.headers.items()}
        answer = Answer(status, headers, data)
        told = in_words(answer.code, answer.message) or str(error).partition("\n")[0]
        if status < 400 or "quota" in told.lower():
            return _unmade(target, told)
        if status == 403:
            return RightsError(
                f"no right to make {target.name}: {told}", hint="ask for the role AzureML Compute Operator"
            )
        return self._connection.error(answer, "PUT", f"{self._connection.place.path}{_path(target.name)}")


class _Credential:
    """The connection's login as the SDK wants it. Whatever scope it asks for, it speaks to ARM alone."""

    def __init__(self, login: Login, audience: str) -> None:
        self._login = login
        self._audience = audience

    def get_token(
        self,
        *scopes: str,
        claims: str | None = None,
        tenant_id: str | None = None,
        enable_cae: bool = False,
        **more: Any,
    ) -> AccessToken:
        from azure.core.credentials import AccessToken

        token = self._login.token(self._audience, claims=claims or "")
        return AccessToken(token, int(time.time()) + 240)  # the login renews what has less than five minutes left


def _path(name: str) -> str:
    return f"/computes/{name}"


def _entity(target: ClusterTarget, location: str) -> Any:
    """The SDK's own object, from the YAML that it takes."""
    from azure.ai.ml import load_compute

    fields = {**vars(target), **target.rest, "location": location}
    document = {name: value for name, value in fields.items() if name != "rest" and value not in (None, "", {})}
    return load_compute(io.StringIO(json.dumps(document)))


def _failed(error: Exception, target: ClusterTarget) -> AmlctlError:
    """Of what never came to an answer: the SDK itself refuses, or nobody can be reached."""
    from azure.core.exceptions import ServiceRequestError, ServiceResponseError

    told = str(error).strip().partition("\n")[0]
    if isinstance(error, (ServiceRequestError, ServiceResponseError)):
        return ServiceUnavailable(
            f"Azure ML could not be reached: {told}", hint=Message("try again; ", Command("doctor"), " checks")
        )
    return UsageError(f"the compute target {target.name} cannot be made so: {told}", hint="see its file in compute/")


def _unmade(target: ClusterTarget, told: str) -> ServiceUnavailable:
    """It was taken, and has not come to be, or its nodes have not."""
    if "quota" in told.lower():
        return ServiceUnavailable(
            f"no quota for {target.name}: {told}",
            hint="ask for more (Azure portal, Quotas, Machine learning), or take another size or tier",
        )
    return ServiceUnavailable(f"{target.name} could not be made: {told}", hint=Command("compute", "show", target.name))


def _could_not(action: str, name: str, told: str) -> UsageError:
    return UsageError(
        f"could not {action} the compute target {name}" + (f": {told}" if told else ""),
        hint=Command("compute", "show", name),
    )
