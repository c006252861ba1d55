"""What Azure ML says of a run that is active: state, error and logs in one request (a look); services; child runs; and
metrics that scripts have sent to the workspace's MLflow server, by MLflow's documented REST API."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amlctl.core.metrics import MOST_NAMES, Point, SeriesBuilder, number_of
from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState
from amlctl.parallel import in_parallel
from amlctl.workspaces.azureml.connection import Connection, is_workspace_missing
from amlctl.workspaces.azureml.documents import as_object, objects

_JOB_VERSION = "2024-01-01-preview"
_SERVICES_AGAIN_S = 10.0
_BUILT_IN_SERVICES = ("Studio", "Tracking")
_PART_OF_QUIET = 0.1


@dataclass(frozen=True)
class AzureMLTiming:
    """How often a run is looked at, in seconds.

    The state is requested every `first_poll_s` at first, then less often, up to `longest_poll_s`, while it does not
    change; a log that is followed every `log_poll_s`. A look is current for `fresh_s`. After the end of a run a log is
    complete when nothing has arrived for `settle_s`, or the run ended `settled_after_s` ago. After `queue_patience_s`
    in the queue the compute target is asked for the reason, and again after `queue_fresh_s`. `sleep` is the pause for
    which a log settles.
    """

    first_poll_s: float = 1.0
    longest_poll_s: float = 5.0
    log_poll_s: float = 1.0
    fresh_s: float = 0.5
    settle_s: float = 1.0
    settled_after_s: float = 120.0
    queue_patience_s: float = 15.0
    queue_fresh_s: float = 30.0
    sleep: Callable[[float], None] = time.sleep

    def poll_s(self, quiet_s: float) -> float:
        """The pause between two looks at a run that has not changed for `quiet_s`."""
        return min(self.longest_poll_s, max(self.first_poll_s, _PART_OF_QUIET * quiet_s))


DEFAULT_TIMING = AzureMLTiming()


@dataclass(frozen=True)
class Look:
    """The document of a run's details, and when it was requested (monotonic seconds)."""

    document: Mapping[str, Any]
    at_s: float

    @property
    def status(self) -> str:
        return str(self.document.get("status") or "")

    @property
    def log_files(self) -> Mapping[str, str]:
        """Signed addresses by path below the run."""
        files = self.document.get("logFiles") or {}
        return {str(path): url for path, url in files.items() if isinstance(url, str) and "://" in url}

    @property
    def is_archived(self) -> bool:
        return bool(self.document.get("hidden"))

    def differs_from(self, other: Look) -> bool:
        """In its state, or in which logs there are."""
        return (self.status, self.log_files.keys()) != (other.status, other.log_files.keys())


class Looks:
    """The last look at each run. Thread-safe for different runs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._last: dict[str, Look] = {}

    def at(self, run: str, *, max_age_s: float = 0.0) -> Look | None:
        """A look that is not older; None if Azure ML has no such run. Raises NotFound (the workspace)."""
        known = self._last.get(run)
        if known is not None and time.monotonic() - known.at_s < max_age_s:
            return known
        answer = self._connection.history("GET", f"/runs/{run}/details", accept=(404,))
        if answer.status == 404:
            if is_workspace_missing(answer):  # says nothing about the run
                raise self._connection.error(answer, "GET", self._connection.address.path)
            self._last.pop(run, None)
            return None
        look = self._last[run] = Look(answer.document, time.monotonic())
        return look

    def last(self, run: str) -> Look | None:
        return self._last.get(run)

    def take(self, run: str, status: str) -> None:
        """A status from another answer counts as a look."""
        self._last[run] = Look({"status": status}, time.monotonic())

    def forget(self, run: str) -> None:
        """After a change to the run."""
        self._last.pop(run, None)


class Services:
    """Addresses of the services beside a job: ssh, VS Code, Jupyter, TensorBoard. Asks for the job's document while a
    service has no address yet. Not thread-safe."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[str, tuple[float, dict[str, str], bool]] = {}

    def of(self, record: RunRecord, *, is_foreign: bool = False) -> dict[str, str]:
        """By name; empty unless the run is running. Whether a foreign run has any is not known before."""
        if record.status != RunState.RUNNING or not (is_foreign or record.spec.node.get("services")):
            return {}
        asked_at, addresses, is_complete = self._known.get(record.run, (float("-inf"), {}, False))
        if not is_complete and time.monotonic() - asked_at > _SERVICES_AGAIN_S:
            answer = self._connection.workspace("GET", f"/jobs/{record.run}", _JOB_VERSION, accept=(403, 404))
            document = answer.document if answer.status < 400 else {}
            found = (document.get("properties") or {}).get("services") or {}
            wanted = {name: as_object(one) for name, one in found.items() if name not in _BUILT_IN_SERVICES}
            addresses = {name: address for name, one in wanted.items() if (address := _service_address(one))}
            is_complete = len(addresses) == len(wanted) and (bool(wanted) or is_foreign)
            self._known[record.run] = time.monotonic(), addresses, is_complete
        return addresses


def _service_address(service: Mapping[str, Any]) -> str:
    """With the service's error, if it has one."""
    endpoint = str(service.get("endpoint") or as_object(service.get("properties")).get("ProxyEndpoint") or "")
    error = str(service.get("errorMessage") or "")
    return f"{endpoint} ({error})".strip() if error else endpoint.replace("<nodeIndex>", "0")


def children_of(connection: Connection, run: str) -> list[dict[str, str]]:
    """Runs that the service has made for a run, oldest first. Raises ServiceUnavailable."""
    path = f"/runs/{run}/children"
    answer = connection.history("GET", path, accept=(404,))
    if answer.status == 404:
        return []
    documents = connection.listed(answer)
    while token := str(answer.document.get("continuationToken") or ""):
        answer = connection.history("GET", path, query={"$continuationtoken": token})
        documents += connection.listed(answer)
    documents.sort(key=lambda one: str(one.get("createdUtc") or ""))
    return [
        {
            "run": str(one.get("runId") or ""),
            "name": str(one.get("displayName") or one.get("runId") or ""),
            "status": str(one.get("status") or ""),
        }
        for one in documents
    ]


def counted_states(children: Sequence[Mapping[str, str]]) -> str:
    """`2 Running, 1 Queued`."""
    return ", ".join(f"{number} {status}" for status, number in Counter(one["status"] for one in children).items())


_AT_A_TIME = 8
_PAGE = 900
"""Azure ML refuses 1000 and more."""
_MOST_PAGES = 1000
_UNKNOWN = (400, 404)
"""Statuses of an answer about a run, or a metric, that the server does not have."""


class Tracked:
    """Satisfies `TrackedMetrics`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def values(self, run: str) -> dict[str, float]:
        answer = self._connection.tracking("/runs/get", {"run_id": run}, accept=_UNKNOWN)
        data = as_object(as_object(answer.document.get("run")).get("data"))
        found: dict[str, float] = {}
        for one in objects(data.get("metrics"))[:MOST_NAMES]:
            name, value = one.get("key"), number_of(one.get("value"))
            if isinstance(name, str) and name.isprintable() and value is not None:
                found[name] = value
        return found

    def series(self, run: str, names: Sequence[str]) -> dict[str, Sequence[Point]]:
        self._connection.facts  # noqa: B018  # once, before threads ask for them
        found = in_parallel(lambda name: self._series(run, name), names, _AT_A_TIME)
        return dict(zip(names, found, strict=True))

    def _series(self, run: str, name: str) -> Sequence[Point]:
        query = {"run_id": run, "metric_key": name, "max_results": str(_PAGE)}
        points = SeriesBuilder()
        for _ in range(_MOST_PAGES):
            page = self._connection.tracking("/metrics/get-history", query, accept=_UNKNOWN).document
            for one in objects(page.get("metrics")):
                step, value = number_of(one.get("step", 0)), number_of(one.get("value"))
                if step is not None and value is not None:
                    points.add(step, value)
            token = page.get("next_page_token")
            if not token:
                break
            query["page_token"] = str(token)
        return points.points()
