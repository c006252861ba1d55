"""Sweeps as Azure ML's own sweep jobs, which keep their limit when no machine of the user is on.

The only parameter is the number of a combination: the record of each, with its config, is in the store before. Azure ML
names the runs, in an order of its own, so each saves its record under the name that it finds itself with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from amlctl.core.metrics import goal_of
from amlctl.core.run import RunRecord
from amlctl.core.run_id import parent_of
from amlctl.core.run_state import RunState
from amlctl.core.store_keys import trial_key
from amlctl.core.sweep import ending, label
from amlctl.parallel import for_each
from amlctl.stores.contract import Store
from amlctl.workspaces.azureml.job import JobParts, job_document

_OF_TRIAL = ("command", "code", "environment", "environment_variables", "distribution", "resources")
_ANY_METRIC = "loss"
"""A sweep job must name one; it decides nothing in a grid."""
_NOT_BEGUN = ("NotStarted", "Starting", "Provisioning", "Preparing", "Queued")


def save_trials(store: Store, parent: RunRecord, trials: Sequence[RunRecord]) -> None:
    """Raises what the store raises."""

    def save(trial: RunRecord) -> None:
        store.put(trial_key(parent.run, parent_of(trial.run)[1]), trial.to_bytes(), replace=True)

    for_each(save, trials, store.concurrency)


def sweep_document(
    parent: RunRecord, trials: Sequence[RunRecord], parts: JobParts, secrets: Mapping[str, str]
) -> dict[str, Any]:
    """As job YAML, which the SDK loads."""
    document = job_document(parent, parts, secrets)
    trial = {name: document.pop(name) for name in _OF_TRIAL if name in document}
    goal = goal_of(parent.spec.sweep["metric"] or _ANY_METRIC)
    limits: dict[str, Any] = {"max_total_trials": len(trials)}
    if parent.spec.sweep["parallel"] is not None:
        limits["max_concurrent_trials"] = min(parent.spec.sweep["parallel"], len(trials))
    if parent.spec.timeout_s is not None:
        limits["trial_timeout"] = math.ceil(parent.spec.timeout_s)
    return {
        **document,
        "type": "sweep",
        "trial": trial,
        "sampling_algorithm": "grid",
        "search_space": {"trial": {"type": "choice", "values": [parent_of(one.run)[1] for one in trials]}},
        "objective": {"goal": "minimize" if goal.is_lower_better else "maximize", "primary_metric": goal.name},
        "limits": limits,
    }


def named_children(
    parent: RunRecord, listed: Sequence[dict[str, str]], record_of: Callable[[str], RunRecord | None]
) -> list[dict[str, str]]:
    """Those that were there before the sweep, then the service's, with their values as names."""
    found = [one for one in parent.children if parent_of(one["run"])[0] != parent.run]
    for one in sorted(listed, key=lambda one: parent_of(one["run"])[1]):
        record = None if one["status"] in _NOT_BEGUN else record_of(one["run"])
        name = one["name"] if record is None else label(record.spec.combination)
        found.append({**one, "name": name or one["name"]})
    return found


def ended_sweep(record: RunRecord, now: datetime) -> RunRecord:
    """By its runs, unless it was canceled or Azure ML has not made them all."""
    wanted, made = record.spec.sweep["runs"], len(record.children)
    found = ending(record.children)
    if record.status == RunState.CANCELED or found is None:
        return record
    state, error = found
    if made < wanted:
        why = (record.error or {}).get("message", "")
        message = f"only {made} of {wanted} runs were started" + (f": {why}" if why else "")
        state, error = RunState.FAILED, {"kind": "sweep", "message": message}
    at = record.times.get(record.status, now.isoformat(timespec="milliseconds"))
    times = {**{name: time for name, time in record.times.items() if name != record.status}, state.value: at}
    return replace(record, status=state.value, error=error, exit_code=None, times=times)
