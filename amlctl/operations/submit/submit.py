"""`submit`: from what was typed to a run that has finished and whose outputs are here.

read sources, merge, check    check.py: all that can be wrong and is cheap to find out; nothing is sent before
sync, copy or download data   the spec gets the snapshot of each dataset
send the code                 the spec gets its id
record, start                 the id is printed before anything can fail after it; then the store keeps what it needs
follow, fetch                 the log until the end, then the outputs
"""

from __future__ import annotations

import secrets as randomness
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

from amlctl.core.events import Note, Warned
from amlctl.core.job import PIPELINE, log_names
from amlctl.core.message import Command, Message
from amlctl.core.phases import Phase, begun
from amlctl.core.run import RunRecord, RunSpec
from amlctl.core.run_id import new_run_id
from amlctl.core.run_state import RunState
from amlctl.core.secret_names import mask_command_line, masked
from amlctl.core.store_keys import code_index_key
from amlctl.errors import (
    AmlctlError,
    IntegrityError,
    UsageError,
)
from amlctl.localfs.code_rules import job_code_rules
from amlctl.localfs.git import read_git_state
from amlctl.localfs.ignore import IgnoreRules, ignore_files_above
from amlctl.localfs.machine import host_name, user_name, utc_now
from amlctl.operations.compute import checked_target, prepare_target
from amlctl.operations.context import Context
from amlctl.operations.fetch import fetch
from amlctl.operations.logs import FollowOptions, follow, run_failure
from amlctl.operations.submit.check import CheckedRun, check
from amlctl.operations.submit.inputs import bring
from amlctl.operations.submit.job_file import JobFile, find_job_file, handed_over
from amlctl.operations.submit.needed import Equals, planned_equal
from amlctl.operations.submit.result import SubmitPlan, SubmitResult
from amlctl.operations.submit.sources import SubmitRequest
from amlctl.operations.submit.start import PreparedRun, announce, start, start_sweep
from amlctl.operations.sync.dataset_state import local_state
from amlctl.operations.sync.merge import was_removed
from amlctl.operations.sync.sync import SyncOptions, dry_run, sync
from amlctl.operations.waiting import wait_until_completed
from amlctl.operations.watch import SweepReader
from amlctl.parallel import ended_by_interrupt
from amlctl.runs.code import CodeFiles, collect_code, send_code
from amlctl.runs.copies import copy_code, copy_snapshot
from amlctl.runs.records import local_records
from amlctl.runs.tree import read_index
from amlctl.snapshots.gc_mark import GcWatch
from amlctl.snapshots.heads import find_head


def submit(
    context: Context,
    request: SubmitRequest,
    *,
    is_detached: bool = False,
    fetch_outputs: bool = True,
    following: FollowOptions,
    clock: Callable[[], datetime] = utc_now,
) -> SubmitResult:
    """Make the run and, unless detached, follow it to its end and fetch its outputs, however it ended.

    Raises what `plan` raises before there is a run; afterwards only what keeps it from being started or read.
    """
    started = time.monotonic()
    wait_until_completed(context, request.after)  # before anything is read: they may produce its data
    file = find_job_file(request, context.project)
    if file is not None and request.sweep is not None:
        raise UsageError("--sweep is for scripts", hint="in a job file, use type: sweep")
    equal = None
    if file is not None and file.kind != "command":
        run = _hand_over(context, request, file, clock())
    elif request.sweep is not None:
        prepared = prepare(context, request, file, clock)
        _warn_of_secrets(context, prepared)
        run = start_sweep(context, prepared, request.sweep, clock, is_needed_only=request.is_needed_only)
    else:
        prepared = prepare(context, request, file, clock)
        equal = Equals(context).find(prepared.record.spec) if request.is_needed_only else None
        run = prepared.record.run if equal is None else equal.run
        if equal is None:
            _warn_of_secrets(context, prepared)
            start(context, prepared, clock)
        else:
            context.sink(Note(f"run {run} did the same and Completed; not running it again"))
    if is_detached:
        result = SubmitResult(context.workspace.read(run))
    else:
        result = _finish(context, run, following, fetch_outputs=fetch_outputs)
    return replace(result, seconds=round(time.monotonic() - started, 3), is_reused=equal is not None)


def _hand_over(context: Context, request: SubmitRequest, file: JobFile, now: datetime) -> str:
    """Returns the run's id. Raises UsageError, SettingsError, Unconfirmed."""
    service = context.workspace.service
    if service is None:
        raise file.only_remote()
    spec = handed_over(context, file, request)
    service.check_experiment(spec.experiment)
    record = _record(context, request, spec, now)
    announce(context, record.run)
    service.hand_over(record, file.path)
    return record.run


def plan(context: Context, request: SubmitRequest) -> SubmitPlan:
    """`--dry-run`: the same checks, and what would be sent. Sends and writes nothing.

    Raises UsageError, SettingsError, NotFound, Conflict, RightsError, CheckFailed.
    """
    checked = check(context, request, find_job_file(request, context.project))
    spec = checked.spec
    with checked.merged.at("compute"):
        checked_target(context, spec.compute, spec.instances)
    datasets: dict[str, Mapping[str, Any]] = {
        dataset: dry_run(context, dataset, SyncOptions.of(context.settings.sync)).to_json()
        for dataset in checked.to_sync
    }
    datasets.update({dataset: {"snapshot": snapshot} for dataset, snapshot in spec.datasets.items()})
    datasets.update({dataset: {"from": masked(address.url)} for dataset, address in checked.downloads.items()})
    if spec.code:
        files = read_index(checked.origin, code_index_key(spec.code)) or ()
        sizes = [file.size_bytes for file in files if file.path.startswith(f"{PIPELINE}/")]
    else:
        code = _collect_code(context, checked, is_reading=True)
        spec, sizes = replace(spec, code=code.id), [entry.size_bytes for entry in code.own]
    return SubmitPlan(
        spec,
        checked.merged.sources,
        datasets,
        code_files=len(sizes),
        code_bytes=sum(sizes),
        environment=context.workspace.environment(checked.environment),
        combinations=[one.values for one in request.sweep.combinations] if request.sweep is not None else [],
        equal_run=planned_equal(context, spec, datasets) if request.is_needed_only and not request.sweep else "",
    )


def prepare(
    context: Context, request: SubmitRequest, file: JobFile | None, clock: Callable[[], datetime]
) -> PreparedRun:
    """Check, send datasets and code, and describe the run; it is not started. Raises as `plan` does."""
    checked = check(context, request, file)
    context.workspace.expect_start()
    with checked.merged.at("compute"):
        prepare_target(context, checked.spec.compute, checked.spec.instances)  # before the first byte is sent
    watch = GcWatch(context.store, context.sink)
    watch.note()
    phases = [begun(Phase.SYNC, clock())] if checked.to_sync or checked.downloads else []
    spec = _with_data(context, checked)
    phases.append(begun(Phase.CODE, clock()))
    files = _collect_code(context, checked) if not spec.code else None
    if files is not None:
        spec = replace(spec, code=_send_code(context, files), git=read_git_state(context.project.root, context.sink))
    record = _record(context, request, _with_produced(context, spec), clock(), phases, checked.secrets)

    def send_again() -> None:
        if files is not None:
            send_code(context.store, files, sink=context.sink)

    return PreparedRun(record, checked.secrets, watch, None if files is None else send_again, checked.configs)


def _with_data(context: Context, checked: CheckedRun) -> RunSpec:
    """The spec with a snapshot of each dataset, which the store has now."""
    spec, sink = checked.spec, context.sink
    if spec.from_run is not None and checked.origin.url != context.store.url:
        spec = _copied(context, checked)
    for dataset, address in checked.downloads.items():
        bring(context, dataset, address)
    snapshots, manifests = dict(spec.datasets), dict(spec.manifests)
    for dataset in (*checked.to_sync, *checked.downloads):
        done = sync(context, dataset, SyncOptions.of(context.settings.sync))
        snapshots[dataset], manifests[dataset] = done.snapshot, done.manifest_key
        if done.added or done.modified or done.deleted:
            changes = f"{done.added:,} added, {done.modified:,} modified, {done.deleted:,} deleted"
            sink(Note(f"{dataset}: synced, {changes}; latest snapshot: {done.snapshot[:12]}"))
    return replace(spec, datasets=snapshots, manifests=manifests)


def _copied(context: Context, checked: CheckedRun) -> RunSpec:
    """Code and snapshots of a run of another workspace, copied as far as the store lacks them."""
    spec, store, origin = checked.spec, context.store, checked.origin
    context.sink(Note(f"code and data of run {spec.from_run}: copying what {store.url} lacks from {origin.url}"))
    scratch = context.project.ensure_state_dir()
    with ended_by_interrupt(origin, store):
        if spec.code:
            copy_code(origin, store, spec.code)
        keys = {name: copy_snapshot(origin, store, key, scratch=scratch) for name, key in spec.manifests.items()}
    return replace(spec, manifests=keys)


def _with_produced(context: Context, spec: RunSpec) -> RunSpec:
    """With what a run that produces datasets needs: the manifests they start from, and how they are sent."""
    settings = context.settings.sync
    heads: dict[str, str | None] = {}
    for dataset in spec.produces:
        if dataset in spec.manifests and spec.from_run is None:
            heads[dataset] = spec.manifests[dataset]  # what the run reads of it
        else:
            head = find_head(context.store, dataset)
            if head is not None and head.removed_at:
                raise was_removed(dataset, head)
            heads[dataset] = None if head is None or head.is_fence else head.manifest_key
    how = {
        "layout": settings.layout,
        "pack_below": settings.pack_below,
        "pack_size": settings.pack_size,
        "ignore": list(settings.ignore),
        "ignore_files": ignore_files_above(context.project, spec.produces),
    }
    return replace(spec, heads=heads, sync=how)


def _record(
    context: Context,
    request: SubmitRequest,
    spec: RunSpec,
    now: datetime,
    phases: Sequence[dict[str, str]] = (),
    secrets: Mapping[str, str] = MappingProxyType({}),
) -> RunRecord:
    run = new_run_id(spec.name, now, randomness.token_hex(2))
    tags = request.spec.get("tags") or {}
    hidden = [*secrets.values(), *(value for name, value in tags.items() if spec.tags.get(name) != value)]
    record = RunRecord(
        run,
        spec,
        command_line=mask_command_line(request.command_line, hidden),
        user=user_name(),
        host=host_name(),
        created_at=now.isoformat(timespec="milliseconds"),
        outputs=f"{context.project.outputs_dir.name}/{run}",
        phases=list(phases),
    )
    record.reached(RunState.NOT_STARTED, now)
    try:
        RunRecord.from_bytes(record.to_bytes(), run)
    except IntegrityError as error:  # the next command would not be able to read it
        what = error.message.rpartition("damaged: ")[2]
        raise UsageError(f"the run cannot be recorded: {what}", hint="change that option or config") from error
    return record


def _collect_code(context: Context, checked: CheckedRun, *, is_reading: bool = False) -> CodeFiles:
    project, sink, source = context.project, context.sink, checked.code_source
    if source != project.pipeline_dir:
        is_folder = source is not None and source.is_dir()
        rules = job_code_rules(project, source) if source and is_folder else IgnoreRules(project.root, ())
        return collect_code(source, rules, context=checked.image_context, sink=sink)
    with local_state(context, "amlctl submit", is_reading=is_reading) as state:
        return collect_code(source, checked.rules(), context=checked.image_context, cache=state.cache, sink=sink)


def _send_code(context: Context, code: CodeFiles) -> str:
    def earlier() -> str | None:
        """That of the newest run there, as far as this machine has seen it: most files are still the same."""
        specs = (record.spec for record in local_records(context.project.state_dir))
        return next((spec.code for spec in specs if spec.workspace == context.workspace.name and spec.code), None)

    with ended_by_interrupt(context.store):
        send_code(context.store, code, earlier=earlier, sink=context.sink)
    return code.id


def _warn_of_secrets(context: Context, prepared: PreparedRun) -> None:
    if prepared.secrets and context.workspace.shows_variables:
        names = ", ".join(sorted(prepared.secrets))
        context.sink(Warned(f"{names}: visible to everyone who can read the workspace's jobs"))


def _finish(context: Context, run: str, following: FollowOptions, *, fetch_outputs: bool) -> SubmitResult:
    """Follow the run, unless the user detaches, and fetch its outputs."""
    sink = context.sink
    try:
        record = follow(context, run, following)
    except AmlctlError:
        sink(
            Note(
                Message(f"run {run} was started and may still be active; reconnect with: ", Command("logs", run, "-f"))
            )
        )
        raise
    if not record.is_final:
        return SubmitResult(record)
    if record.status == RunState.COMPLETED and record.error is not None:
        sink(Warned(f"{record.error.get('message', '')}; {record.error.get('hint', '')}".removesuffix("; ")))
    shown_log = next(iter(log_names(record.spec.process_group.world_size)))
    failure = run_failure(context, record, hint=Command("logs", run), shown_log=shown_log)
    result = SubmitResult(
        record, run_error=failure, results=SweepReader(context).view(record) if record.spec.sweep else None
    )
    if not fetch_outputs:
        return result
    try:
        return replace(result, fetched=fetch(context, run))
    except AmlctlError as error:
        # How the run ended matters more, and may be the reason.
        if failure is None or error.message not in failure.message:
            message = f"failed to fetch the outputs: {error.message}; try again with: "
            sink(Warned(Message(message, Command("fetch", run))))
        return replace(result, fetch_error=error)
