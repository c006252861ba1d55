"""MLflow on a node: where a script's calls of it go, and what Studio is told about the run at its end."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

from amlctl.core.metrics import MLFLOW_FOLDER, Metrics
from amlctl.core.run import RunRecord
from amlctl.core.secret_names import masked
from amlctl.errors import AmlctlError

TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
_LIMIT_S = 20.0
_AT_ONCE = {"metrics": 200, "params": 100}
"""In one request: Azure ML takes 250 values of a metric, MLflow 100 parameters."""
_MOST = {"metrics": 1000, "params": 200}
"""Names; of parameters Azure ML takes no more."""
_MOST_POINTS = 10_000
"""Of all metrics together, so that a run's end does not wait for hundreds of requests."""
_LONGEST = 500
"""Characters of a parameter."""
_LONGEST_REFUSAL = 10_000
_WAITS_S = (2.0, 8.0)
"""Before a request is sent again that came too early, or that the server failed at."""
_BUSY = (408, 429, 500, 502, 503, 504)
_REASON = re.compile(r'"message"\s*:\s*"([^"]+)', re.IGNORECASE)
_REFUSED = re.compile(r"[^/\w.\- :]")
"""In names of MLflow."""


def tracking_variables(outputs: Path) -> dict[str, str]:
    """For a node that names no server: a folder among the run's outputs. MLflow 3.7 and later, whose default is a
    database, writes a folder only where the second variable allows it."""
    return {TRACKING_VARIABLE: (outputs / MLFLOW_FOLDER).as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true"}


def send_metrics(
    record: RunRecord, read: Callable[[], Metrics], variables: Mapping[str, str], log: Callable[[str], None]
) -> None:
    """What `read` finds of the run, to the server that the node names, if it does. A failure is one line in the log:
    the run itself has ended. What the server refuses, such as more names than it takes, keeps nothing else back."""
    address, run = variables.get(TRACKING_VARIABLE, ""), variables.get("MLFLOW_RUN_ID", "")
    address = address.partition("?")[0].replace("azureml://", "https://", 1).rstrip("/")
    if not run or not address.startswith("https://"):
        return
    refused = ""
    try:
        metrics = list(_points(read()))
        parameters = [{"key": key, "value": masked(value)[:_LONGEST]} for key, value in _parameters(record)]
        url = f"{address}/api/2.0/mlflow/runs/log-batch"
        token = variables.get("MLFLOW_TRACKING_TOKEN", "")
        for kind, values in (("metrics", metrics), ("params", parameters[: _MOST["params"]])):
            for start in range(0, len(values), _AT_ONCE[kind]):
                why = _post(url, token, {"run_id": run, kind: values[start : start + _AT_ONCE[kind]]})
                refused = refused or why
        if refused:
            log(f"Studio does not have all metrics and parameters of the run: {refused}")
    except (AmlctlError, OSError, ValueError, RecursionError) as error:
        log(f"cannot send the run's metrics to Studio: {error}")


def _points(metrics: Metrics) -> Iterator[dict[str, Any]]:
    """A metric with a series has its steps, of a long one some; any other has its last value alone."""
    now = int(time.time() * 1000)
    names = list(metrics.last)[: _MOST["metrics"]]
    for name in names:
        points, last = metrics.series.get(name) or (), metrics.last[name]
        stride = max(1, math.ceil(len(points) * len(names) / _MOST_POINTS))
        some = [(int(point.step), point.value) for point in [*points[:-1][::stride], *points[-1:]]] or [(0, last)]
        for step, value in some:
            if math.isfinite(value):
                yield {"key": _REFUSED.sub("_", name), "value": float(value), "timestamp": now, "step": step}


def _parameters(record: RunRecord) -> Iterator[tuple[str, str]]:
    """Without secrets, which are not in the record."""
    if record.spec.arguments:
        yield "arguments", " ".join(record.spec.arguments)
    content: Any = record.spec.config_content
    if isinstance(content, Mapping):
        for key, value in _leaves("", content):
            yield key, value if isinstance(value, str) else json.dumps(value)


def _leaves(prefix: str, document: Any) -> Iterator[tuple[str, Any]]:
    """By dotted key; of a list the last number, e.g. of a metric with a value for each epoch."""
    if isinstance(document, Mapping):
        for key, value in document.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else str(key), value)
    elif isinstance(document, Sequence) and not isinstance(document, str) and document:
        if isinstance(document[-1], (int, float)):
            yield prefix, document[-1]
    elif prefix:
        yield prefix, document


def _post(url: str, token: str, document: Mapping[str, Any]) -> str:
    """Why the server refuses it; empty otherwise. Raises OSError."""
    from urllib.error import HTTPError  # here, since most nodes name no server
    from urllib.request import Request, urlopen

    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    request = Request(url, json.dumps(document).encode(), headers, method="POST")
    for wait_s in (*_WAITS_S, None):
        try:
            with urlopen(request, timeout=_LIMIT_S) as answer:
                answer.read()
            break
        except HTTPError as error:
            if error.code not in _BUSY:
                found = _REASON.search(error.read(_LONGEST_REFUSAL).decode("utf-8", "replace"))
                return f"{error}" + (f": {found[1]}" if found else "")
            if wait_s is None:
                raise
            time.sleep(wait_s)
    return ""
