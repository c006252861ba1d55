"""Sweeps and pipelines: a parent, and the runs that Azure ML makes for it.

A sweep is a sweep job of Azure ML, which keeps its limit when no machine of the user is on. Its only parameter is the
number of a combination: the record of each, with its config, is in the store before. Azure ML names the runs, in an
order of its own, so each saves its record under the name that it finds itself with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from amlctl.core.metrics import goal_of
from amlctl.core.run import RunRecord
from amlctl.core.run_id import parent_of
from amlctl.core.run_state import RunState, is_final
from amlctl.core.store_keys import trial_key
from amlctl.core.sweep import ending, label
from amlctl.parallel import for_each
from amlctl.stores.contract import Store
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.azureml.job import JobParts, is_of_amlctl, job_document
from amlctl.workspaces.azureml.limits import MOST_AT_ONCE
from amlctl.workspaces.azureml.looks import children_of, counted_states
from amlctl.workspaces.azureml.records import Records

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
        limits["max_concurrent_trials"] = min(parent.spec.sweep["parallel"], len(trials), MOST_AT_ONCE)
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


def with_children(connection: Connection, records: Records, record: RunRecord, status: str) -> RunRecord:
    """`status` is that of the look. Unchanged for a run without any. Raises ServiceUnavailable."""
    if record.spec.job_type is None:
        return record
    children = children_of(connection, record.run)
    if record.spec.sweep:
        return replace(record, children=_named_children(record, children, records))
    return replace(record, children=children, waits_for="" if is_final(status) else counted_states(children))


def _named_children(parent: RunRecord, listed: Sequence[dict[str, str]], records: Records) -> list[dict[str, str]]:
    """Those that were there before the sweep, then the service's, with their values as names."""
    found = [one for one in parent.children if parent_of(one["run"])[0] != parent.run]
    for one in sorted(listed, key=lambda one: parent_of(one["run"])[1]):
        record = None if one["status"] in _NOT_BEGUN else _trial(records, one["run"])
        name = one["name"] if record is None else label(record.spec.combination)
        found.append({**one, "name": name or one["name"]})
    return found


def _trial(records: Records, run: str) -> RunRecord | None:
    """The record of a run of a sweep; None before its node has written it."""
    record = records.load(run)
    if record is None and (record := records.stored(run)) is not None:
        records.save(record)
    return record


def is_own(records: Records, document: Mapping[str, Any]) -> bool:
    """Whether an amlctl has made the run of run history, or Azure ML for a sweep of amlctl."""
    parent = str(document.get("parentRunId") or "")
    if is_of_amlctl(document) or not parent:
        return is_of_amlctl(document)
    record = records.load(parent) or records.stored(parent)
    return record is not None and bool(record.spec.sweep)
