"""Records of runs on this machine, and runs that Azure ML does not find: under way, lost, or unknown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from amlctl.core.events import EventSink, Warned
from amlctl.core.message import Command, Message
from amlctl.core.run import RunRecord
from amlctl.core.run_schema import wrong_field
from amlctl.core.run_state import RunState, is_final
from amlctl.core.store_keys import attempt_key
from amlctl.errors import IntegrityError, NotFound, ServiceUnavailable
from amlctl.localfs.folders import remove_tree
from amlctl.localfs.project import Project
from amlctl.runs.records import load_local_record, local_records, read_order, save_local_record
from amlctl.stores.contract import Store
from amlctl.workspaces.azureml.job import time_of
from amlctl.workspaces.azureml.looks import Look

_STARTING_S = 600.0
"""A run that was recorded this long ago, and that Azure ML does not have, is lost."""


class Records:
    """Of the runs of one workspace. `sink` gets a warning for a damaged one, which counts as missing."""

    def __init__(self, project: Project, workspace: str, sink: EventSink) -> None:
        self._project = project
        self._workspace = workspace
        self._sink = sink
        self._warned: set[str] = set()

    def load(self, run: str) -> RunRecord | None:
        try:
            record = load_local_record(self._project.state_dir, run)
        except IntegrityError as error:
            if run not in self._warned:
                self._warned.add(run)
                self._sink(Warned(f"{error.message}; reading it from the store"))
            return None
        return record if record is not None and record.spec.workspace == self._workspace else None

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

    def forget(self, run: str) -> None:
        remove_tree(self._project.state_dir / "runs" / run, ignore_errors=True)


class MissingRuns:
    """Runs that Azure ML does not find. That alone is not an end. `save` writes a record here and to the store."""

    def __init__(
        self,
        workspace: str,
        store: Callable[[], Store],
        save: Callable[[RunRecord], None],
        clock: Callable[[], datetime],
    ) -> None:
        self._workspace = workspace
        self._store = store
        self._save = save
        self._clock = clock

    def record(self, run: str, known: RunRecord | None) -> RunRecord:
        """The record to show. Raises NotFound without one."""
        if known is None:
            raise NotFound(f"Run {run!r} not found", hint=Command("runs"))
        if known.is_final or known.spec.workspace != self._workspace:
            return known
        if self._has_existed(known):
            why = "Azure ML does not find this run; it may have been deleted there"
            return replace(known, status=RunState.NOT_RESPONDING, waits_for=why)
        created = time_of(known.created_at)
        if created is not None and (self._clock() - created).total_seconds() > _STARTING_S:
            known.failed("lost", "it was recorded, but did not reach Azure ML", self._clock())
            self._save(known)
        return known

    def cancel(self, record: RunRecord, look: Look | None) -> None:
        """Azure ML found no job to cancel. Only a run that never existed there counts as canceled.

        Raises ServiceUnavailable.
        """
        if look is not None and is_final(look.status):
            return
        if look is not None or record.spec.workspace != self._workspace or self._has_existed(record):
            state = f"; run history says it is {look.status}" if look is not None else ""
            raise ServiceUnavailable(
                f"run {record.run} was not canceled: Azure ML does not find the job{state}",
                hint=Message("try again, or cancel it in Studio: ", Command("runs", "open", record.run)),
            )
        record.error = {"kind": "canceled", "message": "canceled before it was started"}
        record.reached(RunState.CANCELED, self._clock())
        self._save(record)

    def _has_existed(self, record: RunRecord) -> bool:
        """Whether Azure ML is known to have had the run, here or on the machine that submitted it."""
        if record.studio_url is not None or record.status != RunState.NOT_STARTED:
            return True
        return self._store().info(attempt_key(record.run)) is not None


def has_ended(record: RunRecord) -> bool:
    """Whether Azure ML has reported the end, or refused the start."""
    return record.is_final and not _is_presumed(record)


def without_presumed_end(record: RunRecord) -> RunRecord:
    """For a run that Azure ML turns out to have: an end that was concluded from its absence is void."""
    if not _is_presumed(record):
        return record
    times = {state: time for state, time in record.times.items() if state != record.status}
    return replace(record, status=RunState.NOT_STARTED, times=times, error=None)


def _is_presumed(record: RunRecord) -> bool:
    """Whether the end was concluded from the job's absence: it did not arrive, or was canceled before it could."""
    kind = (record.error or {}).get("kind")
    return record.is_final and record.studio_url is None and kind in ("lost", "canceled")
