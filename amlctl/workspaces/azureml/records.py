"""Records of runs, here and in the store, runs that Azure ML does not find, and the jobs that a list of runs shows.

The service finds jobs of amlctl by a property with their experiment. It cannot be asked for jobs of other tools: they
are found among the newest of the whole workspace, so that a busy workspace costs no more requests than a quiet one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from amlctl.core.events import EventSink, Note, Warned
from amlctl.core.message import Command, Message
from amlctl.core.run import RunRecord
from amlctl.core.run_schema import wrong_field
from amlctl.core.run_state import RunState, is_final
from amlctl.core.store_keys import attempt_key
from amlctl.errors import IntegrityError, NotFound, ServiceUnavailable
from amlctl.localfs.folders import remove_tree
from amlctl.localfs.machine import utc_now
from amlctl.localfs.project import Project
from amlctl.parallel import in_parallel
from amlctl.runs.known import read_order
from amlctl.runs.records import load_local_record, load_record, local_records, save_local_record, save_record
from amlctl.stores.contract import Store
from amlctl.workspaces.azureml.connection import Connection, is_workspace_missing
from amlctl.workspaces.azureml.job import EXPERIMENT_PROPERTY, watched
from amlctl.workspaces.azureml.looks import Look, Looks


class Records:
    """Of the runs of one workspace, here and in its store. `sink` gets a warning for a damaged one, which counts as
    missing."""

    def __init__(self, project: Project, workspace: str, open_store: Callable[[], Store], sink: EventSink) -> None:
        self._project = project
        self._workspace = workspace
        self._open_store = open_store
        self._sink = sink
        self._warned: set[str] = set()

    @cached_property
    def store(self) -> Store:
        """Watching an active run does without it."""
        return self._open_store()

    def load(self, run: str) -> RunRecord | None:
        try:
            record = load_local_record(self._project.state_dir, run)
        except IntegrityError as error:
            if run not in self._warned:
                self._warned.add(run)
                self._sink(Warned(f"{error.message}; reading it from the store"))
            return None
        return record if record is not None and record.spec.workspace == self._workspace else None

    def stored(self, run: str) -> RunRecord | None:
        """The one in the store."""
        try:
            return load_record(self.store, run)
        except IntegrityError as error:
            self._sink(Warned(f"{error.message}, in the store"))
            return None

    def load_all(self, on_damaged: Callable[[str], None]) -> dict[str, RunRecord]:
        records = local_records(self._project.state_dir, on_damaged=on_damaged)
        return {record.run: record for record in records if record.spec.workspace == self._workspace}

    def order(self) -> list[str]:
        """Ids in the order in which runs were created here."""
        return read_order(self._project.state_dir)

    def save(self, record: RunRecord) -> None:
        """A record that could not be read again is not saved: one with a new state of the service, say."""
        if wrong_field(record.to_json()):
            return
        self._project.ensure_state_dir()
        save_local_record(self._project.state_dir, record)

    def save_everywhere(self, record: RunRecord) -> None:
        save_record(self.store, record)
        self.save(record)

    def forget(self, run: str) -> None:
        remove_tree(self._project.state_dir / "runs" / run, ignore_errors=True)


def missing_record(connection: Connection, records: Records, run: str, known: RunRecord | None) -> RunRecord:
    """The record to show of a run that Azure ML does not find, which alone is not an end. Raises NotFound without
    one."""
    if known is None:
        raise NotFound(f"Run {run!r} not found", hint=Command("runs"))
    if known.is_final or known.spec.workspace != connection.address.name:
        return known
    if _has_existed(connection, records, known):
        why = "Azure ML does not find this run; it may have been deleted there"
        return replace(known, status=RunState.NOT_RESPONDING, waits_for=why)
    if known.is_overdue(utc_now()):
        known.failed("lost", "it was recorded, but did not reach Azure ML", utc_now())
        records.save_everywhere(known)
    return known


def cancel_missing(connection: Connection, records: Records, record: RunRecord, look: Look | None) -> None:
    """Azure ML found no job to cancel. Only a run that never existed there counts as canceled.

    Raises ServiceUnavailable.
    """
    if look is not None and is_final(look.status):
        return
    is_of_another = record.spec.workspace != connection.address.name
    if look is not None or is_of_another or _has_existed(connection, records, record):
        state = f"; run history says it is {look.status}" if look is not None else ""
        raise ServiceUnavailable(
            f"run {record.run} was not canceled: Azure ML does not find the job{state}",
            hint=Message("try again, or cancel it in Studio: ", Command("runs", "open", record.run)),
        )
    record.error = {"kind": "canceled", "message": "canceled before it was started"}
    record.reached(RunState.CANCELED, utc_now())
    records.save_everywhere(record)


def _has_existed(connection: Connection, records: Records, record: RunRecord) -> bool:
    """Whether Azure ML is known to have had the run, here or on the machine that submitted it.

    A run that was submitted elsewhere and is still queued has left no trace but its job.
    """
    if record.studio_url is not None or record.status != RunState.NOT_STARTED:
        return True
    return records.store.info(attempt_key(record.run)) is not None or has_job(connection, record.run)


def has_ended(record: RunRecord) -> bool:
    """Whether Azure ML has reported the end, or refused the start."""
    return record.is_final and not _is_presumed(record)


def reopened(record: RunRecord) -> RunRecord:
    """For a run that Azure ML turns out to have: an end that was concluded from its absence is void."""
    if not _is_presumed(record):
        return record
    times = {state: time for state, time in record.times.items() if state != record.status}
    return replace(record, status=RunState.NOT_STARTED, times=times, error=None)


def _is_presumed(record: RunRecord) -> bool:
    """Whether the end was concluded from the job's absence: it did not arrive, or was canceled before it could."""
    kind = (record.error or {}).get("kind")
    return record.is_final and record.studio_url is None and kind in ("lost", "canceled")


def has_job(connection: Connection, run: str) -> bool:
    """By the management of jobs, which run history does not depend on. Raises NotFound (the workspace)."""
    answer = connection.workspace("GET", f"/jobs/{run}", _VERSION, accept=(404,))
    if answer.status == 404 and is_workspace_missing(answer):
        raise connection.error(answer, "GET", connection.address.path)
    return answer.status != 404


_VERSION = "2024-10-01"
_MAX_JOBS = 200
_MAX_PAGES = 10
_LOOKS_AT_A_TIME = 8


@dataclass
class ListedJobs:
    """Documents by run id. `is_complete` is False if a limit was reached, so that older jobs are missing."""

    jobs: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    is_complete: bool = True


def list_jobs(connection: Connection, experiment: str, own: Collection[str], sink: EventSink) -> ListedJobs:
    """Those of the experiment, and those in `own`. The sink gets a note if a limit was reached.

    Only one request if one page has all jobs of the workspace.
    """
    listed, requested, checked = ListedJobs(), 0, 0
    newest = connection.pages("/jobs", _VERSION, {"listViewType": "ActiveOnly"})
    by_property = {"listViewType": "ActiveOnly", "properties": f"{EXPERIMENT_PROPERTY}={experiment}"}
    for pages, is_newest in (
        (itertools.islice(newest, 2), True),
        (connection.pages("/jobs", _VERSION, by_property) if experiment else iter(()), False),
        (newest, True),
    ):
        if requested == 1 or not listed.is_complete:  # there was only one page, or enough
            break
        for page in pages:
            requested += 1
            checked += len(page) if is_newest else 0
            for job in page:
                run = str(job.get("name") or "")
                if run in own or _is_of(job, experiment):
                    listed.jobs.setdefault(run, job)
            if requested >= _MAX_PAGES or len(listed.jobs) >= _MAX_JOBS:
                listed.is_complete = False
                break
    if len(listed.jobs) >= _MAX_JOBS:
        sink(Note(f"only {len(listed.jobs)} runs of experiment {experiment} are listed"))
    elif not listed.is_complete:
        sink(
            Note(
                f"runs of other tools were searched for among the newest {checked} jobs of the workspace; Studio shows "
                "older ones"
            )
        )
    return listed


def _is_of(job: Mapping[str, Any], experiment: str) -> bool:
    """Made by amlctl, or a command job of another tool."""
    properties = job.get("properties") or {}
    is_shown = properties.get("jobType") == "Command" or EXPERIMENT_PROPERTY in (properties.get("properties") or {})
    return is_shown and properties.get("experimentName") == experiment


def listed_records(
    connection: Connection,
    own: Mapping[str, RunRecord],
    listed: ListedJobs,
    looks: Looks,
    is_settled: Callable[[Look], bool],
) -> dict[str, RunRecord | None]:
    """Records of this machine, updated from the list, and from a look if the list shows an end. None if the run has to
    be read."""
    here = [run for run in listed.jobs if run in own]
    if here:
        connection.facts  # noqa: B018  # once, before threads ask for them

    def updated(run: str) -> RunRecord | None:
        return _listed_record(own[run], listed.jobs[run], looks, is_settled)

    return dict(zip(here, in_parallel(updated, here, _LOOKS_AT_A_TIME), strict=True))


def _listed_record(
    own: RunRecord, job: Mapping[str, Any], looks: Looks, is_settled: Callable[[Look], bool]
) -> RunRecord | None:
    if has_ended(own):
        return own
    own = reopened(own)
    status = str((job.get("properties") or {}).get("status") or "")
    if not is_final(status):
        return watched(own, {"status": status}, utc_now())
    # The list has neither times nor a reason, so a run that has ended is looked at once.
    look = looks.at(own.run)
    is_plain = status != RunState.FAILED and not own.spec.produces
    if look is None or look.status != status or is_settled(look) or not is_plain:
        return None
    from amlctl.workspaces.azureml.ending import ended

    # Its log may still arrive, which is not awaited here: a list may have many such runs.
    return ended(watched(own, look.document, utc_now()), look.document, None, utc_now())
