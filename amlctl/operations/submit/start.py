"""The start of a run, or of a sweep, that all is ready for: its id is printed before anything can fail after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from amlctl.core.events import Note, RunCreated, Warned
from amlctl.core.message import AGAIN, Command, Message, count
from amlctl.core.run import RunRecord, RunSpec
from amlctl.core.run_id import child_id
from amlctl.core.run_state import RunState
from amlctl.core.store_keys import code_index_key, code_prefix, folder_of, shard_key
from amlctl.core.sweep import Sweep
from amlctl.errors import AmlctlError, Conflict, NotFound, RightsError, Unconfirmed
from amlctl.operations.context import Context
from amlctl.operations.submit.check import with_config_of
from amlctl.operations.submit.needed import Equals
from amlctl.parallel import ended_by_interrupt
from amlctl.runs.known import note_made
from amlctl.runs.records import save_record
from amlctl.runs.tree import read_index
from amlctl.snapshots.gc_mark import GcWatch
from amlctl.snapshots.known import ANY_SIZE, missing_values, values_named
from amlctl.snapshots.manifests import read_manifest
from amlctl.stores.contract import Store

_TRIES = 4


@dataclass(frozen=True)
class PreparedRun:
    """A run that everything is ready for. `secrets` are the variables whose value the record does not hold.

    `watch` has noted the state of gc before anything was looked for or sent; `send_code` sends what the code snapshot
    lacks, if this machine has it. `configs` are those of a sweep's combinations.
    """

    record: RunRecord
    secrets: Mapping[str, str]
    watch: GcWatch
    send_code: Callable[[], None] | None
    configs: Sequence[RunSpec] = ()


def start(
    context: Context,
    prepared: PreparedRun,
    clock: Callable[[], datetime],
    children: Sequence[RunRecord] | None = None,
) -> None:
    """Print the id before anything can fail. A run that was certainly not handed over is recorded as Failed. With
    `children` it is the parent of a sweep."""
    workspace, store, sink, record = context.workspace, context.store, context.sink, prepared.record
    save_record(store, record)
    try:
        announce(context, record.run)
        with ended_by_interrupt(store):
            ensure_run_kept(store, prepared.watch, record, prepared.send_code)
        if children is None:
            workspace.start(record, prepared.secrets)
        else:
            workspace.start_sweep(record, children, prepared.secrets)
    except Unconfirmed:
        raise
    except AmlctlError as error:
        record.failed(error.kind, error.message, clock())
        with suppress(AmlctlError):  # such as a full disk, which the first error reports
            save_record(store, record)
        raise
    except KeyboardInterrupt:
        try:
            workspace.cancel(record.run)
        except AmlctlError as error:
            message = f"run {record.run} may still be active: {error.message}; cancel it with: "
            sink(Warned(Message(message, Command("cancel", record.run))))
        else:
            sink(Note(f"run {record.run} is canceled"))
        raise


def announce(context: Context, run: str) -> None:
    """Print the id, and note that it was made now, also where the project cannot be written."""
    with suppress(OSError, RightsError):
        note_made(context.project.ensure_state_dir(), run)
    context.sink(RunCreated(run))


def ensure_run_kept(store: Store, watch: GcWatch, record: RunRecord, send_code: Callable[[], None] | None) -> None:
    """Once the record is written, gc keeps what it names; before, a gc may have deleted some of it. Raises Conflict."""
    wanted = dict.fromkeys([code_index_key(record.spec.code), *record.spec.manifests.values()], ANY_SIZE)
    for _ in range(_TRIES):
        is_quiet = watch.was_quiet()
        if not is_quiet:
            watch.wait()
        missing = missing_values(store, wanted if is_quiet else _all_values(store, record))
        if not missing:
            return
        if send_code is None or not all(key.startswith("code/") for key in missing):
            break
        send_code()
    raise Conflict("a gc has just deleted what this run needs", hint=AGAIN)


def _all_values(store: Store, record: RunRecord) -> dict[str, int]:
    index_key = code_index_key(record.spec.code)
    wanted = dict.fromkeys([index_key, *record.spec.manifests.values()], ANY_SIZE)
    for file in read_index(store, index_key) or ():
        wanted[code_prefix(record.spec.code) + file.path] = file.size_bytes
    for key in record.spec.manifests.values():
        try:
            manifest = read_manifest(store, key)
        except NotFound as error:
            raise Conflict(f"a gc has just deleted what this run needs: {error.message}", hint=AGAIN) from error
        wanted.update(dict.fromkeys((shard_key(folder_of(key), name) for name in manifest.shards), ANY_SIZE))
        wanted.update(values_named(manifest, manifest.places))
    return wanted


def start_sweep(
    context: Context, prepared: PreparedRun, sweep: Sweep, clock: Callable[[], datetime], *, is_needed_only: bool
) -> str:
    """Start the runs that are not there already; returns the parent's id. Raises as `start` does."""
    base = prepared.record
    folder = base.outputs.rpartition("/")[0]
    children, new = list[dict[str, str]](), list[RunRecord]()
    equals = Equals(context) if is_needed_only else None
    for number, (combination, config) in enumerate(zip(sweep.combinations, prepared.configs, strict=True)):
        spec = replace(with_config_of(base.spec, config), parent=base.run, combination=combination.values)
        found = None if equals is None else equals.find(spec)
        if found is None:
            run = child_id(base.run, number)
            new.append(replace(base, run=run, spec=spec, outputs=f"{folder}/{run}", phases=[], times=dict(base.times)))
        else:
            run = found.run
        status = RunState.NOT_STARTED if found is None else RunState.COMPLETED
        children.append({"run": run, "name": combination.label, "status": status.value})
    if reused := len(children) - len(new):
        context.sink(Note(f"{count(reused, 'run')} of {len(children)} Completed before; not running them again"))
    wanted = {"parallel": sweep.parallel, "metric": sweep.metric, "runs": len(children)}
    spec = replace(base.spec, job_type="sweep", sweep=wanted)
    start(context, replace(prepared, record=replace(base, spec=spec, children=children, outputs=folder)), clock, new)
    return base.run
