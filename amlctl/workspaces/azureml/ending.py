"""How a run ended, and what happens once after it: publishing what it produced, copying its logs to the store."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from amlctl.core.events import EventSink, Warned
from amlctl.core.job import log_names
from amlctl.core.log_text import collapsed
from amlctl.core.message import Command
from amlctl.core.metrics import Metrics
from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState, script_end
from amlctl.core.store_keys import log_key
from amlctl.errors import AmlctlError, IntegrityError
from amlctl.localfs.atomic import scratch_folder
from amlctl.localfs.machine import utc_now
from amlctl.localfs.read_file import file_content_id
from amlctl.parallel import for_each
from amlctl.runs.metrics import read_metrics
from amlctl.runs.records import note_phases, read_failure, read_first_failure, read_published, read_resources
from amlctl.stores.contract import FileBody, Store
from amlctl.workspaces.azureml.documents import as_object
from amlctl.workspaces.azureml.job import entered, time_of
from amlctl.workspaces.azureml.logs import PARALLEL_LOGS, Logs, names_of
from amlctl.workspaces.azureml.looks import Look, Looks
from amlctl.workspaces.azureml.sweeps import ended_sweep
from amlctl.workspaces.contract import TrackedMetrics

_EXIT_CODE = re.compile(
    r"(?:process|script|program|command)\b(?:(?!\. ).){0,400}?\bwith (?:non-zero )?(?:exit|status) code:?\s+(\d+)"
    r"|\bexit_codes?:\s+(\d+)",
    re.IGNORECASE,
)
"""Of the user's process; an image builder, say, has an exit code that is not the script's."""
_PREEMPTED = re.compile(r"pre-?empt", re.IGNORECASE)
_TIME_LIMIT = re.compile(r"time limit|timed out|time-?out|max(?:imum)?\s*run\s*duration", re.IGNORECASE)
_PART_OF_LIMIT = 0.9
"""The service counts from a time that is not quite the start it reports."""
_MAX_LOG_BYTES = 256 << 20
_MAX_REASON = 600


def ended(record: RunRecord, run: Mapping[str, Any], failure: Mapping[str, Any] | None, now: datetime) -> RunRecord:
    """The final record. `run` is the document of run history, `failure` the runtime's own report."""
    state = RunState(str(run["status"]))
    at = time_of(run.get("endTimeUtc")) or now
    code, error = _reason(record, run, state, failure)
    if error is not None and error["kind"] == "timeout":
        state = RunState.FAILED
    times = entered(record.times, state, at)
    return replace(record, status=state, exit_code=code, error=error, services={}, times=times)


def _reason(
    record: RunRecord, run: Mapping[str, Any], state: RunState, failure: Mapping[str, Any] | None
) -> tuple[int | None, dict[str, str] | None]:
    if state is RunState.COMPLETED:
        return 0, None
    message = _message(run.get("error"))
    found = _EXIT_CODE.search(message)
    code = int(found[1] or found[2]) if found else None
    if code is None and failure is None and _timed_out(record, run, message):
        return None, {
            "kind": "timeout",
            "message": f"the run took longer than its limit of {record.spec.timeout_s:g} s",
        }
    if state is RunState.CANCELED:
        return None, {"kind": "canceled", "message": message or "canceled"}
    if code is None and _PREEMPTED.search(message):  # and not started again; other nodes may have failed by it
        return None, {"kind": "service", "message": message, "hint": str(Command("submit", "--from", record.run))}
    if failure is not None:
        texts = {key: str(failure.get(key) or "") for key in ("kind", "message", "hint", "log")}
        return failure.get("exit_code", code), {key: text for key, text in texts.items() if text}
    if code is not None:
        return code, {"kind": "script", "message": script_end(code, machine="node")}
    default = "Azure ML gives no reason; its system logs may, on the page of the run in Studio"
    return None, {"kind": "service", "message": message or default}


def _timed_out(record: RunRecord, run: Mapping[str, Any], message: str) -> bool:
    """Whether its time limit ended it: the service says so, or canceled it unasked as late as only the limit does.

    A script that fails with a timeout of its own ends before the limit.
    """
    if record.spec.timeout_s is None or RunState.CANCEL_REQUESTED in record.times:
        return False
    begin, end = time_of(run.get("startTimeUtc")), time_of(run.get("endTimeUtc"))
    says_so = _TIME_LIMIT.search(message) is not None
    if begin is None or end is None:
        return says_so
    took_s = (end - begin).total_seconds()
    if says_so:
        return took_s >= _PART_OF_LIMIT * record.spec.timeout_s
    return run.get("status") == RunState.CANCELED and took_s >= record.spec.timeout_s


def _message(error: Any) -> str:
    """The service's reason on one line; its message is often itself JSON."""
    text = str(as_object(as_object(error).get("error")).get("message") or "")
    for _ in range(3):
        try:
            document = json.loads(text)
        except ValueError:
            break
        texts = [value for value in _leaves(document) if isinstance(value, str)]
        if not texts:
            break
        text = max(texts, key=len)
    return " ".join(text.split())[:_MAX_REASON]


def _leaves(document: Any) -> Iterator[Any]:
    if isinstance(document, (Mapping, list)):
        for value in document.values() if isinstance(document, Mapping) else document:
            yield from _leaves(value)
    else:
        yield document


def failed_script(store: Store, record: RunRecord) -> dict[str, Any] | None:
    """The runtime's note about the script that failed first, in the form of a failure; None without one."""
    first = read_first_failure(store, record.run)
    if first is None:
        return None
    rank, code = first
    names = log_names(record.spec.process_group.world_size)
    found: dict[str, Any] = {"kind": "script", "exit_code": code, "message": script_end(code, machine="node")}
    if len(names) > 1 and rank < len(names):
        found["message"] = script_end(code, f"the script of rank {rank}", machine="node")
        found["log"] = names[rank]
        found["hint"] = str(Command("logs", record.run, "--file", names[rank]))
    return found


def publish(store: Store, record: RunRecord) -> RunRecord:
    """Make the datasets of a completed run the newest; a conflict is recorded in `error`, and nothing is lost."""
    from amlctl.runs.produced import make_all_newest  # most runs produce nothing

    try:
        produced = read_published(store, record.run)
    except IntegrityError as error:
        return replace(record, error={"kind": error.kind, "message": error.message, "hint": error.hint})
    record = replace(record, published=dict(record.published))
    record.error = make_all_newest(store, record, produced) or record.error
    return record


def finished(record: RunRecord, look: Look, store: Store, tracked: TrackedMetrics, sink: EventSink) -> RunRecord:
    """The final record of a run that has just ended, with its results."""
    failure = None
    if look.status == RunState.FAILED:
        failure = read_failure(store, record.run) or failed_script(store, record)
    record = replace(record, phases=[*record.phases])
    with suppress(AmlctlError):  # only times are lost, and what it has used
        note_phases(store, record)
        record.resources = read_resources(store, record.run).summary()
    record = ended(record, look.document, failure, utc_now())
    if record.spec.sweep:
        return ended_sweep(record, utc_now())
    return with_results(record, store, tracked, sink)


def with_results(record: RunRecord, store: Store, tracked: TrackedMetrics, sink: EventSink) -> RunRecord:
    """With the snapshots that it has produced, and its metrics: what its outputs say, then what it has sent to MLflow.
    Metrics that cannot be read are a warning."""
    if record.status == RunState.COMPLETED and record.spec.produces:
        record = publish(store, record)
    found = Metrics()
    try:
        found.add(read_metrics(store, record.run))
        found.add(Metrics(last=dict(tracked.values(record.run))))
    except AmlctlError as error:
        found.warnings.append(f"some of its metrics cannot be read: {error.message}")
    for warning in found.warnings:
        sink(Warned(f"run {record.run}: {warning}"))
    return replace(record, metrics=found.kept())


def copy_logs(
    store: Store, record: RunRecord, look: Look, logs: Logs, looks: Looks, is_settled: Callable[[Look], bool]
) -> None:
    """To the store, where they outlive what Azure ML keeps. The main log is first: its reader waits for all of them."""

    def parts(name: str) -> Iterator[bytes]:
        cursor = 0
        while (seen := looks.last(record.run) or looks.at(record.run)) is not None:
            chunk = logs.read(record, seen, name, cursor, is_settled=is_settled(seen))
            if chunk.is_final:
                return
            yield chunk.data
            cursor = chunk.cursor

    def save(name: str) -> None:
        _save_log(store, record.run, name, parts(name))

    names = [name for name in names_of(record, look.log_files) if name.startswith("std_log")]
    for name in names[:1]:
        save(name)
    for_each(save, names[1:], PARALLEL_LOGS)


def _save_log(store: Store, run: str, name: str, parts: Iterable[bytes]) -> None:
    """The log as a terminal shows it in the end. A very long one stays in Azure ML only."""
    with scratch_folder() as folder:
        path, size = folder / "log", 0
        with path.open("wb") as file:
            for part in collapsed(parts):
                size += file.write(part)
                if size > _MAX_LOG_BYTES:
                    return
        store.put(log_key(run, name), FileBody(path, size, file_content_id(path)), replace=True)
