"""`runs`: list, show, cancel, open, delete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from amlctl.core.events import Warned
from amlctl.core.message import Command, count, did_you_mean
from amlctl.core.metrics import Goal, Metrics, as_json, goal_of
from amlctl.core.run import RunRecord
from amlctl.core.run_id import newest_first, parent_of
from amlctl.core.run_state import RunState
from amlctl.core.store_keys import outputs_index_key
from amlctl.errors import (
    AmlctlError,
    Conflict,
    IntegrityError,
    LoginError,
    NotFound,
    RightsError,
    ServiceUnavailable,
)
from amlctl.operations.context import Context, Document
from amlctl.operations.find_run import restored_records
from amlctl.runs.known import read_order
from amlctl.runs.records import local_records, seen_records, shared_records
from amlctl.workspaces.contract import Workspace

if TYPE_CHECKING:
    from amlctl.operations.watch import SweepView


_SHOWN = 10
"""Names of metrics in a hint."""


class RunAt(NamedTuple):
    """A run, and the context whose workspace has it."""

    run: str
    context: Context


def list_runs(context: Context) -> list[RunRecord]:
    """Newest first: those of the workspace in use, those that others have made with its store, and those of other
    workspaces that were seen from this machine.

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
        made_by = context.settings.workspaces.get(record.spec.workspace)
        may_change = record.may_change if made_by is not None and made_by.runs_here else not record.is_final
        if may_change and record.spec.workspace not in unreachable:
            try:
                record = context.in_workspace(record.spec.workspace).workspace.read(record.run)
            except NotFound:
                continue
            except AmlctlError as error:
                unreachable[record.spec.workspace] = error
        found.append(record)
    if context.settings.workspace().runs_here and in_use not in unreachable:
        found += _of_others(context, {*damaged, *(record.run for record in (*found, *seen))})
    for workspace, reason in unreachable.items():
        sink(Warned(f"workspace {workspace}: {reason.message}; its runs are shown as last seen"))
    return newest_first(found, read_order(project.state_dir))


def _of_others(context: Context, but: Set[str]) -> list[RunRecord]:
    """Runs of other machines in the store of a workspace that runs here; Azure ML lists everybody's by itself. Where
    the store does not answer, those that were seen last and had finished."""
    state_dir = context.project.state_dir
    try:
        return shared_records(context.store, state_dir, but=but)
    except (LoginError, RightsError, ServiceUnavailable) as error:
        context.sink(Warned(f"{error.message}; the runs of others are shown as last seen"))
        return seen_records(state_dir, but=but)


def key_metric(records: Sequence[RunRecord], wanted: str | None) -> Goal | None:
    """The metric to show of these runs: `wanted`, else the first one of the newest run that has any."""
    if wanted is not None:
        return goal_of(wanted)
    return next((goal_of(name) for record in records for name in record.metrics), None)


def missing_metric(records: Sequence[RunRecord], goal: Goal) -> NotFound | None:
    """Why it cannot be shown: no run has it."""
    known = {name for record in records for name in record.metrics}
    if not records or goal.name in known:
        return None
    hint = did_you_mean(goal.name, known) or f"available: {', '.join(sorted(known)[:_SHOWN]) or 'none'}"
    return NotFound(f"no run has the metric {goal.name!r}", hint=hint)


def best_first(records: Sequence[RunRecord], goal: Goal) -> list[RunRecord]:
    """Runs without the metric come last. Raises NotFound if no run has it."""
    if missing := missing_metric(records, goal):
        raise missing
    return sorted(records, key=lambda record: goal.rank(record.metrics))


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
    """A run's record, by dotted key what its config says, its metrics, and those of the runs of a sweep, each of which
    has a config of its own."""

    record: RunRecord
    config: Mapping[str, Any]
    metrics: Metrics
    results: SweepView | None = None

    def to_json(self) -> dict[str, Any]:
        last = {name: as_json(value) for name, value in self.metrics.last.items()}
        results = {} if self.results is None else {"results": self.results.to_json()}
        return {**self.record.to_json(), "metrics": {**last, **self.metrics.document}, **results}


def show(context: Context, run: str) -> RunView:
    """Metrics of a run in Azure ML are read once it has finished: an active one costs one request to its service, and
    no store.

    If the store cannot be read, metrics are missing, with a warning. Raises NotFound.
    """
    from amlctl.operations.metrics import metrics_of  # here, since a list of runs reads no outputs

    record = context.workspace.read(run)
    is_read = record.is_final or context.settings.workspace().runs_here
    metrics = metrics_of(context, record) if is_read else Metrics()
    results = None
    if record.spec.sweep:
        from amlctl.operations.watch import SweepReader  # it imports this module

        results = SweepReader(context).view(record, is_live=True)
    config = {} if record.spec.sweep else flattened("", config_values_of(record))
    return RunView(record, config, metrics, results)


def children_left(workspace: Workspace, children: Iterable[Mapping[str, str]]) -> Iterator[str]:
    """Those of the runs of a sweep that were not deleted; each may be, also by the sweep that has made it."""
    for run in (one["run"] for one in children):
        try:
            workspace.read(run)
        except NotFound:
            continue
        except AmlctlError:
            pass  # it exists; who uses it says what is wrong with it
        yield run


def warn_of_deleted(context: Context, sweep: RunRecord, left: Sequence[str]) -> None:
    """`left` are those of its runs that were not deleted."""
    if deleted := [one["run"] for one in sweep.children if one["run"] not in left]:
        context.sink(Warned(f"{count(len(deleted), 'run')} of {sweep.run} deleted: {', '.join(deleted)}"))


def each_of_sweep(runs: Sequence[RunAt]) -> list[RunAt]:
    """With its runs instead of a sweep; those that were deleted are a warning. Raises NotFound."""
    found: dict[str, RunAt] = {}
    for run, context in runs:
        record = context.workspace.read(run)
        if not record.spec.sweep:
            found[run] = RunAt(run, context)
            continue
        left = list(children_left(context.workspace, record.children))
        if record.children and not left:
            raise NotFound(f"all runs of {run} were deleted", hint=Command("runs", "delete", run))
        warn_of_deleted(context, record, left)
        found.update((one, RunAt(one, context)) for one in left)
    return list(found.values())


@dataclass(frozen=True)
class CancelResult(Document):
    """`was_ended`: it had already finished."""

    run: str
    status: str
    was_ended: bool


def cancel(workspace: Workspace, run: str) -> CancelResult:
    """Ask the run to stop; its outputs so far are kept. Raises NotFound."""
    record = workspace.read(run)
    if record.is_final:
        return CancelResult(run, record.status, was_ended=True)
    workspace.cancel(run)
    return CancelResult(run, workspace.read(run).status, was_ended=False)


def with_children(runs: Sequence[RunAt]) -> list[RunAt]:
    """Before the parent of a sweep the runs that it has made; one that was used again belongs to an earlier sweep."""
    found: dict[str, RunAt] = {}
    for run, context in runs:
        with suppress(IntegrityError):
            record = context.workspace.read(run)
            for child in (one["run"] for one in record.children if record.spec.sweep):
                if parent_of(child)[0] == run:
                    with suppress(NotFound):
                        found.setdefault(context.workspace.read(child).run, RunAt(child, context))
        found[run] = RunAt(run, context)
    return list(found.values())


def delete(runs: Sequence[RunAt]) -> dict[str, list[str]]:
    """Delete finished runs in workspace and store; what was fetched to `outputs/` stays.

    Returns, by run, what else stays, and why. Raises Conflict (one is active; nothing is deleted then), NotFound.
    """
    require_finished(runs)
    return {run: list(context.workspace.delete(run)) for run, context in runs}


def require_finished(runs: Sequence[RunAt]) -> None:
    """Raises Conflict where one is active, or belongs to a sweep that is; NotFound."""
    for run, context in runs:
        with suppress(IntegrityError):  # of a damaged record the workspace makes sure that the run has finished
            record = context.workspace.read(run)
            _refuse_active(record, f"run {run} of {record.made_by or 'another machine'}")
            if record.spec.parent:
                with suppress(NotFound):
                    parent = context.workspace.read(record.spec.parent)
                    _refuse_active(parent, f"run {run} belongs to {parent.run}, which")


def _refuse_active(record: RunRecord, what: str) -> None:
    """Whether a run that does not respond still exists is for the workspace to find out."""
    if not record.is_final and record.status != RunState.NOT_RESPONDING:
        raise Conflict(f"{what} is {record.status}", hint=Command("cancel", record.run))


def open_run(context: Context, run: str) -> str:
    """What to open for a run: its page in Studio, else the folder of its fetched outputs. Raises NotFound."""
    record = context.workspace.read(run)
    if record.studio_url:
        return record.studio_url
    folder = context.project.outputs_dir / ("" if record.spec.sweep else run)
    if folder.is_dir():
        return str(folder)
    if record.spec.sweep or _may_be_fetched(context, record):
        raise NotFound(f"the outputs of run {run} are not here yet", hint=Command("fetch", run))
    if record.is_final:
        raise NotFound(f"run {run} has no outputs", hint=Command("logs", run))
    raise NotFound(f"run {run} is {record.status} and has saved no outputs yet", hint=Command("logs", run, "-f"))


def _may_be_fetched(context: Context, record: RunRecord) -> bool:
    """Also where a fetch would say what is wrong with them."""
    from amlctl.runs.tree import read_index

    try:
        saved = [
            read_index(context.store, outputs_index_key(record.run, node)) for node in range(record.spec.instances)
        ]
    except IntegrityError:
        return True
    is_waiting_here = record.is_final and record.may_change  # perhaps
    return any(saved) or is_waiting_here or (None in saved and record.status == RunState.COMPLETED)


def config_values_of(record: RunRecord) -> Any:
    """What its config says, if it is JSON or YAML."""
    if record.spec.config is None:
        return None
    from amlctl.config.script_config import config_values  # reads YAML, which a list of runs need not

    return config_values(record.spec)


def flattened(prefix: str, document: Any) -> dict[str, Any]:
    """Leaves of nested tables by dotted key; a list is one value."""
    if not isinstance(document, Mapping):
        return {} if document is None else {prefix.rstrip("."): document}
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            flat.update(flattened(f"{prefix}{key}.", value))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
