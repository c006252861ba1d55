"""`runs`: list, show, cancel, compare, open, delete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from amlctl.core.events import Warned
from amlctl.core.message import Command
from amlctl.core.metrics import Metrics, as_json
from amlctl.core.run import RunRecord
from amlctl.core.run_id import find_run, newest_first
from amlctl.core.run_state import RunState, is_final
from amlctl.errors import (
    AmlctlError,
    Conflict,
    IntegrityError,
    LoginError,
    NotFound,
    RightsError,
    ServiceUnavailable,
    UsageError,
)
from amlctl.operations.context import Context, restored_records
from amlctl.operations.metrics import metrics_of
from amlctl.runs.records import local_records, read_order
from amlctl.workspaces.contract import Workspace

_MAX_VALUES = 100_000
"""Of a config that is shown."""


_COMPARED = ("mode", "compute", "distribution", "processes", "instances", "workspace", "experiment")


def resolve_run(workspace: Workspace, reference: str) -> str:
    """The id that RUN names: an id, a unique prefix, `@last`, `@2`. Raises NotFound, UsageError."""
    if not reference.startswith("@"):
        try:
            return workspace.read(reference).run  # one record, where listing reads them all
        except NotFound:
            pass
        except IntegrityError:
            return reference  # it exists; the command that uses it says what is wrong with it
    return find_run(reference, [record.run for record in workspace.list_runs()])


def list_runs(context: Context) -> list[RunRecord]:
    """Newest first: those of the workspace in use, and those of other workspaces that were seen from this machine.

    Of the others only unfinished ones are read again. A workspace that does not answer is a warning, and its records
    are those seen last; raises its error if nothing was seen from this machine.
    """
    in_use, project, sink = context.settings.workspace().name, context.project, context.sink
    if len(context.settings.workspaces) > 1:
        restored_records(context)  # a single workspace does so by itself
    found: list[RunRecord] = []
    unreachable: dict[str, AmlctlError] = {}
    try:
        found = context.workspace.list_runs()
    except (LoginError, RightsError, ServiceUnavailable) as error:
        unreachable[in_use] = error
    damaged: list[str] = []
    seen = local_records(project.state_dir, but={record.run for record in found}, on_damaged=damaged.append)
    for run in damaged:
        _warn_of_damaged(run, context)
    if unreachable and not seen:
        raise unreachable[in_use]
    for record in seen:
        if record.spec.workspace == in_use and in_use not in unreachable:
            continue  # it was deleted
        if not record.is_final and record.spec.workspace not in unreachable:
            try:
                record = context.in_workspace(record.spec.workspace).workspace.read(record.run)
            except NotFound:
                continue
            except AmlctlError as error:
                unreachable[record.spec.workspace] = error
        found.append(record)
    for workspace, reason in unreachable.items():
        sink(Warned(f"workspace {workspace}: {reason.message}; its runs are shown as last seen"))
    return newest_first(found, read_order(project.state_dir))


def _warn_of_damaged(run: str, context: Context) -> None:
    """About a run whose record on this machine is damaged; the workspace in use reports its own."""
    try:
        context.workspace.read(run)
    except IntegrityError:
        return
    except AmlctlError:
        in_use = context.settings.workspace().name
        context.sink(
            Warned(f"the record of run {run} is damaged, and workspace {in_use} does not have it; skipping it")
        )


@dataclass(frozen=True)
class RunView:
    """A run's record, by dotted key what its config says, and its metrics."""

    record: RunRecord
    config: Mapping[str, Any]
    metrics: Metrics

    def to_json(self) -> dict[str, Any]:
        last = {name: as_json(value) for name, value in self.metrics.last.items()}
        return {**self.record.to_json(), "metrics": {**last, **self.metrics.document}}


def show(context: Context, run: str) -> RunView:
    """Metrics of a run in Azure ML are read once it has finished: an active one costs one request to its service, and
    no store.

    If the store cannot be read, metrics are missing, with a warning. Raises NotFound.
    """
    record = context.workspace.read(run)
    is_read = record.is_final or context.settings.workspace().runs_here
    metrics = metrics_of(context, record) if is_read else Metrics()
    return RunView(record, _flat("", _config_values(record)), metrics)


@dataclass(frozen=True)
class CancelResult:
    """`was_ended`: it had already finished."""

    run: str
    status: str
    was_ended: bool

    def to_json(self) -> dict[str, Any]:
        return {"run": self.run, "status": self.status, "was_ended": self.was_ended}


def cancel(workspace: Workspace, run: str) -> CancelResult:
    """Ask the run to stop; its outputs so far are kept. Raises NotFound."""
    record = workspace.read(run)
    if record.is_final:
        return CancelResult(run, record.status, was_ended=True)
    workspace.cancel(run)
    return CancelResult(run, workspace.read(run).status, was_ended=False)


def delete(runs: Mapping[str, Workspace]) -> dict[str, list[str]]:
    """Delete finished runs in workspace and store; what was fetched to `outputs/` stays.

    Returns, by run, what else stays, and why. Raises Conflict (one is active; nothing is deleted then), NotFound.
    """
    for run, workspace in runs.items():
        with suppress(
            IntegrityError
        ):  # a damaged record can be deleted; the workspace makes sure that the run has finished
            record = workspace.read(run)
            # Whether a run that does not respond still exists is for the workspace to find out.
            if not record.is_final and record.status != RunState.NOT_RESPONDING:
                raise Conflict(f"run {run} is {record.status}", hint=Command("runs", "cancel", run))
    return {run: list(workspace.delete(run)) for run, workspace in runs.items()}


def open_run(context: Context, run: str) -> str:
    """What to open for a run: its page in Studio, else the folder of its fetched outputs. Raises NotFound."""
    record = context.workspace.read(run)
    if record.studio_url:
        return record.studio_url
    folder = context.project.outputs_dir / run
    if not folder.is_dir():
        raise NotFound(f"the outputs of run {run} are not here yet", hint=Command("fetch", run))
    return str(folder)


def duration_s(record: RunRecord) -> float | None:
    """Seconds from Running to the end; None if one of them is missing."""
    begin = record.times.get(RunState.RUNNING)
    end = next((time for state, time in record.times.items() if is_final(state)), None)
    if begin is None or end is None:
        return None
    return round((datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds(), 3)


@dataclass(frozen=True)
class Row:
    """One field that differs; `values` are in the order of the runs, None if a run has none."""

    field: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Comparison:
    runs: tuple[str, ...]
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "runs": list(self.runs),
            "differences": [{"field": row.field, "values": list(row.values)} for row in self.rows],
        }


class RunAt(NamedTuple):
    """A run, and the context whose workspace has it."""

    run: str
    context: Context


def compare(runs: Sequence[RunAt]) -> Comparison:
    """What differs between runs: what went in (config, code, data, environment …), then what came out.

    Raises UsageError (fewer than two), NotFound.
    """
    found = {one.run: one for one in runs}
    if len(found) < 2:
        raise UsageError("a comparison needs two different runs", hint=Command("runs", "compare", "@2", "@last"))
    unique = tuple(found)
    records = [one.context.workspace.read(run) for run, one in found.items()]
    columns = [
        {**_inputs(record), **_results(record, metrics_of(one.context, record))}
        for record, one in zip(records, found.values(), strict=True)
    ]
    fields = dict.fromkeys(field for column in columns for field in column)
    rows = [Row(field, tuple(column.get(field) for column in columns)) for field in fields]
    return Comparison(unique, tuple(row for row in rows if any(value != row.values[0] for value in row.values)))


def _inputs(record: RunRecord) -> dict[str, Any]:
    spec = record.spec
    return {
        "script": spec.script,
        "config": spec.config,
        **_flat("config.", _config_values(record)),
        "arguments": " ".join(spec.arguments),
        "command": spec.command,
        **{f"input {name}": next(iter(one.values()), None) for name, one in spec.inputs.items()},
        "code": spec.code,
        **{f"dataset {name}": snapshot for name, snapshot in spec.datasets.items()},
        "environment": spec.environment,
        **{f"variable {name}": value for name, value in spec.variables.items()},
        **{name: getattr(spec, name) for name in _COMPARED},
        "git commit": (spec.git or {}).get("commit"),
        **{f"tag {name}": value for name, value in spec.tags.items()},
    }


def _results(record: RunRecord, metrics: Metrics) -> dict[str, Any]:
    return {
        "status": record.status,
        "exit code": record.exit_code,
        "seconds": duration_s(record),
        **{f"metrics.{name}": as_json(value) for name, value in metrics.last.items()},
        **{f"published {name}": snapshot for name, snapshot in record.published.items()},
    }


def _config_values(record: RunRecord) -> Any:
    if record.spec.config is None:
        return None
    from amlctl.config.script_config import config_values  # reads YAML, which a list of runs need not

    return config_values(record.spec)


def _flat(prefix: str, document: Any) -> dict[str, Any]:
    """Leaves of nested tables by dotted key; a list is one value."""
    if not isinstance(document, Mapping):
        return {} if document is None else {prefix.rstrip("."): document}
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            flat.update(_flat(f"{prefix}{key}.", value))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
