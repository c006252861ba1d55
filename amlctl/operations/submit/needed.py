"""`--needed`: a run that would do the same and Completed is used instead."""

from __future__ import annotations

import json

from amlctl.core.run import RunRecord, RunSpec
from amlctl.core.run_state import RunState
from amlctl.operations.context import Context
from amlctl.snapshots.heads import read_head

_DECIDING = (
    *("script", "arguments", "config_content", "config_file", "command", "inputs", "named_outputs", "code", "datasets"),
    *("produces", "environment", "variables", "distribution", "processes", "instances", "workspace"),
)
"""Fields that decide what a run does. Values of secrets are in no record: they count as equal."""


def find_equal(context: Context, spec: RunSpec) -> RunRecord | None:
    """The newest one, if what it has produced is still the latest. Raises what the workspace and the store raise."""
    wanted = _deciding(spec)
    for record in context.workspace.list_runs():
        if record.status == RunState.COMPLETED and _deciding(record.spec) == wanted and _is_latest(context, record):
            return record
    return None


def _deciding(spec: RunSpec) -> str:
    return json.dumps({name: getattr(spec, name) for name in _DECIDING}, sort_keys=True, default=list)


def _is_latest(context: Context, record: RunRecord) -> bool:
    for dataset in record.spec.produces:
        head = read_head(context.store, dataset)
        if head is None or head.snapshot != record.published.get(dataset):
            return False
    return True
