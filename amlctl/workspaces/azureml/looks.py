"""What run history tells of a run: its state, its error, and the addresses of its logs, in one call."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

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
