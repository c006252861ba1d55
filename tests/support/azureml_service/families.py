"""Sweeps and pipelines: a parent whose children are command jobs, and the components that steps are made of."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .job import Job
from .place import Place, now
from .replies import Handler, Reply, Request, not_found

_POLL_S = 0.02
_SPACE = re.compile(r"\$\{\{\s*search_space\.(\w+)\s*\}\}")
_PARENT = re.compile(r"\$\{\{\s*parent\.inputs\.(\w+)\s*\}\}")
_STEP = re.compile(r"\$\{\{\s*parent\.jobs\.(\w+)\.outputs\.(\w+)\s*\}\}")


class Components:
    """Versions as they were asked for; `datastore` tells the name of the one for outputs."""

    def __init__(self, place: Place, datastore: Callable[[], str]) -> None:
        self._place = place
        self.datastore = datastore
        self._versions: dict[tuple[str, str], dict[str, Any]] = {}

    def routes(self) -> list[tuple[str, str, Handler]]:
        one = "{ws}/components/(?P<name>[^/]+)/versions/(?P<version>[^/]+)"
        return [("GET", one, self._get), ("PUT", one, self._put)]

    def specification(self, component_id: str) -> dict[str, Any]:
        found = re.search(r"/components/([^/]+)/versions/([^/]+)$", component_id)
        document = self._versions.get((found[1].lower(), found[2])) if found else None
        if document is None:
            raise not_found(f"Component {component_id} was not found.")
        return dict(document["properties"]["componentSpec"])

    def _get(self, request: Request) -> Reply:
        document = self._versions.get((request.names["name"].lower(), request.names["version"]))
        if document is None:
            raise not_found(f"Component {request.names['name']} was not found.")
        return Reply(200, document)

    def _put(self, request: Request) -> Reply:
        name, version = request.names["name"], request.names["version"]
        properties = dict(request.body.get("properties") or {})
        document = self._place.resource(f"components/{name}/versions", version, properties, now(), now())
        self._versions[(name.lower(), version)] = document
        return Reply(201, document)


class Families:
    """`add` makes a job known; `run` starts a command job."""

    def __init__(self, components: Components, add: Callable[[Job], None], run: Callable[[Job], None]) -> None:
        self._components = components
        self._add = add
        self._run = run

    def start(self, parent: Job) -> None:
        threading.Thread(target=self._run_family, args=(parent,), name=f"family-{parent.name}", daemon=True).start()

    def _run_family(self, parent: Job) -> None:
        is_sweep = parent.asked["jobType"].lower() == "sweep"
        try:
            parent.enter("Running")
            parent.started = now()
            children = list(self._trials(parent) if is_sweep else self._steps(parent))
            limits = parent.asked.get("limits") or {}
            at_once = int(limits.get("maxConcurrentTrials") or len(children)) if is_sweep else 1
            waiting, active = list(children), list[Job]()
            while waiting or active:
                while waiting and len(active) < at_once and not parent.cancel.is_set():
                    active.append(waiting.pop(0))
                    self._add(active[-1])
                    self._run(active[-1])
                active = [child for child in active if not child.is_over.is_set()]
                if parent.cancel.is_set():
                    waiting.clear()
                    for child in active:
                        child.ask_to_cancel()
                time.sleep(_POLL_S)
            ends = {child.status for child in children}
            parent.end("Canceled" if parent.cancel.is_set() else "Completed" if ends == {"Completed"} else "Failed")
        finally:
            parent.is_over.set()

    def _trials(self, parent: Job) -> Iterator[Job]:
        asked = parent.asked
        space = {name: values[1][0] for name, values in asked["searchSpace"].items()}  # of choices alone
        outputs = {name: one for name, one in (asked.get("outputs") or {}).items() if name != "default"}
        most = int((asked.get("limits") or {}).get("maxTotalTrials") or 100)
        for number, values in enumerate(itertools.islice(itertools.product(*space.values()), most)):
            chosen = dict(zip(space, values, strict=True))
            trial = dict(asked["trial"])
            trial["command"] = _with_values(trial["command"], chosen)
            own = {"inputs": asked.get("inputs") or {}, "outputs": outputs}
            yield _child(parent, f"{parent.name}_{number}", {**trial, **own})

    def _steps(self, parent: Job) -> Iterator[Job]:
        given = parent.asked.get("inputs") or {}
        for name, step in parent.asked["jobs"].items():
            component = self._components.specification(step["componentId"])
            inputs = {key: self._bound(parent, value, given) for key, value in (step.get("inputs") or {}).items()}
            outputs = {
                key: {"jobOutputType": "uri_folder", "mode": "ReadWriteMount"} for key in component.get("outputs") or {}
            }
            asked = {
                "command": component["command"],
                "codeId": (component.get("code") or "").removeprefix("azureml:"),
                "environmentId": component["environment"].removeprefix("azureml:"),
                "inputs": inputs,
                "outputs": outputs,
            }
            yield _child(parent, f"{parent.name}_{name}", {**asked, "displayName": name})

    def _bound(self, parent: Job, value: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
        text = str(value.get("value") or "")
        if found := _PARENT.fullmatch(text):
            return dict(given[found[1]])
        if found := _STEP.fullmatch(text):
            path = f"azureml/{parent.name}_{found[1]}/{found[2]}/"
            return {
                "jobInputType": "uri_folder",
                "uri": f"azureml://datastores/{self._components.datastore()}/paths/{path}",
            }
        return value


def _with_values(command: str, chosen: Mapping[str, object]) -> str:
    return _SPACE.sub(lambda match: str(chosen[match[1]]), command)


def _child(parent: Job, name: str, asked: dict[str, Any]) -> Job:
    return Job(
        name,
        {
            **asked,
            "jobType": "Command",
            "experimentName": parent.experiment,
            "computeId": parent.asked.get("computeId"),
        },
        parent=parent.name,
    )
