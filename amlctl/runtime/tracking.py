"""Metrics and parameters of a run, sent to the tracking server that the node names (MLflow's REST API).

Azure ML names one on its nodes, with a token, and shows there what is logged. The script needs no package for it: what
it leaves in `metrics.json` of its outputs are its metrics, and the values of its config its parameters.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

from amlctl.core.run import RunRecord
from amlctl.core.secret_names import masked

_LIMIT_S = 20.0
_AT_ONCE = 100
_MOST = 1000
"""Values of each kind."""
_MAX_BYTES = 16 << 20
_LONGEST = 500
"""Characters of a parameter."""


def send_metrics(record: RunRecord, outputs: Path, variables: Mapping[str, str], log: Callable[[str], None]) -> None:
    """Where the node names a server. What goes wrong is one line in the log: the run has ended by itself."""
    address, run = variables.get("MLFLOW_TRACKING_URI", ""), variables.get("MLFLOW_RUN_ID", "")
    address = address.partition("?")[0].replace("azureml://", "https://", 1).rstrip("/")
    if not run or not address.startswith("https://"):
        return
    try:
        metrics = [
            {"key": key, "value": value, "timestamp": int(time.time() * 1000), "step": 0}
            for key, value in _numbers(_metrics(outputs / "metrics.json"))
        ][:_MOST]
        parameters = [{"key": key, "value": masked(value)[:_LONGEST]} for key, value in _parameters(record)][:_MOST]
        url = f"{address}/api/2.0/mlflow/runs/log-batch"
        token = variables.get("MLFLOW_TRACKING_TOKEN", "")
        for kind, values in (("params", parameters), ("metrics", metrics)):
            for start in range(0, len(values), _AT_ONCE):
                _post(url, token, {"run_id": run, kind: values[start : start + _AT_ONCE]})
    except (OSError, ValueError, RecursionError) as error:
        log(f"the run's metrics are not in Studio: {error}")


def _metrics(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return json.loads(file.read(_MAX_BYTES))
    except FileNotFoundError:
        return {}


def _parameters(record: RunRecord) -> Iterator[tuple[str, str]]:
    """Without secrets, which the record does not hold."""
    content: Any = record.spec.config_content
    if isinstance(content, Mapping):
        for key, value in _leaves("", content):
            yield key, value if isinstance(value, str) else json.dumps(value)
    if record.spec.arguments:
        yield "arguments", " ".join(record.spec.arguments)


def _numbers(document: Any) -> Iterator[tuple[str, float]]:
    for key, value in _leaves("", document):
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            yield key, float(value)


def _leaves(prefix: str, document: Any) -> Iterator[tuple[str, Any]]:
    """By dotted key; of a list the last number, as of a metric that was noted for each epoch."""
    if isinstance(document, Mapping):
        for key, value in document.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else str(key), value)
    elif isinstance(document, Sequence) and not isinstance(document, str) and document:
        if isinstance(document[-1], (int, float)):
            yield prefix, document[-1]
    elif prefix:
        yield prefix, document


def _post(url: str, token: str, document: Mapping[str, Any]) -> None:
    from urllib.request import Request, urlopen  # here, since most nodes name no server

    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    request = Request(url, json.dumps(document).encode(), headers, method="POST")
    with urlopen(request, timeout=_LIMIT_S) as answer:
        answer.read()
