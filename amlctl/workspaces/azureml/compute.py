"""Clusters and compute instances of one workspace.

`azure.ai.ml` checks a target's file and creates the target. Changing one goes without it: its model of a cluster leaves
out fields that the service then drops (SSH settings), so the service's own document is changed and sent back whole.
A cluster does not start or stop: started it keeps one node, stopped it goes down to none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amlctl.azure_access.azure_ai_ml import first_line, refused
from amlctl.config.text_file import read_text
from amlctl.config.yaml_file import parse_yaml
from amlctl.core.compute import ClusterTarget
from amlctl.core.events import EventSink, Note, Warned
from amlctl.core.message import Command, Message
from amlctl.errors import AmlctlError, Conflict, NotFound, RightsError, ServiceUnavailable, UsageError
from amlctl.workspaces.azureml.clients import Answer, answer_of_error
from amlctl.workspaces.azureml.compute_document import changed, errors_of, in_words, present, told
from amlctl.workspaces.azureml.connection import Connection, is_of_the_workspace
from amlctl.workspaces.contract import PresentTarget

if TYPE_CHECKING:
    from azure.ai.ml.entities import Compute

_VERSION = "2023-08-01-preview"
_FAILED = ("Failed", "Canceled", "SetupFailed", "CreateFailed")
_UNDER_WAY = ("Creating", "Updating", "Deleting", "Starting", "Stopping", "Restarting")


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

    def check(self, target: ClusterTarget) -> None:
        """Raises SettingsError: what `azure.ai.ml` finds wrong with the target's file, with its line."""
        self._loaded(target)

    def create(self, target: ClusterTarget, sink: EventSink) -> PresentTarget:
        """Also changes one that is there. Raises ServiceUnavailable (quota, failure), RightsError, UsageError."""
        document = self._document(target.name)
        if document is not None:
            return self._change(document, target)
        entity = self._loaded(target)
        sink(Note(f"{target.name} ({target.size or target.type}) in {self._connection.place.shown}: asked for"))
        self._make(target, entity)
        return self._result(target.name)

    def start(self, name: str, sink: EventSink) -> PresentTarget:
        known = self._known(name)
        if not known.target.is_cluster:
            return self._act(name, "start")
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
            return self._act(name, "stop")
        if known.target.min_instances:
            known = self._rescale(known, 0)
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

    def _loaded(self, target: ClusterTarget) -> Compute:
        """What the file says, and for the rest what amlctl's defaults say."""
        path = Path(target.file)
        shown = f"{path.parent.name}/{path.name}"
        file = parse_yaml(read_text(path, shown), shown)
        given = {**{name: getattr(target, name) for name in _OURS}, **target.rest}
        defaults = [{name: value} for name, value in given.items() if name not in file.value and value is not None]
        with self._connection.sdk.client():
            from azure.ai.ml import load_compute
            from azure.ai.ml.exceptions import MlException
            from marshmallow.exceptions import ValidationError

            try:
                return load_compute(path, params_override=defaults)
            except (MlException, ValidationError) as error:
                raise refused(file, str(error), what=f"a target of type {target.type}", keys=_KEYS) from error

    def _make(self, target: ClusterTarget, entity: Compute) -> None:
        from azure.core.exceptions import HttpResponseError

        if target.is_cluster and not target.location:
            entity.location = self._connection.facts.location  # known here; the SDK would ask for it
        try:
            with self._connection.sdk.client() as client:
                client.compute.begin_create_or_update(entity).result()
        except HttpResponseError as error:
            raise self._refused(answer_of_error(error), target.name, first_line(error)) from error

    def _rescale(self, known: PresentTarget, least: int) -> PresentTarget:
        document = self._document(known.target.name)
        return known if document is None else self._change(document, replace(known.target, min_instances=least))

    def _change(self, document: Mapping[str, Any], target: ClusterTarget) -> PresentTarget:
        answer = self._connection.workspace(
            "PUT", _path(target.name), _VERSION, changed(document, target), accept=range(400, 500)
        )
        if answer.status >= 400:
            raise self._refused(answer, target.name)
        self._wait(target.name, "change", answer)
        return self._result(target.name)

    def _result(self, name: str) -> PresentTarget:
        """Raises ServiceUnavailable: accepted, but it does not work."""
        document = self._document(name) or {}
        errors = errors_of(document)
        if errors:
            raise _unmade(name, "; ".join(errors))
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

    def _refused(self, answer: Answer, name: str, otherwise: str = "") -> AmlctlError:
        """What the service said no to, at once or at the end of the operation."""
        told = in_words(answer.code, answer.message) or otherwise
        if answer.status < 400 or "quota" in told.lower():
            return _unmade(name, told)
        if answer.status == 403:
            return RightsError(f"no right to make {name}: {told}", hint="ask for the role AzureML Compute Operator")
        return self._connection.error(answer, "PUT", f"{self._connection.place.path}{_path(name)}")


_OURS = ("name", "min_instances", "max_instances", "idle_time_before_scale_down")
"""Where the file says nothing, amlctl's defaults count (`with_defaults`)."""
_KEYS = (*_OURS, "size", "tier", "location", "description", "tags", "identity", "network_settings", "ssh_settings")
"""For suggestions."""


def _path(name: str) -> str:
    return f"/computes/{name}"


def _unmade(name: str, told: str) -> ServiceUnavailable:
    """It was accepted, but neither it nor its nodes came to be."""
    if "quota" in told.lower():
        return ServiceUnavailable(
            f"no quota for {name}: {told}",
            hint="ask for more (Azure portal, Quotas, Machine learning), or take another size or tier",
        )
    return ServiceUnavailable(f"{name} could not be made: {told}", hint=Command("compute", "show", name))


def _could_not(action: str, name: str, told: str) -> UsageError:
    return UsageError(
        f"could not {action} the compute target {name}" + (f": {told}" if told else ""),
        hint=Command("compute", "show", name),
    )
