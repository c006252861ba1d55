"""Clusters and compute instances of one workspace.

`azure.ai.ml` validates a target's file and creates the target. It does not change targets: its model of a cluster lacks
fields (SSH settings) that the service then drops, so the service's own document is changed and sent back as a whole.
A cluster does not start or stop: started it keeps one node, stopped it scales down to 0.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amlctl.azure_access.azure_ai_ml import first_line, refused
from amlctl.config.nodes import parse_yaml
from amlctl.config.text_file import read_text
from amlctl.core.compute import FAILED_STATES, ClusterTarget
from amlctl.core.events import EventSink, Note, Warned
from amlctl.core.message import Command, Message
from amlctl.errors import AmlctlError, Conflict, NotFound, ServiceUnavailable
from amlctl.workspaces.azureml.clients import Answer, answer_of_error
from amlctl.workspaces.azureml.compute_document import changed, error_text, errors_of, present
from amlctl.workspaces.azureml.connection import Connection, is_workspace_missing
from amlctl.workspaces.azureml.documents import invalid_answer
from amlctl.workspaces.contract import PresentTarget

if TYPE_CHECKING:
    from azure.ai.ml.entities import Compute

_VERSION = "2023-08-01-preview"
_TEMPORARY = ("Creating", "Updating", "Deleting", "Starting", "Stopping", "Restarting")
_WAIT_S = 1800.0
"""An instance starts, and a cluster is created, within minutes; after this something is wrong."""
_DEFAULTED = ("name", "min_instances", "max_instances", "idle_time_before_scale_down")
"""Without them in the file, amlctl's defaults apply (`with_defaults`)."""
_KEYS = (*_DEFAULTED, "size", "tier", "location", "description", "tags", "identity", "network_settings", "ssh_settings")
"""For suggestions."""


class Computes:
    """Satisfies `ComputeTargets`. `poll_s` is between two requests about a long operation: the service does not say."""

    def __init__(
        self,
        connection: Connection,
        *,
        poll_s: float = 1.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._poll_s = poll_s
        self._sleep = sleep
        self._clock = clock

    def list(self) -> list[PresentTarget]:
        found = [present(document) for document in self._connection.values("/computes", _VERSION)]
        return sorted(found, key=lambda one: one.target.name)

    def find(self, name: str) -> PresentTarget | None:
        document = self._document(name)
        return None if document is None else present(document)

    def check(self, target: ClusterTarget) -> None:
        """Raises SettingsError with the line that `azure.ai.ml` refuses."""
        self._loaded(target)

    def create(self, target: ClusterTarget, sink: EventSink) -> PresentTarget:
        """Also changes an existing one. Raises ServiceUnavailable (quota, failure, timeout), RightsError,
        UsageError."""
        document = self._document(target.name)
        if document is not None:
            return self._change(document, target)
        from azure.core.exceptions import HttpResponseError

        entity = self._loaded(target)
        where = self._connection.address.shown
        sink(Note(f"Creating {target.name} ({target.size or target.type}) in {where}; {_WAIT}"))
        if target.is_cluster and not target.location:
            entity.location = self._connection.facts.location  # known here; the SDK would ask for it
        try:
            with self._connection.sdk.client() as client:
                poller = client.compute.begin_create_or_update(entity)
                poller.wait(_WAIT_S)
                if not poller.done():
                    raise _timeout("create", target.name)
                poller.result()
        except HttpResponseError as error:
            raise self._refused(answer_of_error(error), target.name, first_line(error)) from error
        return self._result(target.name)

    def start(self, name: str, sink: EventSink) -> PresentTarget:
        known = self._known(name)
        if not known.target.is_cluster:
            return self._act(name, "start", sink)
        if not known.target.min_instances:
            known = self._rescale(known, 1)
        kept = known.target.min_instances or 0
        nodes = "one node" if kept == 1 else f"{kept} nodes"
        hours = known.target.node_hours_a_month
        stop = Command("compute", "stop", name)
        sink(Warned(Message(f"{name} keeps {nodes} until ", stop, f": {hours:,} node hours a month")))
        return known

    def stop(self, name: str, sink: EventSink) -> PresentTarget:
        known = self._known(name)
        if not known.target.is_cluster:
            return self._act(name, "stop", sink)
        if known.target.min_instances:
            known = self._rescale(known, 0)
        sink(Note(f"the cluster {name} now scales down to 0 nodes; active runs continue"))
        return known

    def delete(self, name: str, sink: EventSink) -> None:
        self._known(name)
        answer = self._connection.workspace(
            "DELETE", _path(name), _VERSION, query={"underlyingResourceAction": "Delete"}, accept=(409,)
        )
        if answer.status == 409:
            raise Conflict(
                f"{name} is in use: {error_text(answer.document)}",
                hint=Message(Command("runs"), "; cancel the runs that use it, then try again"),
            )
        sink(Note(f"Waiting for {name} to be deleted; {_WAIT}"))
        deadline = self._clock() + _WAIT_S
        self._wait(name, "delete", answer, deadline)
        while (found := self.find(name)) is not None:
            if found.state != "Deleting":
                raise _failed("delete", name, f"Azure ML still has it, in state {found.state}")
            self._pause("delete", name, deadline)

    def _loaded(self, target: ClusterTarget) -> Compute:
        """The file's content, and amlctl's defaults."""
        path = Path(target.file)
        shown = f"{path.parent.name}/{path.name}"
        file = parse_yaml(read_text(path, shown), shown)
        given = {**{name: getattr(target, name) for name in _DEFAULTED}, **target.rest}
        defaults = [{name: value} for name, value in given.items() if name not in file.value and value is not None]
        with self._connection.sdk.client():
            from azure.ai.ml import load_compute
            from azure.ai.ml.exceptions import MlException
            from marshmallow.exceptions import ValidationError

            try:
                return load_compute(path, params_override=defaults)
            except (MlException, ValidationError) as error:
                raise refused(file, str(error), what=f"a target of type {target.type}", keys=_KEYS) from error

    def _rescale(self, known: PresentTarget, least: int) -> PresentTarget:
        document = self._document(known.target.name)
        return known if document is None else self._change(document, replace(known.target, min_instances=least))

    def _change(self, document: Mapping[str, Any], target: ClusterTarget) -> PresentTarget:
        body = changed(document, target)
        answer = self._connection.workspace("PUT", _path(target.name), _VERSION, body, accept=range(400, 500))
        if answer.status >= 400:
            raise self._refused(answer, target.name)
        self._wait(target.name, "change", answer, self._clock() + _WAIT_S)
        return self._result(target.name)

    def _result(self, name: str) -> PresentTarget:
        """Raises ServiceUnavailable: accepted, but provisioning failed."""
        document = self._document(name) or {}
        if errors := errors_of(document):
            raise _not_created(name, "; ".join(errors))
        return present(document)

    def _act(self, name: str, action: str, sink: EventSink) -> PresentTarget:
        sink(Note(f"Waiting for {name} to {action}; {_WAIT}"))
        deadline = self._clock() + _WAIT_S
        self._wait(name, action, self._connection.workspace("POST", f"{_path(name)}/{action}", _VERSION), deadline)
        while (found := self._known(name)).state in _TEMPORARY:
            self._pause(action, name, deadline)
        if found.state in FAILED_STATES:
            raise _failed(action, name, found.note)
        return found

    def _wait(self, name: str, action: str, answer: Answer, deadline: float) -> None:
        """Until the operation that the answer began has ended."""
        address = answer.headers.get("azure-asyncoperation")
        while address:
            document = self._connection.follow("GET", address).document
            status = str(document.get("status") or "Succeeded")
            if status in ("Failed", "Canceled"):
                raise _failed(action, name, error_text(document))
            if status == "Succeeded":  # any other word means that it is under way
                return
            self._pause(action, name, deadline)

    def _pause(self, action: str, name: str, deadline: float) -> None:
        if self._clock() > deadline:
            raise _timeout(action, name)
        self._sleep(self._poll_s)

    def _document(self, name: str) -> Mapping[str, Any] | None:
        answer = self._connection.workspace("GET", _path(name), _VERSION, accept=(404,))
        if answer.status == 404 and is_workspace_missing(answer):
            raise self._connection.error(answer, "GET", self._connection.address.path)
        if answer.status == 404:
            return None
        if not (answer.document.get("properties") or {}).get("computeType"):  # clusters and instances stop differently
            raise invalid_answer(f"the compute target {name}", "it does not name its type")
        return answer.document

    def _known(self, name: str) -> PresentTarget:
        found = self.find(name)
        if found is None:
            where = self._connection.address.shown
            raise NotFound(f"Compute target {name} not found in {where}", hint=Command("compute", "create", name))
        return found

    def _refused(self, answer: Answer, name: str, default: str = "") -> AmlctlError:
        """Refused by the service, at once or at the end of the operation."""
        why = error_text({"code": answer.code, "message": answer.message}) or default
        if answer.status < 400 or "quota" in why.lower():
            return _not_created(name, why)
        return self._connection.error(answer, "PUT", f"{self._connection.address.path}{_path(name)}")


_WAIT = f"this can take minutes (timeout after {_WAIT_S / 60:.0f})"


def _path(name: str) -> str:
    return f"/computes/{name}"


def _not_created(name: str, why: str) -> ServiceUnavailable:
    """Accepted, but provisioning it or its nodes failed."""
    if "quota" in why.lower():
        return ServiceUnavailable(
            f"no quota for {name}: {why}",
            hint="ask for more (Azure portal, Quotas, Machine learning), or use another size or tier",
        )
    return ServiceUnavailable(f"failed to create {name}: {why}", hint=Command("compute", "show", name))


def _failed(action: str, name: str, why: str) -> ServiceUnavailable:
    return ServiceUnavailable(
        f"failed to {action} the compute target {name}" + (f": {why}" if why else ""),
        hint=Command("compute", "show", name),
    )


def _timeout(action: str, name: str) -> ServiceUnavailable:
    return ServiceUnavailable(
        f"failed to {action} the compute target {name} within {_WAIT_S / 60:.0f} minutes; the operation may still end",
        hint=Command("compute", "show", name),
    )
