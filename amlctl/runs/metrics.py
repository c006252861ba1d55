"""Metrics of a run, from its outputs in the store: `metrics.json`, `metrics.jsonl` and MLflow's folder `mlruns/`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Optional

from amlctl.core.metrics import (
    DOCUMENT,
    LINES,
    MAX_BYTES,
    MLFLOW_FOLDER,
    MOST_NAMES,
    Metrics,
    TrackedRun,
    from_document,
    from_lines,
    from_mlflow,
    from_tracked,
    mlflow_start,
    too_large,
)
from amlctl.core.store_keys import outputs_index_key, outputs_prefix
from amlctl.errors import NotFound
from amlctl.parallel import in_parallel
from amlctl.runs.tree import TreeFile, read_index, stored_key
from amlctl.stores.contract import Store

MOST_INDEX_BYTES = 24 << 20
"""About 200,000 outputs."""
_MOST_TRACKED = 200
"""Runs of an MLflow folder that are read, the latest first: a search over parameters may make thousands."""


def read_metrics(store: Store, run: str) -> Metrics:
    """What `metrics.json` says wins over `metrics.jsonl`, and that over MLflow.

    Works for an active run, too: the store has what was saved last. Raises IntegrityError (a damaged list of outputs)
    and what the store raises.
    """
    return metrics_among(store, run, listed_outputs(store, run))


def metrics_among(store: Store, run: str, files: Optional[Mapping[str, TreeFile]]) -> Metrics:
    """Of `listed_outputs`. Raises what the store raises."""
    found = Metrics()
    if files is None:
        files = {name: TreeFile(name, 0, False, "") for name in (DOCUMENT, LINES)}
        found.warnings.append(f"the run has very many outputs: only {DOCUMENT} and {LINES} are read")
    for name, parse in ((DOCUMENT, from_document), (LINES, from_lines)):
        file = files.get(name)
        if file is None:
            continue
        if file.size_bytes > MAX_BYTES:
            found.warnings.append(too_large(name, file.size_bytes))
            continue
        (data,) = _read_all(store, run, [file])
        if data is not None:
            found.add(parse(data) if len(data) <= MAX_BYTES else Metrics(warnings=[too_large(name, len(data))]))
    tracked = [file for path, file in files.items() if path.startswith(f"{MLFLOW_FOLDER}/")]
    found.add(_of_mlflow(store, run, tracked))
    return found


def listed_outputs(store: Store, run: str) -> Optional[dict[str, TreeFile]]:
    """The outputs by path; None where reading their list would take seconds. Raises as `read_metrics`."""
    index_key = outputs_index_key(run)
    entry = store.info(index_key)
    if entry is not None and entry.size_bytes > MOST_INDEX_BYTES:
        return None
    return {file.path: file for file in read_index(store, index_key) or ()} if entry is not None else {}


def _read_all(store: Store, run: str, files: Sequence[TreeFile]) -> list[Optional[bytes]]:
    """None for one that the run has removed since its outputs were listed."""

    def read(file: TreeFile) -> Optional[bytes]:
        try:
            return store.get(stored_key(outputs_prefix(run), file), length=MAX_BYTES + 1)
        except NotFound:
            return None

    return list(in_parallel(read, files, store.concurrency))


def _of_mlflow(store: Store, owner: str, files: Sequence[TreeFile]) -> Metrics:
    """Files are `<experiment>/<run>/meta.yaml`, `<experiment>/<run>/metrics/<name>`, `…/tags/<name>`."""
    metas: dict[str, TreeFile] = {}
    metric_files: dict[str, list[tuple[str, TreeFile]]] = {}
    nested = set()
    for file in files:
        parts = file.path.split("/", 4)
        run = "/".join(parts[1:3])
        if len(parts) == 4 and parts[3] == "meta.yaml":
            metas[run] = file
        elif len(parts) == 5 and parts[3] == "metrics" and not file.is_folder:
            metric_files.setdefault(run, []).append((parts[4], file))
        elif len(parts) == 5 and parts[3:] == ["tags", "mlflow.parentRunId"]:
            nested.add(run)
    runs = sorted(metas.keys() & metric_files.keys(), key=lambda run: -metas[run].mtime_ns)
    read, warnings = runs[:_MOST_TRACKED], list[str]()
    if len(runs) > len(read):
        warnings.append(f"only the last {_MOST_TRACKED} of {len(runs)} MLflow runs are used")
    found = []
    for run, meta in zip(read, _read_all(store, owner, [metas[run] for run in read])):
        started = None if meta is None else mlflow_start(meta)
        if started is None:
            continue
        wanted = []
        for name, file in metric_files[run][:MOST_NAMES]:
            if file.size_bytes > MAX_BYTES:
                warnings.append(too_large(file.path, file.size_bytes))
            else:
                wanted.append((name, file))
        histories = {}
        for (name, _), data in zip(wanted, _read_all(store, owner, [file for _, file in wanted])):
            history = None if data is None else from_mlflow(data)
            if history is not None:
                histories[name] = history
            elif data:
                warnings.append(f"{MLFLOW_FOLDER}/{run}/metrics/{name} is not used: it has no lines of MLflow")
        found.append(TrackedRun(run in nested, started, histories))
    metrics = from_tracked(found)
    metrics.warnings = [*warnings, *metrics.warnings]
    return metrics
