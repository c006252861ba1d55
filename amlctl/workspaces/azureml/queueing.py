"""Why a run is Queued, as far as its compute target tells."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState
from amlctl.workspaces.azureml.compute_document import errors_of
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.azureml.job import SERVERLESS, moment
from amlctl.workspaces.azureml.timing import AzureMLTiming

_VERSION = "2023-08-01-preview"


class Queueing:
    """Asks the target where a run waits for long, and not each time. Not thread-safe."""

    def __init__(self, connection: Connection, timing: AzureMLTiming) -> None:
        self._connection = connection
        self._timing = timing
        self._known: dict[str, tuple[float, str]] = {}

    def reason(self, record: RunRecord, now: datetime) -> str:
        """In words; empty where nothing is known, or not yet worth a request. Raises what the connection raises."""
        since = moment(record.times.get(RunState.QUEUED.value))
        if record.status != RunState.QUEUED.value or record.compute == SERVERLESS or since is None:
            return ""
        if (now - since).total_seconds() < self._timing.queue_patience_s:
            return ""
        asked_at, known = self._known.get(record.compute, (float("-inf"), ""))
        if time.monotonic() - asked_at > self._timing.queue_fresh_s:
            path = f"/computes/{record.compute}"
            answer = self._connection.workspace("GET", path, _VERSION, accept=(403, 404))
            known = reason_of(answer.document, record) if answer.status < 400 else ""
            self._known[record.compute] = time.monotonic(), known
        return known


def reason_of(document: Any, record: RunRecord) -> str:
    """Pure: from the target's own document."""
    if not isinstance(document, Mapping):
        return ""
    errors = errors_of(document)
    if errors:
        return f"{record.compute} gets no nodes: {'; '.join(errors)}"
    inner = (document.get("properties") or {}).get("properties") or {}
    counts, scale = inner.get("nodeStateCounts") or {}, inner.get("scaleSettings") or {}
    busy, most = int(counts.get("runningNodeCount") or 0), int(scale.get("maxNodeCount") or 0)
    if record.instances > most > 0:
        return f"{record.compute} has {most} nodes at most, and the run wants {record.instances}"
    if busy and busy + record.instances > most > 0:
        return f"{busy} of the {most} nodes of {record.compute} are busy with other runs"
    if counts.get("preparingNodeCount") or inner.get("allocationState") == "Resizing":
        return f"{record.compute} starts nodes"
    return ""
