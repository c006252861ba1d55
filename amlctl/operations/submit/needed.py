"""`--needed`: a run that did the same and Completed is used instead of a new one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from amlctl.core.run import RunRecord, RunSpec
from amlctl.core.run_state import RunState
from amlctl.operations.context import Context
from amlctl.snapshots.heads import read_head

_DECIDING = (
    *("script", "arguments", "config_content", "config_file", "command", "inputs", "named_outputs", "code", "datasets"),
    *("produces", "environment", "variables", "distribution", "processes", "instances", "workspace"),
)
"""Fields that decide what a run does. Values of secrets are in no record: they count as equal."""


class Equals:
    """Of runs that Completed; they are listed once."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def find(self, spec: RunSpec) -> RunRecord | None:
        """The newest one, if what it has produced is still the latest. Raises what the workspace and the store
        raise."""
        return next((record for record in self._by_spec.get(_deciding(spec), ()) if self._is_latest(record)), None)

    @cached_property
    def _by_spec(self) -> dict[str, list[RunRecord]]:
        found: dict[str, list[RunRecord]] = {}
        for record in self._context.workspace.list_runs():
            if record.status == RunState.COMPLETED and record.spec.job_type is None:
                found.setdefault(_deciding(record.spec), []).append(record)
        return found

    def _is_latest(self, record: RunRecord) -> bool:
        for dataset in record.spec.produces:
            head = read_head(self._context.store, dataset)
            if head is None or head.snapshot != record.published.get(dataset):
                return False
        return True


def _deciding(spec: RunSpec) -> str:
    return json.dumps({name: getattr(spec, name) for name in _DECIDING}, sort_keys=True, default=list)


def planned_equal(context: Context, spec: RunSpec, datasets: Mapping[str, Mapping[str, Any]]) -> str:
    """The run that a submit would use; empty without one. `datasets` has the document of each one's sync: where that
    would send something, the run would read another snapshot."""
    if any(one.get(change) for one in datasets.values() for change in ("added", "modified", "deleted", "from")):
        return ""
    equal = Equals(context).find(replace(spec, datasets={name: one["snapshot"] for name, one in datasets.items()}))
    return "" if equal is None else equal.run
