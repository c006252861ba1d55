"""How a run ends: why, and what is done from the end of its last process to its final record.

In order: leftover processes, outputs (unless the runtime has saved them), HEAD of what it produced, metrics, log,
record. The record comes last: a reader of a final state finds all of it in the store.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from amlctl.core.events import Event, Note
from amlctl.core.job import log_names
from amlctl.core.message import Command, instead_of_again
from amlctl.core.run import STORE_FAILURES, RunRecord
from amlctl.core.run_state import RunState, script_end, signal_name
from amlctl.core.store_keys import outputs_index_key, outputs_tree
from amlctl.errors import AmlctlError, LoginError, RightsError, ServiceUnavailable, SettingsError, StoreGone
from amlctl.localfs.atomic import read_json, remove_at_once, write_json
from amlctl.localfs.machine import utc_now
from amlctl.runs.metrics import read_metrics
from amlctl.runs.records import (
    read_published,
    read_resources,
    save_both,
    save_local_record,
    save_record,
    save_resources,
)
from amlctl.runtime.ranks import read_end
from amlctl.stores.contract import Store
from amlctl.workspaces.local.logs import SavedLog, saved_logs, say
from amlctl.workspaces.local.node_files import forget_run, node_store
from amlctl.workspaces.local.run_paths import RunPaths, release_reserve

if TYPE_CHECKING:
    from amlctl.runs.tree_saver import TreeSaver
    from amlctl.workspaces.local.data_copies import DataCopy
    from amlctl.workspaces.local.rank_processes import RankFailure, RankProcesses


@dataclass(frozen=True)
class Ending:
    """The final state, the exit code (of the script where it ran), and the reason, empty for Completed.

    `log` names the log that says why, if it is not the first one. `is_logged`: the reason is in the log already, or the
    script has printed its own.
    """

    state: RunState
    exit_code: int | None = None
    kind: str = ""
    message: str = ""
    hint: str = ""
    log: str = ""
    is_logged: bool = False

    @property
    def error(self) -> dict[str, str] | None:
        """As a record has it."""
        if not self.message:
            return None
        return {
            "kind": self.kind,
            "message": self.message,
            **{name: text for name, text in (("hint", self.hint), ("log", self.log)) if text},
        }


def failed(error: AmlctlError, *, kind: str = "") -> Ending:
    """The ending of a run whose script was not started."""
    return Ending(RunState.FAILED, None, kind or error.kind, error.message, error.hint)


def ending_of(return_code: int, failure: Mapping[str, Any] | None, *, script: str = "the script") -> Ending:
    """What the runtime's end means; `failure` is its own report (`failure.json`), `script` names the script."""
    if failure is not None:
        kind, message, hint = (str(failure.get(key, "")) for key in ("kind", "message", "hint"))
        return Ending(RunState.FAILED, return_code, kind, message, hint, is_logged=True)
    if return_code == 0:
        return Ending(RunState.COMPLETED, 0)
    if return_code < 0:
        message = f"the run's processes were killed by {signal_name(-return_code)}"
        return Ending(RunState.FAILED, 128 - return_code, "killed", message)
    return Ending(RunState.FAILED, return_code, "script", script_end(return_code, script), is_logged=True)


def ending_of_processes(
    record: RunRecord,
    processes: RankProcesses,
    stopped: Ending | None,
    failure: RankFailure | None,
    reason: Mapping[str, Any] | None,
) -> Ending:
    """Of all processes of a run: why they were `stopped`, if they were, or the rank that failed first, and what its
    runtime has reported."""
    return_code = 0 if failure is None else failure.return_code
    if not processes.has_started():
        # Before there was a script, an exit code is not the script's.
        ending = stopped or ending_of(return_code, reason)
        if ending.kind == "script" or ending.state is RunState.COMPLETED:
            message = f"the run ended before its script was started (exit code {return_code})"
            ending = Ending(RunState.FAILED, None, "runtime", message, is_logged=True)
        return replace(ending, exit_code=None)
    if stopped is not None:
        return replace(stopped, exit_code=128 - return_code if return_code < 0 else return_code)
    names = log_names(record.spec.process_group.world_size)
    if failure is None or len(names) == 1:
        return ending_of(return_code, reason)
    rank = failure.rank.number
    ending = ending_of(return_code, reason, script=f"the script of rank {rank}")
    hint = ending.hint or str(Command("logs", record.run, "--file", names[rank]))
    return replace(ending, log=names[rank], hint=hint)


_STORE_ERRORS = (ServiceUnavailable, LoginError, RightsError)


class _Saved(NamedTuple):
    """How the run ends with that. `is_kept`: the store has all of it. `is_delivered`: a later try would do no more."""

    ending: Ending
    is_kept: bool
    is_delivered: bool


def finish(
    paths: RunPaths,
    store: Store,
    record: RunRecord,
    ending: Ending,
    *,
    logs: Sequence[SavedLog] = (),
    placed: Sequence[DataCopy] = (),
    earlier: Optional[RunRecord] = None,
) -> RunRecord:
    """Save what the run has left and make its record final. All of its processes must have ended; copies of datasets
    that were `placed` are for the next run. `earlier` is how a try has ended that could not save it: one that fails as
    that did changes nothing, since any command may be the next try.

    Only the holder of the run's lock may call it. It can be repeated after a kill.
    """
    record.reached(RunState.FINALIZING, utc_now())
    ending, is_kept, is_delivered = _save_results(paths, store, record, ending, is_again=earlier is not None)
    if earlier is not None:
        if not is_delivered and ending.kind == (earlier.error or {}).get("kind"):
            save_local_record(paths.state_dir, earlier)
            return earlier
        say(paths.log, f"saving the results of the run in {store.url}")
    release_reserve(paths)
    record.metrics = _metrics(paths, store)
    record.resources = _resources(paths, store)
    if ending.message and not ending.is_logged:
        hint = f" ({ending.hint})" if ending.hint else ""
        state = "" if ending.kind == "canceled" else f"{ending.state}: "  # whose message says so
        say(paths.log, f"{state}{ending.message}{hint}")
    try:
        for log in logs or saved_logs(store, paths, record):
            log.save()
    except (AmlctlError, OSError) as error:
        say(paths.log, f"cannot write the log to the store: {error}")
    for one in placed if is_delivered else ():  # else some of it may have to be published
        one.give_back()  # before the record is final: the next run may start right after that
    now = utc_now()
    if is_delivered:  # else it is not final for others, who cannot have its results yet
        try:
            save_record(store, _ended(copy.deepcopy(record), ending, now))
        except _STORE_ERRORS as error:
            ending, is_kept, is_delivered = _kept_here(paths, record, ending, error)
        except AmlctlError as error:  # nor would a later try
            say(paths.log, f"cannot write the record of the run to the store: {error}")
    if is_delivered:
        paths.ending.unlink(missing_ok=True)
    save_local_record(paths.state_dir, _ended(record, ending, now))
    _clear(paths, store, record, is_kept=is_kept)
    return record


def accept_end(paths: RunPaths, store: Store, stored: RunRecord) -> None:
    """Of a run whose final record is in the store and not yet here: its supervisor was killed in between, or did not
    get the answer. For the holder of the run's lock."""
    save_local_record(paths.state_dir, stored)
    paths.ending.unlink(missing_ok=True)
    with contextlib.suppress(AmlctlError):  # then they stay
        is_kept = all(_keep_outputs(paths, store, node) for node in range(stored.spec.instances))
        _clear(paths, store, stored, is_kept=is_kept)


def _clear(paths: RunPaths, store: Store, record: RunRecord, *, is_kept: bool) -> None:
    """What would only fill the disk."""
    for left in paths.folder.glob("data-*"):
        remove_at_once(left)
    if is_kept:
        for node in range(record.spec.instances):
            remove_at_once(paths.container_of(node))
        if store.folder is None:
            forget_run(node_store(store, paths.state_dir), record.run)


def _save_results(paths: RunPaths, store: Store, record: RunRecord, ending: Ending, *, is_again: bool) -> _Saved:
    """Outputs and produced datasets; first that the run is about to end. `is_again`: after a try that has failed, what
    refuses that gets nothing else."""
    is_kept, failure = True, None
    with contextlib.suppress(OSError):  # a full disk: outputs come first, and the reserve is for the final record
        failure = save_both(paths.state_dir, store, record)
    try:
        if isinstance(failure, _STORE_ERRORS if is_again else StoreGone):
            raise failure
        for node in range(record.spec.instances):
            is_kept = _keep_outputs(paths, store, node) and is_kept
        if ending.state is RunState.COMPLETED:
            ending = _move_heads(paths, store, record, ending)
    except _STORE_ERRORS as error:
        return _kept_here(paths, record, ending, error)
    except (AmlctlError, OSError) as error:
        reason = f"the results of the run cannot be saved: {error}"
        kind = error.kind if isinstance(error, AmlctlError) else "unavailable"
        message = f"{ending.message}; {reason}".removeprefix("; ")
        return _Saved(Ending(RunState.FAILED, ending.exit_code, kind, message), is_kept=False, is_delivered=True)
    return _Saved(ending, is_kept, is_delivered=True)


def _ended(record: RunRecord, ending: Ending, now: datetime) -> RunRecord:
    record.exit_code, record.error = ending.exit_code, ending.error
    record.reached(ending.state, now)
    return record


def _kept_here(paths: RunPaths, record: RunRecord, ending: Ending, error: AmlctlError) -> _Saved:
    """For a later try: see `recovery`."""
    own = _own_end(paths, record, ending, error)
    release_reserve(paths)
    with contextlib.suppress(OSError):  # then it stays Failed
        if paths.folder.is_dir():
            write_json(paths.ending, asdict(own))
    return _Saved(_not_saved(paths, record, own, error), is_kept=False, is_delivered=False)


def _own_end(paths: RunPaths, record: RunRecord, ending: Ending, error: AmlctlError) -> Ending:
    """Of the run, where its runtime may have failed only because of the store, and could not write the reason."""
    if ending.kind == "runtime":
        return failed(error)
    exit_code = script_exit_code(paths, record)
    if ending.kind not in ("script", *STORE_FAILURES) or exit_code in (None, ending.exit_code):
        return ending
    return ending_of(exit_code or 0, None)


def read_ending(paths: RunPaths) -> Optional[Ending]:
    """That of a run whose results could not be saved at its end."""
    try:
        document = read_json(paths.ending)
        return Ending(**{**document, "state": RunState(document["state"])})
    except (OSError, SettingsError, LookupError, TypeError, ValueError):
        return None


def _not_saved(paths: RunPaths, record: RunRecord, ending: Ending, error: AmlctlError) -> Ending:
    """Until a later reader saves what is here: see `recovery`."""
    is_gone = isinstance(error, StoreGone)
    reasons = [error.message if is_gone else f"the results of the run cannot be saved: {error.message}"]
    if ending.message and ending.kind != error.kind:
        reasons.insert(0, ending.message)
    folders = [paths.node_folders(node).outputs_dir for node in range(record.spec.instances)]
    if there := [str(folder) for folder in folders if folder.is_dir()]:
        reasons.append(f"until {'it is back' if is_gone else 'then'}, the outputs of the run are in {', '.join(there)}")
    first = "mount or restore it" if is_gone else error.hint or "when the store can be written to"
    # The command that reports it was a submit: another one would not save these results.
    hint = instead_of_again(first, Command("fetch", record.run))
    return Ending(RunState.FAILED, ending.exit_code, error.kind, "; ".join(reasons), hint)


def script_exit_code(paths: RunPaths, record: RunRecord) -> int | None:
    """That of the first script to fail, 0 if all have succeeded; None if unknown."""
    folders = [paths.node_folders(node).state_dir for node in range(record.spec.instances)]
    ends = [end for folder in folders for local in range(record.spec.processes) if (end := read_end(folder, local))]
    failed = sorted((end.ended_ns, end.exit_code) for end in ends if end.exit_code)
    if failed:
        return failed[0][1]
    return 0 if len(ends) == record.spec.process_group.world_size else None


def _metrics(paths: RunPaths, store: Store) -> dict[str, Any]:
    """For the record; what cannot be used is a line in the log."""
    try:
        found = read_metrics(store, paths.run)
    except (AmlctlError, OSError) as error:
        say(paths.log, f"cannot read the run's metrics: {error}")
        return {}
    for warning in found.warnings:
        say(paths.log, warning)
    return found.kept()


def _resources(paths: RunPaths, store: Store) -> dict[str, float]:
    """For the record; another store than the node's gets the samples from here."""
    with contextlib.suppress(AmlctlError, OSError):  # only a note is lost
        found = read_resources(node_store(store, paths.state_dir), paths.run)
        if found.samples and store.folder is None:
            save_resources(store, paths.run, found)
        return found.summary()
    return {}


def outputs_saver(paths: RunPaths, store: Store, node: int) -> TreeSaver:
    """Raises RightsError, ServiceUnavailable."""
    from amlctl.runs.tree_saver import TreeSaver  # here, since the runtime mostly saves them itself

    return TreeSaver(store, paths.node_folders(node).outputs_dir, outputs_tree(paths.run, node))


def _keep_outputs(paths: RunPaths, store: Store, node: int) -> bool:
    """The runtime does that itself, unless it was killed, its store failed, or its store stands for a blob store. The
    list of outputs is always written. False where a file could not be saved."""
    folders = paths.node_folders(node)
    if folders.saved_marker.exists() and store.folder is not None:
        return True
    if folders.outputs_dir.is_dir() or store.info(outputs_index_key(paths.run, node)) is None:
        saver = outputs_saver(paths, store, node)
        saver.save(is_last=True)
        for line in saver.not_kept():
            say(paths.log, line)
        if saver.refused:
            say(paths.log, f"what could not be saved is only in {folders.outputs_dir}")
        return not saver.refused
    return True


def _move_heads(paths: RunPaths, store: Store, record: RunRecord, ending: Ending) -> Ending:
    """The ending, with the reason where a produced snapshot could not become the latest one."""

    def log(event: Event) -> None:
        if isinstance(event, Note):
            say(paths.log, event.message)

    if not record.spec.produces:
        return ending
    from amlctl.runs.produced import make_all_newest, publish_produced  # here, since few runs produce datasets

    node = node_store(store, paths.state_dir)
    published = read_published(node, record.run)
    if not published:  # the runtime could not do it: the store was gone
        publish_produced(node, record, paths.node_folders(0).data_blobs_dir, partial(say, paths.log))
        published = read_published(node, record.run)
    if store.folder is None:
        from amlctl.runs.copies import upload_produced

        upload_produced(node, store, record.run, published)
    error = make_all_newest(store, record, published, source=node, sink=log)
    return replace(ending, kind=error["kind"], message=error["message"], hint=error["hint"]) if error else ending
