"""What run history tells of a run: its state, its error, and the addresses of its logs, in one call."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState
from amlctl.workspaces.azureml.connection import Connection, is_of_the_workspace


@dataclass(frozen=True)
class Look:
    """The document of a run's details, and when it was asked for (monotonic seconds)."""

    document: Mapping[str, Any]
    at_s: float

    @property
    def status(self) -> str:
        return str(self.document.get("status") or "")

    @property
    def log_files(self) -> Mapping[str, str]:
        """Path below the run to an address that whoever has it may read."""
        return self.document.get("logFiles") or {}

    @property
    def is_archived(self) -> bool:
        return bool(self.document.get("hidden"))


class Looks:
    """The last look at each run. Not thread-safe."""

    def __init__(self, connection: Connection, clock: Callable[[], float] = time.monotonic) -> None:
        self._connection = connection
        self._clock = clock
        self._last: dict[str, Look] = {}

    def at(self, run: str, *, max_age_s: float = 0.0) -> Look | None:
        """A look that is not older; None where Azure ML has no such run. Raises NotFound (the workspace)."""
        known = self._last.get(run)
        if known is not None and self._clock() - known.at_s < max_age_s:
            return known
        answer = self._connection.history("GET", f"/runs/{run}/details", accept=(404,))
        if answer.status == 404:
            if is_of_the_workspace(answer):  # which says nothing about the run
                raise self._connection.error(answer, "GET", self._connection.place.path)
            self._last.pop(run, None)
            return None
        look = self._last[run] = Look(answer.document or {}, self._clock())
        return look

    def last(self, run: str) -> Look | None:
        return self._last.get(run)

    def take(self, run: str, status: str) -> None:
        """What the answer to something that was done tells counts as a look."""
        self._last[run] = Look({"status": status}, self._clock())

    def forget(self, run: str) -> None:
        """What was done to the run changes it."""
        self._last.pop(run, None)


@dataclass(frozen=True)
class AzureMLTiming:
    """The state is asked for every `first_poll_s` at first, then ever more seldom, up to `longest_poll_s`, as long as
    nothing happens; the log that is followed every `log_poll_s`. What was learned counts as the present for `fresh_s`.
    After the end of a run a log is complete when nothing has come for `settle_s`, or the run has ended
    `settled_after_s` ago. Who is Queued for `queue_patience_s` asks the compute target why, and again after
    `queue_fresh_s`.
    """

    first_poll_s: float = 1.0
    longest_poll_s: float = 5.0
    log_poll_s: float = 1.0
    fresh_s: float = 0.5
    settle_s: float = 1.0
    settled_after_s: float = 120.0
    queue_patience_s: float = 15.0
    queue_fresh_s: float = 30.0

    def poll_s(self, quiet_s: float) -> float:
        """The pause between two looks at a run of which nothing was heard for `quiet_s`."""
        return min(self.longest_poll_s, max(self.first_poll_s, _PART_OF_QUIET * quiet_s))


_PART_OF_QUIET = 0.1


DEFAULT_TIMING = AzureMLTiming()


_VERSION = "2024-01-01-preview"
_AGAIN_S = 10.0
_OWN = ("Studio", "Tracking")
"""Every job has these."""


class Services:
    """Asks for the job's document while a service has no address yet. Not thread-safe."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[str, tuple[float, dict[str, str], bool]] = {}

    def of(self, record: RunRecord, *, is_foreign: bool = False) -> dict[str, str]:
        """By name; empty unless the run works. Of a foreign run it is not known whether it has any."""
        if record.status != RunState.RUNNING or not (is_foreign or record.spec.node.get("services")):
            return {}
        asked_at, addresses, is_whole = self._known.get(record.run, (float("-inf"), {}, False))
        if not is_whole and time.monotonic() - asked_at > _AGAIN_S:
            answer = self._connection.workspace("GET", f"/jobs/{record.run}", _VERSION, accept=(403, 404))
            document = answer.document if answer.status < 400 and isinstance(answer.document, Mapping) else {}
            found = (document.get("properties") or {}).get("services") or {}
            asked_for = {name: one or {} for name, one in found.items() if name not in _OWN}
            addresses = {name: address for name, one in asked_for.items() if (address := _address(one))}
            is_whole = len(addresses) == len(asked_for) and (bool(asked_for) or is_foreign)
            self._known[record.run] = time.monotonic(), addresses, is_whole
        return addresses


def _address(service: Mapping[str, Any]) -> str:
    """With what is wrong, where the service tells that."""
    endpoint = str(service.get("endpoint") or (service.get("properties") or {}).get("ProxyEndpoint") or "")
    error = str(service.get("errorMessage") or "")
    return f"{endpoint} ({error})".strip() if error else endpoint.replace("<nodeIndex>", "0")


def children_of(connection: Connection, run: str) -> list[dict[str, str]]:
    """The runs that the service has made for a run, oldest first. Raises ServiceUnavailable."""
    path = f"/runs/{run}/children"
    page: Mapping[str, Any] = connection.history("GET", path, accept=(404,)).document or {}
    documents: list[Mapping[str, Any]] = page.get("value") or []
    while token := str(page.get("continuationToken") or ""):
        page = connection.history("GET", path, query={"$continuationtoken": token}).document or {}
        documents += page.get("value") or []
    documents.sort(key=lambda one: str(one.get("createdUtc") or ""))
    return [
        {
            "run": str(one.get("runId") or ""),
            "name": str(one.get("displayName") or one.get("runId") or ""),
            "status": str(one.get("status") or ""),
        }
        for one in documents
    ]


def in_words(children: Sequence[Mapping[str, str]]) -> str:
    """How many of them are in which state."""
    return ", ".join(f"{number} {status}" for status, number in Counter(one["status"] for one in children).items())
