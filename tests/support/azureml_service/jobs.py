"""Jobs on the wire: submit, read, list, cancel."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from .codes import Codes
from .computes import Computes
from .environments import Environments
from .families import Components, Families
from .faults import Faults
from .job import Job
from .operations import Operations
from .place import PROVIDER, Place, asset_of, last_name
from .replies import Handler, Reply, Request, not_found, user_error

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}")
_EXPERIMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,255}")
_FIXED = ("command", "codeId", "environmentId", "computeId")
_CHANGEABLE = ("description", "displayName", "isArchived")


class Jobs:
    """Thread-safe. `run` starts a new job; `strangers` are documents that a list begins with, of other kinds, too."""

    def __init__(
        self,
        place: Place,
        faults: Faults,
        operations: Operations,
        computes: Computes,
        environments: Environments,
        codes: Codes,
        components: Components,
        run: Callable[[Job], None],
    ) -> None:
        self._place = place
        self._faults = faults
        self._operations = operations
        self._computes = computes
        self._environments = environments
        self._codes = codes
        self._run = run
        self._families = Families(components, self._add, run)
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._cancels: dict[str, float] = {}
        self.strangers: list[dict[str, Any]] = []

    def routes(self) -> list[tuple[str, str, Handler]]:
        location = f"/subscriptions/[^/]+/providers/{PROVIDER}/locations/[^/]+"
        return [
            ("GET", "{ws}/jobs", self._list),
            (
                "GET",
                "{ws}/jobs/(?P<name>[^/]+)",
                lambda request: self._document(200, self.named(request.names["name"])),
            ),
            ("PUT", "{ws}/jobs/(?P<name>[^/]+)", self._put),
            ("POST", "{ws}/jobs/(?P<name>[^/]+)/cancel", self._cancel),
            ("GET", f"{location}/mfeOperationResults/jc:[^:/]+:(?P<name>[^/]+)", self._cancel_result),
        ]

    def _add(self, job: Job) -> None:
        with self._lock:
            self._jobs[job.name.lower()] = job

    def all(self) -> list[Job]:
        """Oldest first."""
        with self._lock:
            return list(self._jobs.values())

    def named(self, name: str) -> Job:
        job = self._jobs.get(name.lower())
        if job is None:
            raise not_found(f"Run {name} was not found.")
        return job

    def _put(self, request: Request) -> Reply:
        name = request.names["name"]
        asked = dict(request.body.get("properties") or {})
        if not _NAME.fullmatch(name):
            raise user_error(400, f"The job name {name!r} is not valid.", "BadArgument")
        with self._lock:
            present = self._jobs.get(name.lower())
            if present is None:
                self._check(asked)
                job = self._jobs[name.lower()] = Job(name, asked)
        if present is not None:
            self._change(present, asked)
            return self._document(200, present)
        reply = self._document(201, job)
        (self._families.start if job.is_family else self._run)(job)
        location = f"{self._place.endpoint}{self._place.id}/jobs/{name}?api-version={request.api_version}"
        return Reply(201, reply.body, {"Location": location})

    def _check(self, asked: dict[str, Any]) -> None:
        """As little as the service does: what is not looked at here fails later, on the node."""
        if not _EXPERIMENT.fullmatch(asked.get("experimentName") or "Default"):
            raise user_error(
                400,
                "Experiment name must be 1-256 characters, start with a letter or a number, and can only contain "
                "letters, numbers, underscores, and dashes.",
                "BadArgument",
            )
        if str(asked.get("jobType", "")).lower() in ("sweep", "pipeline"):
            return
        if str(asked.get("jobType", "")).lower() != "command":
            raise user_error(400, f"Job type {asked.get('jobType')} is not served here.", "BadArgument")
        if not asked.get("command") or not asked.get("environmentId"):
            raise user_error(400, "A command job needs a command and an environmentId.", "BadArgument")
        environment = asset_of(asked["environmentId"], "environments")
        if environment and not environment[0].startswith("AzureML-") and not self._environments.document(*environment):
            raise user_error(
                400, f"No environment exists for name: {environment[0]}, version: {environment[1]}", "NotFound"
            )
        if asked.get("codeId"):
            code = asset_of(asked["codeId"], "codes")
            if code is None or self._codes.uri(*code) is None:
                raise user_error(400, f"The code asset {asked['codeId']} does not exist.", "NotFound")
        if asked.get("computeId"):
            nodes = int((asked.get("resources") or {}).get("instanceCount") or 1)
            self._computes.check(last_name(asked["computeId"]), nodes)

    def _change(self, job: Job, asked: dict[str, Any]) -> None:
        for key in _FIXED:
            old, new = job.asked.get(key), asked.get(key)
            if new is not None and str(new).lower() != str(old).lower():
                raise user_error(400, f"{key} of job {job.name} cannot be changed.", "ImmutablePropertyModified")
        with job.lock:
            job.asked.update({key: asked[key] for key in _CHANGEABLE if key in asked})
            if asked.get("tags") is not None:
                kept = {key: value for key, value in job.tags.items() if key.startswith("_aml_system_")}
                job.tags = {**kept, **asked["tags"]}

    def _list(self, request: Request) -> Reply:
        query = request.query
        view = query.get("listViewType", "ActiveOnly").lower()
        with self._lock:
            jobs = list(reversed(self._jobs.values()))
        found = [job for job in jobs if view == "all" or bool(job.asked.get("isArchived")) == (view == "archivedonly")]
        if tag := query.get("tag"):
            key, is_pair, value = tag.partition("=")
            found = [job for job in found if key in job.tags and (not is_pair or job.tags[key] == value)]
        documents = self.strangers + [job.document(self._place) for job in found]
        for wanted in filter(None, query.get("properties", "").split(",")):
            documents = [one for one in documents if _has_property(one, wanted)]
        if kind := query.get("jobType"):
            documents = [one for one in documents if (one.get("properties") or {}).get("jobType") == kind]
        start, _, is_empty = query.get("$skip", "0").partition("e")
        return Reply(200, self._page(request, documents, int(start), is_empty == "mpty"))

    def _page(self, request: Request, documents: list[Any], start: int, is_empty: bool) -> dict[str, Any]:
        size = self._faults.page_size
        end = start if is_empty else start + size
        page = {"value": documents[start:end]}
        if end < len(documents):
            skip = f"{end}empty" if self._faults.has_empty_page and start == 0 and not is_empty else str(end)
            rest = "&".join(f"{key}={quote(value)}" for key, value in request.query.items() if key != "$skip")
            page["nextLink"] = f"{self._place.endpoint}{self._place.id}/jobs?{rest}&%24skip={skip}"  # type: ignore[assignment]
        return page

    def _cancel(self, request: Request) -> Reply:
        job = self.named(request.names["name"])
        if not job.ask_to_cancel():
            if self._faults.cancel_after_end == 400:
                raise user_error(400, f"Run {job.name} is in state {job.status} and cannot be canceled.", "BadArgument")
            return Reply(200)
        self._cancels.setdefault(job.name, time.monotonic() + self._faults.operation_s)
        address = (
            f"{self._place.endpoint}{self._place.location_id}/mfeOperationResults/"
            f"jc:{self._place.workspace_id}:{job.name}?api-version={request.api_version}"
        )
        headers = {"Location": address, "x-ms-async-operation-timeout": "PT1H", **self._operations.retry_after()}
        return Reply(202, None, headers)

    def _cancel_result(self, request: Request) -> Reply:
        job = self.named(request.names["name"])
        if job.has_ended and time.monotonic() >= self._cancels.get(job.name, 0.0):
            return Reply(200)
        address = f"{self._place.endpoint}{request.path}?api-version={request.api_version}"
        return Reply(202, {}, {"Location": address, **self._operations.retry_after()})

    def _document(self, status: int, job: Job) -> Reply:
        with job.lock:
            return Reply(status, job.document(self._place))


def _has_property(document: dict[str, Any], wanted: str) -> bool:
    key, is_pair, value = wanted.partition("=")
    properties = (document.get("properties") or {}).get("properties") or {}
    return key in properties and (not is_pair or properties[key] == value)
