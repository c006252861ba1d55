"""The workspace's MLflow server: a run for each job, by MLflow's REST API."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from .faults import Faults
from .job import Job
from .jobs import Jobs
from .replies import Handler, Reply, Request

_MOST_VALUES = 250
"""Of a metric in one request."""
_MOST_PARAMETERS = 200
"""Of a run."""
_LONGEST_PAGE = 999


class Tracking:
    def __init__(self, faults: Faults, jobs: Jobs) -> None:
        self._faults = faults
        self._jobs = jobs

    def routes(self) -> list[tuple[str, str, Handler]]:
        base = "/mlflow/v1.0{ws}/api/2.0/mlflow"
        return [
            ("POST", f"{base}/runs/log-batch", self._log_batch),
            ("GET", f"{base}/runs/get", self._get),
            ("GET", f"{base}/metrics/get-history", self._history),
        ]

    def _job(self, name: str) -> Job | None:
        return next((job for job in self._jobs.all() if job.name.lower() == name.lower()), None)

    def _log_batch(self, request: Request) -> Reply:
        job = self._job(str(request.body.get("run_id", "")))
        if job is None:
            return _unknown(str(request.body.get("run_id", "")))
        metrics = request.body.get("metrics") or []
        parameters = {one["key"]: one["value"] for one in request.body.get("params") or []}
        with job.lock:
            values = max(Counter(one["key"] for one in metrics).values(), default=0)
            if values > _MOST_VALUES:
                return _over_limit("MetricV2Dto.Value/Count", _MOST_VALUES, values)
            named = len({**job.parameters, **parameters})
            if named > _MOST_PARAMETERS:
                return _over_limit("Parameters", _MOST_PARAMETERS, named)
            for one in metrics:
                job.tracked.setdefault(one["key"], []).append({"step": 0, **one})
            job.parameters.update(parameters)
        return Reply(200, {})

    def _get(self, request: Request) -> Reply:
        job = self._job(request.query.get("run_id", ""))
        if job is None:
            return _unknown(request.query.get("run_id", ""))
        with job.lock:
            metrics = [
                {"key": name, "value": _value(value), "timestamp": "1", "step": "0"}
                for name, value in job.metrics.items()
            ]
            info = {"run_id": job.name, "run_uuid": job.name, "experiment_id": job.uuid, "status": "FINISHED"}
            return Reply(200, {"run": {"info": info, "data": {"metrics": metrics, "params": [], "tags": []}}})

    def _history(self, request: Request) -> Reply:
        job, name = self._job(request.query.get("run_id", "")), request.query.get("metric_key", "")
        if job is None:
            return _unknown(request.query.get("run_id", ""))
        most = int(request.query.get("max_results") or "0")
        if most > _LONGEST_PAGE:
            why = f"MaxResults = {most} is invalid: MaxResults must be less than 1000."
            return _refused("UserError", why, "BAD_REQUEST")
        start = int(request.query.get("page_token") or "0")
        with job.lock:
            points = job.tracked.get(name, [])
            # As protobuf's JSON has them: 64-bit whole numbers, and what JSON lacks, are text.
            some = [
                {
                    "key": name,
                    "value": _value(one["value"]),
                    "timestamp": str(one["timestamp"]),
                    "step": str(one["step"]),
                }
                for one in points[start : start + self._faults.page_size]
            ]
            end = start + len(some)
            more = {"next_page_token": str(end)} if end < len(points) else {}
        return Reply(200, {"metrics": some, **more})


def _value(value: Any) -> Any:
    number = float(value)
    return number if math.isfinite(number) else "NaN" if math.isnan(number) else f"{'-' if number < 0 else ''}Infinity"


def _over_limit(field: str, limit: int, size: int) -> Reply:
    why = f"A field of the entity is over the size limit. FieldName={field}, Limit={limit}, Size={size}."
    return _refused("ValidationError", why, "INVALID_PARAMETER_VALUE")


def _refused(code: str, message: str, error_code: str) -> Reply:
    """The shape is the service's, and not that of MLflow."""
    return Reply(
        400,
        {"Error": {"Code": code, "Severity": None, "Message": message}, "statusCode": 400, "error_code": error_code},
    )


def _unknown(run: str) -> Reply:
    return Reply(404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"Run with id={run} not found"})
