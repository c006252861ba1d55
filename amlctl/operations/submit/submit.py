"""`submit`: from what was typed to a run that has ended and whose outputs are here.

In order: cheap checks, datasets, code, the run's id, the workspace, its log, its outputs. Nothing is sent
before everything that can be checked has been; the id is told before anything that can fail after it was made.
"""

from __future__ import annotations

import getpass
import platform
import secrets as randomness
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from amlctl.config.job_file import is_job_file
from amlctl.core import run as run_module
from amlctl.core.events import Note, RunCreated, Warned
from amlctl.core.message import Command, Message
from amlctl.core.run import RunRecord
from amlctl.core.run_id import new_run_id
from amlctl.core.run_state import RunState
from amlctl.core.secret_names import mask_command_line, masked
from amlctl.core.settings import Settings
from amlctl.core.wording import below_data_blobs
from amlctl.errors import AmlctlError, IntegrityError, RightsError, Unconfirmed, UsageError
from amlctl.localfs.code_rules import code_rules, job_code_rules
from amlctl.localfs.git import read_git_state
from amlctl.localfs.ignore import IgnoreRules, ignore_files_above
from amlctl.localfs.machine import utc_now
from amlctl.localfs.project import Project
from amlctl.operations.compute import checked_target, prepare_target
from amlctl.operations.context import Context
from amlctl.operations.fetch import fetch
from amlctl.operations.logs import InterruptChoice as InterruptChoice
from amlctl.operations.logs import follow
from amlctl.operations.store_apart import check_apart
from amlctl.operations.submit.assets import with_present_assets
from amlctl.operations.submit.handing_over import hand_over
from amlctl.operations.submit.inputs import bring
from amlctl.operations.submit.job_request import read_job_file, told_at
from amlctl.operations.submit.repeat import FindRun, copy_from, run_to_repeat
from amlctl.operations.submit.request import SubmitRequest
from amlctl.operations.submit.result import SubmitPlan, SubmitResult
from amlctl.operations.submit.run_kept import ensure_run_kept
from amlctl.operations.submit.run_spec import Pinned, RunSpec, resolve
from amlctl.operations.submit.script_check import check_syntax
from amlctl.operations.sync.dataset_state import local_state
from amlctl.operations.sync.sync import SyncOptions, dry_run, sync
from amlctl.parallel import ended_by_interrupt
from amlctl.runs.code import CodeFiles, collect_code, send_code
from amlctl.runs.records import local_records, note_made, save_record
from amlctl.snapshots.gc_mark import GcWatch
from amlctl.snapshots.heads import read_head
from amlctl.stores.contract import Store
from amlctl.workspaces.contract import KeepsAssets


def random_hex() -> str:
    return randomness.token_hex(2)


@dataclass(frozen=True)
class PreparedRun:
    """A run that everything is ready for; `secrets` are the variables whose value the record does not hold.

    `watch` has noted the gc of before; `send_code` sends what the code snapshot lacks, if this machine has it.
    """

    record: RunRecord
    secrets: Mapping[str, str]
    watch: GcWatch
    send_code: Callable[[], None] | None


def submit(
    request: SubmitRequest,
    context: Context,
    *,
    is_detached: bool = False,
    fetch_outputs: bool = True,
    on_interrupt: Callable[[], InterruptChoice],
    find_run: FindRun | None = None,
    clock: Callable[[], datetime] = utc_now,
) -> SubmitResult:
    """Make the run and, unless detached, follow it to its end and bring its outputs, however it ended.

    `find_run` finds the one to repeat, which may be in another workspace; without it, it is looked for in this one.

    Raises what `plan` raises before there is a run; afterwards only what keeps it from being started or read.
    """
    workspace, sink = context.workspace, context.sink
    started = time.monotonic()

    def result(record: RunRecord, **more: Any) -> SubmitResult:
        return SubmitResult(record, round(time.monotonic() - started, 3), **more)

    file = read_job_file(request, context.project) if is_job_file(request.script) else None
    if file is not None and file.kind != "command":
        run = hand_over(file, request, context, clock=clock, random=random_hex)
    else:
        prepared = prepare(request, context, find_run=find_run, clock=clock)
        run = prepared.record.run
        if prepared.secrets and not context.settings.workspace().runs_here:
            named = ", ".join(sorted(prepared.secrets))
            sink(Warned(f"{named}: visible to everyone who can read the workspace's jobs"))
        _start(prepared, context, clock)
    if is_detached:
        return result(workspace.read(run))
    try:
        record = follow(context, run, on_interrupt=on_interrupt)
    except AmlctlError:
        sink(Note(Message(f"run {run} was started, and may go on: ", Command("logs", run, "-f"), " takes it up again")))
        raise
    if not record.is_final:
        return result(record)
    for dataset, snapshot in record.published.items():
        told = f"{dataset} was published as snapshot {snapshot[:12]}; to have it here: "
        sink(Note(Message(told, Command("sync", "--pull", below_data_blobs(dataset)))))
    if record.status == RunState.COMPLETED and record.error is not None:
        sink(Warned(f"{record.error.get('message', '')}; {record.error.get('hint', '')}".removesuffix("; ")))
    if not fetch_outputs:
        return result(record)
    try:
        return result(record, fetched=fetch(context, run))
    except AmlctlError as error:
        # The run's own end counts more; its outputs are safe in the store.
        told = f"the outputs could not be fetched: {error.message}; again: "
        sink(Warned(Message(told, Command("fetch", run))))
        return result(record, fetch_error=error)


def _start(prepared: PreparedRun, context: Context, clock: Callable[[], datetime]) -> None:
    """Record the run, tell its id, hand it over; a run that was surely not handed over is recorded as Failed."""
    workspace, store, sink = context.workspace, context.store, context.sink
    record = prepared.record
    save_record(store, record)
    with suppress(OSError, RightsError):  # then its time says when it was made
        note_made(context.project.ensure_state_dir(), record.run)
    try:
        sink(RunCreated(record.run))
        with ended_by_interrupt(store):
            ensure_run_kept(store, prepared.watch, record, prepared.send_code)
        workspace.start(record, prepared.secrets)
    except Unconfirmed:
        raise
    except AmlctlError as error:
        record.failed(error.kind, error.message, clock())
        with suppress(AmlctlError):  # a full disk, say, of which the first error tells
            save_record(store, record)
        raise
    except KeyboardInterrupt:
        try:
            workspace.cancel(record.run)
        except AmlctlError as error:
            told = f"run {record.run} may go on: {error.message}; to end it: "
            sink(Warned(Message(told, Command("cancel", record.run))))
        else:
            sink(Note(f"run {record.run} is canceled"))
        raise


def plan(
    request: SubmitRequest,
    context: Context,
    *,
    find_run: FindRun | None = None,
) -> SubmitPlan:
    """`--dry-run`: the same checks, and what would be sent. Sends and writes nothing.

    Raises UsageError, SettingsError, NotFound, Conflict, RightsError.
    """
    workspace = context.workspace
    spec, _ = _resolve(request, context, find_run)
    with told_at(spec.places.get("compute", "")):
        checked_target(context, spec.compute)
    options = _sync_options(context.settings)
    datasets: dict[str, Mapping[str, Any]] = {
        dataset: dry_run(context, dataset, options).to_json() for dataset in spec.to_sync
    }
    datasets.update({dataset: {"snapshot": pinned.snapshot} for dataset, pinned in spec.pinned.items()})
    datasets.update({dataset: {"from": masked(address.url)} for dataset, address in spec.addresses.items()})
    code = _collect_code(context, spec, is_reading=True) if spec.code is None else None
    return SubmitPlan(
        spec,
        datasets,
        code=code.id if code else spec.code or "",
        code_files=len(code.own) if code else 0,
        code_bytes=sum(entry.size_bytes for entry in code.own) if code else 0,
        environment=workspace.environment(spec.environment),
        workspace=workspace.name,
    )


def prepare(
    request: SubmitRequest,
    context: Context,
    *,
    find_run: FindRun | None = None,
    clock: Callable[[], datetime] = utc_now,
    random: Callable[[], str] = random_hex,
) -> PreparedRun:
    """Check, send datasets and code, and describe the run; it is not started. Raises as `plan` does."""
    project, settings, workspace = context.project, context.settings, context.workspace
    store, sink = context.store, context.sink
    spec, origin = _resolve(request, context, find_run)
    workspace.expect_start()
    with told_at(spec.places.get("compute", "")):
        prepare_target(context, spec.compute)  # before the first byte goes up
    watch = GcWatch(store, sink)
    watch.note()
    snapshots = dict(spec.pinned)
    if spec.from_run is not None and origin.url != store.url:
        snapshots = dict(copy_from(origin, context, spec))
    for dataset, address in spec.addresses.items():
        bring(context, dataset, address)
    for dataset in (*spec.to_sync, *spec.addresses):
        done = sync(context, dataset, _sync_options(settings))
        snapshots[dataset] = Pinned(done.snapshot, done.manifest_key)
        if done.added or done.modified or done.deleted:
            changes = f"{done.added:,} added, {done.modified:,} modified, {done.deleted:,} deleted"
            sink(Note(f"{dataset}: synced, {changes}; its newest snapshot is {done.snapshot[:12]} now"))
    files = _collect_code(context, spec) if not spec.code else None
    code = spec.code or ""
    if files is not None:
        code = _send_code(context, files)
    now = clock()
    run = new_run_id(spec.name, now, random())
    record = RunRecord(
        run,
        run_module.RunSpec(
            script=spec.script,
            name=spec.name,
            experiment=spec.experiment,
            arguments=list(spec.arguments),
            config=spec.config,
            config_content=spec.config_content,
            config_file=spec.config_file,
            command=None if spec.job is None else spec.job.text,
            inputs={} if spec.job is None else {name: dict(one) for name, one in spec.job.inputs.items()},
            named_outputs={} if spec.job is None else dict(spec.job.outputs),
            output_places={} if spec.job is None else {name: dict(one) for name, one in spec.job.output_places.items()},
            description=spec.description,
            node=dict(spec.node),
            code=code,
            datasets={dataset: pinned.snapshot for dataset, pinned in snapshots.items()},
            manifests={dataset: pinned.manifest_key for dataset, pinned in snapshots.items()},
            produces=list(spec.produces),
            mode=spec.mode,
            environment=spec.environment.id,
            environment_content=spec.environment_content,
            variables=dict(spec.variables),
            compute=spec.compute,
            workspace=workspace.name,
            distribution=spec.distribution.kind,
            processes=spec.distribution.processes,
            instances=spec.distribution.instances,
            timeout_s=spec.timeout_s,
            tags=dict(spec.tags),
            git=dict(spec.git) if spec.code and spec.git else None if spec.code else read_git_state(project.root),
            heads={dataset: _base_key(store, dataset, spec) for dataset in spec.produces},
            sync={
                "layout": settings.sync.layout,
                "pack_below": settings.sync.pack_below,
                "pack_size": settings.sync.pack_size,
                "ignore": list(settings.sync.ignore),
                "ignore_files": ignore_files_above(project, spec.produces),
            },
            from_run=spec.from_run,
        ),
        command_line=mask_command_line(request.command_line, [*spec.secrets.values(), *_hidden_tags(request, spec)]),
        user=_user(),
        host=platform.node(),
        created_at=now.isoformat(timespec="milliseconds"),
        outputs=f"{project.outputs_dir.name}/{run}",
    )
    record.reached(RunState.NOT_STARTED, now)
    _check_readable(record)

    def send_again() -> None:
        if files is not None:
            send_code(store, files, sink=sink)

    return PreparedRun(record, spec.secrets, watch, None if files is None else send_again)


def _resolve(request: SubmitRequest, context: Context, find_run: FindRun | None) -> tuple[RunSpec, Store]:
    """Also the store of the run that is repeated; this one where none is."""
    project, workspace, store, sink = context.project, context.workspace, context.store, context.sink
    earlier, origin = None, store
    if request.from_run is not None:
        earlier, origin = run_to_repeat(request.from_run, context, find_run)
    spec = resolve(request, context, earlier, origin)
    spec = with_present_assets(spec, workspace)
    _check_code_apart(project, store, spec)
    environment = spec.environment
    if spec.job is not None and isinstance(workspace, KeepsAssets):
        environment = replace(environment, python="")  # for the runtime another one of the image will do
    with told_at(spec.places.get("environment", "")):
        workspace.check_environment(environment, sink)
    if spec.job is None and spec.code is None:
        check_syntax((project.root / spec.script).read_bytes(), spec.script, workspace.python(spec.environment), sink)
    return spec, origin


def _check_code_apart(project: Project, store: Store, spec: RunSpec) -> None:
    """Raises UsageError: a store in the folder of the code would be sent with every run."""
    folder = spec.code_source
    apart = (project.state_dir, project.data_blobs_dir, project.outputs_dir)
    if folder is not None and not any(Path(store.url).is_relative_to(one) for one in apart):
        check_apart(store, folder, f"{folder.name}/")


def _send_code(context: Context, code: CodeFiles) -> str:
    def earlier() -> str | None:
        """That of the newest run there, as far as this machine has seen it: most files are still the same."""
        records = local_records(context.project.state_dir)
        return next(
            (
                record.spec.code
                for record in records
                if record.spec.workspace == context.workspace.name and record.spec.code
            ),
            None,
        )

    with ended_by_interrupt(context.store):
        return send_code(context.store, code, earlier=earlier, sink=context.sink).id


def _collect_code(context: Context, spec: RunSpec, *, is_reading: bool = False) -> CodeFiles:
    project, sink = context.project, context.sink
    source = spec.code_source
    if source != project.pipeline_dir:
        is_folder = source is not None and source.is_dir()
        rules = job_code_rules(project, source) if source and is_folder else IgnoreRules(project.root, ())
        return collect_code(source, rules, context=spec.context, sink=sink)
    with local_state(context, "amlctl submit", is_reading=is_reading) as state:
        rules = code_rules(project)
        return collect_code(source, rules, context=spec.context, cache=state.cache, sink=sink)


def _sync_options(settings: Settings) -> SyncOptions:
    wanted = settings.sync
    return SyncOptions(wanted.layout, wanted.pack_below, wanted.pack_size, tuple(wanted.ignore))


def _check_readable(record: RunRecord) -> None:
    """No run is made whose record the next command would refuse as damaged. Raises UsageError."""
    try:
        RunRecord.from_bytes(record.to_bytes(), record.run)
    except IntegrityError as error:
        what = error.message.rpartition("damaged: ")[2]
        raise UsageError(f"the run cannot be recorded: {what}", hint="change that option or config") from error


def _base_key(store: Store, dataset: str, spec: RunSpec) -> str | None:
    """The manifest that a produced dataset starts from: what the run reads of it, else HEAD."""
    if dataset in spec.pinned and spec.from_run is None:
        return spec.pinned[dataset].manifest_key
    head = read_head(store, dataset)
    return None if head is None else head.manifest_key


def _hidden_tags(request: SubmitRequest, spec: RunSpec) -> list[str]:
    return [value for name, value in request.tags.items() if spec.tags.get(name) != value]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in many containers
        return ""
