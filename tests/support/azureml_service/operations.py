"""Long-running operations: in progress until a moment, then with the outcome decided at the start."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Any

from .faults import Faults
from .place import PROVIDER, Place
from .replies import Handler, Reply, Request, not_found


@dataclass(frozen=True)
class Operation:
    """`error` is the reason of one that fails."""

    id: str
    done_at_s: float
    error: dict[str, Any] | None

    @property
    def is_done(self) -> bool:
        return time.monotonic() >= self.done_at_s


class Operations:
    def __init__(self, place: Place, faults: Faults) -> None:
        self._place = place
        self._faults = faults
        self._known: dict[str, Operation] = {}

    def start(self, error: dict[str, Any] | None = None) -> Operation:
        made = Operation(str(uuid.uuid4()), time.monotonic() + self._faults.operation_s, error)
        self._known[made.id] = made
        return made

    def headers(self, operation: Operation, request: Request) -> dict[str, str]:
        address = f"{self._place.endpoint}{self._place.location_id}/computeOperationsStatus/{operation.id}"
        return {
            "Azure-AsyncOperation": f"{address}?api-version={request.api_version}&service=new",
            **self.retry_after(),
        }

    def retry_after(self) -> dict[str, str]:
        return {"Retry-After": "1"} if self._faults.sends_retry_after else {}

    def routes(self) -> list[tuple[str, str, Handler]]:
        location = f"/subscriptions/[^/]+/providers/{PROVIDER}/locations/[^/]+"
        return [("GET", f"{location}/computeOperationsStatus/(?P<id>[^/]+)", self._get)]

    def _get(self, request: Request) -> Reply:
        operation = self._known.get(request.names["id"])
        if operation is None:
            raise not_found(f"Could not find operation {request.names['id']}.")
        if not operation.is_done:
            return Reply(200, {"status": "InProgress"}, self.retry_after())
        if operation.error is not None:
            return Reply(200, {"status": "Failed", "error": operation.error})
        return Reply(200, {"status": "Succeeded", "percentComplete": 100.0})
