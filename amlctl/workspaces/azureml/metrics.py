"""Metrics that scripts have sent to the workspace's MLflow server, by MLflow's documented REST API."""

from __future__ import annotations

from collections.abc import Sequence

from amlctl.core.metrics import MOST_NAMES, Point, SeriesBuilder, number_of
from amlctl.parallel import in_parallel
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.azureml.documents import as_object, objects

_AT_A_TIME = 8
_PAGE = 5000
_MOST_PAGES = 200
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
