"""`Workspace` on Azure ML: runs are command jobs, known here by a record and a look at run history."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from amlctl.azure_access.azure_ai_ml import begin_import
from amlctl.core.compute import ClusterTarget
from amlctl.core.environment import DEFAULT_IMAGE, EnvironmentSpec
from amlctl.core.events import EventSink, Note, Usage, null_sink
from amlctl.core.message import Command
from amlctl.core.run import RunRecord, RunSpec
from amlctl.core.run_id import is_record_run_id, newest_first
from amlctl.core.run_state import RunState, is_final
from amlctl.core.sweep import Sweep
from amlctl.errors import AmlctlError, Conflict, NotFound, Unconfirmed
from amlctl.localfs.machine import utc_now
from amlctl.stores.contract import Store
from amlctl.workspaces.azureml.compute_document import Queueing
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.azureml.job import record_of_job, record_of_run, time_of, watched
from amlctl.workspaces.azureml.limits import check_experiment, check_limits
from amlctl.workspaces.azureml.logs import Logs, names_of
from amlctl.workspaces.azureml.looks import DEFAULT_TIMING, AzureMLTiming, Look, Looks, Services, Tracked
from amlctl.workspaces.azureml.records import (
    Records,
    cancel_missing,
    has_ended,
    list_jobs,
    listed_records,
    missing_record,
    reopened,
)
from amlctl.workspaces.azureml.sweeps import ended_sweep, is_own, save_trials, with_children
from amlctl.workspaces.contract import (
    Check,
    ComputeTargets,
    EnvironmentInfo,
    LogChunk,
    ProbeSteps,
    RegisteredAssets,
    RunFile,
)

if TYPE_CHECKING:
    from amlctl.workspaces.azureml.artifacts import Artifacts
    from amlctl.workspaces.azureml.starting import AcceptedJob

_CANCEL_VERSION = "2023-04-01-preview"


class AzureMLWorkspace:
    """Not thread-safe; any number of processes may use the same project."""

    shows_variables = True
    shows_usage = False

    def __init__(
        self,
        connection: Connection,
        store: Callable[[], Store],
        *,
        experiment: str,
        open_store: Callable[[str], Store],
        timing: AzureMLTiming = DEFAULT_TIMING,
        sink: EventSink = null_sink,
    ) -> None:
        """`store` opens the one that runs use, `open_store` another; watching an active run needs neither.

        `experiment` is the one whose runs are listed, of any user.
        """
        self._connection = connection
        self._experiment = experiment
        self._open_store = open_store
        self._timing = timing
        self._sink = sink
        self._installed: Mapping[str, str] | None = None
        self._records = Records(connection.project, self.name, store, sink)
        self._looks = Looks(connection)
        self._queueing = Queueing(connection, timing)
        self._services = Services(connection)
        self.tracked = Tracked(connection)
        self._logs = Logs(connection.exchange, self._looks, timing)
        self._changed_at: dict[str, float] = {}

    @property
    def name(self) -> str:
        return self._connection.address.name

    @property
    def service(self) -> AzureMLWorkspace:
        return self

    @property
    def computes(self) -> ComputeTargets:
        from amlctl.workspaces.azureml.compute import Computes

        return Computes(self._connection, poll_s=self._timing.first_poll_s)

    @property
    def assets(self) -> RegisteredAssets:
        from amlctl.workspaces.azureml.assets import Assets

        return Assets(self._connection)

    def check_experiment(self, name: str) -> None:
        check_experiment(name)

    def check_limits(self, spec: RunSpec, sweep: Sweep | None, sink: EventSink) -> None:
        check_limits(spec, sweep, sink)

    def checks(self, target: ClusterTarget | None) -> Iterator[Check]:
        from amlctl.workspaces.azureml.checks import checks

        return checks(self._connection, target)

    def probe(self, steps: ProbeSteps, target: str) -> None:
        from amlctl.workspaces.azureml.probe import WorkspaceProbe

        WorkspaceProbe(self._connection, self._records.store, self, steps).run(target)

    def environment(self, spec: EnvironmentSpec) -> EnvironmentInfo:
        from amlctl.workspaces.azureml.assets import find_environment  # loads YAML, which watching a run does not need

        return find_environment(self._connection, spec)

    def check_environment(self, spec: EnvironmentSpec, sink: EventSink) -> None:
        from amlctl.workspaces.azureml.assets import check_environment

        check_environment(spec)

    def python(self, spec: EnvironmentSpec) -> tuple[int, int] | None:
        from amlctl.config.environment_file import pinned_python

        return pinned_python(spec)

    def has_module(self, spec: EnvironmentSpec, module: str) -> bool | None:
        """Only an image is not looked into."""
        if spec.is_current:
            from amlctl.workspaces.azureml.assets import installed_in, sends_module

            if self._installed is None:
                self._installed = installed_in(spec.interpreter)[1]
            return sends_module(self._installed, spec, module)
        is_plain = spec.image == DEFAULT_IMAGE and not (spec.is_bare or spec.registered or spec.build)
        return False if is_plain and not (spec.conda or spec.pip) else None

    def prepare_environment(self, spec: EnvironmentSpec, sink: EventSink) -> EnvironmentInfo:
        from amlctl.workspaces.azureml.assets import ensure_environment

        info = ensure_environment(self._connection, spec)
        sink(Note(f"the image of environment {info.id} is built with the first run that needs it"))
        return info

    def expect_start(self) -> None:
        begin_import()

    def start_sweep(self, parent: RunRecord, children: Sequence[RunRecord], secrets: Mapping[str, str]) -> None:
        """See the contract. Raises as `start` does."""
        if not children:
            self._records.save_everywhere(ended_sweep(parent, utc_now()))
            return
        save_trials(self._records.store, parent, children)
        self.start(parent, secrets, children)

    def start(self, record: RunRecord, secrets: Mapping[str, str], trials: Sequence[RunRecord] = ()) -> None:
        """See the contract; `trials` are the runs of a sweep. Raises SettingsError (store), UsageError (refused)."""
        from amlctl.workspaces.azureml.starting import start_job

        connection, open_store = self._connection, self._open_store
        self._start(record, lambda: start_job(connection, self._records.store, open_store, record, secrets, trials))

    def hand_over(self, record: RunRecord, path: Path) -> None:
        """See the contract."""
        from amlctl.workspaces.azureml.starting import hand_over

        self._start(record, lambda: hand_over(self._connection, record, path))

    def _start(self, record: RunRecord, submit: Callable[[], AcceptedJob]) -> None:
        """Record the run, however that ends: its id is known already. Raises what `submit` raises."""
        _check(record.run)
        if self._records.load(record.run) is not None:
            return
        record = replace(record)
        try:
            job = submit()
        except Unconfirmed:
            self._records.save(record)  # Azure ML may have it; the next look shows that
            raise
        except AmlctlError as error:
            if isinstance(error, Conflict) and self._looks.at(record.run) is not None:
                self._records.save(record)  # another start of the same run came first
                return
            record.failed(error.kind, error.message, utc_now())
            self._records.save(record)
            raise
        self._accepted(record, job)

    def _accepted(self, record: RunRecord, job: AcceptedJob) -> None:
        page, tenant = job.studio_url, ""
        with suppress(AmlctlError):  # the run exists even if this fails
            tenant = self._connection.facts.tenant_id
        if page and tenant and "tid=" not in page:
            page += f"&tid={tenant}"
        self._records.save(replace(record, studio_url=page or self._studio_url(record.run)))
        if job.status and not is_final(job.status):
            self._looks.take(record.run, job.status)

    def read(self, run: str) -> RunRecord:
        _check(run)
        known = self._records.load(run)
        if known is not None and has_ended(known):
            return known
        look = self._looks.at(run, max_age_s=self._timing.fresh_s)
        if known is None and (look is None or is_own(self._records, look.document)):  # other tools use no store
            known = self._records.stored(run)
            if known is not None and has_ended(known):
                self._records.save(known)
                return known
        if look is None:
            return missing_record(self._connection, self._records, run, known)
        if look.is_archived and self._records.stored(run) is None:  # one archived in Studio has all its results
            raise NotFound(f"run {run} was deleted (it is archived in Azure ML)", hint=Command("runs"))
        if known is None:
            return self._foreign(run, look)
        known = reopened(known)
        if known.studio_url is None:
            known = replace(known, studio_url=self._studio_url(run))  # it was recorded before it existed
        record = with_children(self._connection, self._records, watched(known, look.document, utc_now()), look.status)
        if is_final(look.status):
            return self._finish(record, look)
        if record.spec.job_type is None:
            waits_for = self._queueing.reason(record, utc_now())
            record = replace(record, waits_for=waits_for, services=record.services or self._services.of(record))
        if record != known:
            self._records.save(record)
        return record

    def list_runs(self) -> list[RunRecord]:
        damaged: list[str] = []
        own = self._records.load_all(damaged.append)
        found: dict[str, RunRecord] = {}
        for run in damaged:
            with suppress(NotFound):  # it may belong to another workspace
                own[run] = self.read(run)
        listed = list_jobs(self._connection, self._experiment, own, self._sink)
        updated = listed_records(self._connection, own, listed, self._looks, self._is_settled)
        for run, job in listed.jobs.items():
            with suppress(NotFound):  # deleted since
                if run in own:
                    found[run] = updated[run] or self.read(run)
                else:
                    found[run] = replace(record_of_job(job, self.name), studio_url=self._studio_url(run))
        for run, record in own.items():
            never_arrived = record.studio_url is None
            if run not in found and (never_arrived or not listed.is_complete or not record.is_final):
                with suppress(NotFound):
                    found[run] = self.read(run)
        return newest_first(found.values(), self._records.order())

    def log_names(self, run: str) -> Sequence[str]:
        record, look = self._record_and_look(run)
        return names_of(record, {} if look is None else look.log_files)

    def read_log(self, run: str, cursor: int, *, name: str | None = None) -> LogChunk:
        record, look = self._seen(run)
        if look is None:
            if name is not None and name not in names_of(record, {}):
                raise NotFound(f"run {run} has no log {name!r}", hint="it has no logs yet")
            return LogChunk(b"", cursor, record.is_final)
        known = self._records.load(run)
        # If the final record is here, the log was read to its end before.
        is_settled = (known is not None and known.is_final) or self._is_settled(look)
        return self._logs.read(record, look, name, cursor, is_settled=is_settled)

    def log_end(self, run: str, *, name: str | None = None) -> int | None:
        record, look = self._seen(run)
        return None if look is None else self._logs.end(record, look, name)

    def wait(self, run: str, cursor: int, timeout_s: float, *, name: str | None = None) -> None:
        """See the contract. The log is read more often than the state, which costs the service more."""
        record, look = self._record_and_look(run)
        deadline = time.monotonic() + timeout_s
        while not record.is_final and time.monotonic() < deadline:
            quiet_s = time.monotonic() - self._changed_at.setdefault(run, time.monotonic())
            due = (look.at_s if look is not None else time.monotonic()) + self._timing.poll_s(quiet_s)
            next_look = max(0.0, min(due, deadline) - time.monotonic())
            time.sleep(min(next_look, self._timing.log_poll_s))
            if look is not None and self._logs.has_more(record, look, name, cursor):
                self._changed_at.pop(run, None)
                return
            if time.monotonic() < due:
                continue
            before, look = look, self._looks.at(run)
            if look is None or before is None or look.differs_from(before):
                self._changed_at.pop(run, None)
                return

    def usage(self, run: str) -> Usage:
        return Usage()

    def cancel(self, run: str) -> None:
        record = self.read(run)
        if record.is_final:
            return
        look = self._looks.last(run)
        is_ours = self._records.load(run) is not None or (look is not None and is_own(self._records, look.document))
        answer = self._connection.workspace("POST", f"/jobs/{run}/cancel", _CANCEL_VERSION, accept=(400, 404, 409))
        self._looks.forget(run)
        if answer.status == 404:
            cancel_missing(self._connection, self._records, record, self._looks.at(run))
        elif answer.status >= 400:
            if not self.read(run).is_final:
                raise self._connection.error(answer, "POST", self._connection.address.path + f"/jobs/{run}")
        elif is_ours:
            record.reached(RunState.CANCEL_REQUESTED, utc_now())
            self._records.save(record)

    def delete(self, run: str) -> Sequence[str]:
        record = self.read(run)
        if not record.is_final and self._looks.at(run) is not None:
            raise Conflict(f"run {run} is {record.status}", hint=Command("cancel", run))
        from amlctl.workspaces.azureml.artifacts import delete_run

        kept = delete_run(self._connection, self._records.store, record, self._artifacts(run))
        self._records.forget(run)
        self._looks.forget(run)
        return kept

    def run_files(self, run: str) -> Sequence[RunFile]:
        from amlctl.workspaces.azureml.artifacts import files_of_family

        record = self.read(run)
        return files_of_family(self._artifacts(run), record.children, self._artifacts)

    def _artifacts(self, run: str) -> Artifacts:
        from amlctl.workspaces.azureml.artifacts import Artifacts

        look = self._looks.last(run) or self._looks.at(run)
        container = str((look.document.get("dataContainerId") if look is not None else "") or f"dcid.{run}")
        return Artifacts(self._connection, self._open_store, run, container)

    def _seen(self, run: str) -> tuple[RunRecord, Look | None]:
        """Like `_record_and_look`, but a run that has ended is not finished: its last lines need not wait for that."""
        known = self._records.load(run)
        look = None if known is None or known.is_final else self._looks.at(run, max_age_s=self._timing.fresh_s)
        if known is None or look is None or look.is_archived:
            return self._record_and_look(run)
        return watched(known, look.document, utc_now()), look

    def _record_and_look(self, run: str) -> tuple[RunRecord, Look | None]:
        """The look is the one made for the record, if any."""
        record = self.read(run)
        look = self._looks.last(run)
        if look is None or (record.is_final and not is_final(look.status)):
            look = self._looks.at(run)
        return record, look

    def _foreign(self, run: str, look: Look) -> RunRecord:
        """A run without a record of amlctl; it is not saved."""
        record = watched(record_of_run(look.document, self.name), look.document, utc_now())
        if is_final(look.status):
            from amlctl.workspaces.azureml.ending import ended

            record = ended(record, look.document, None, utc_now())
        services = record.services or self._services.of(record, is_foreign=True)
        return replace(record, studio_url=self._studio_url(run), services=services)

    def _finish(self, record: RunRecord, look: Look) -> RunRecord:
        """Once per run: publish what it produced, copy its logs, and store the final record."""
        from amlctl.workspaces.azureml import ending  # most looks are at active runs

        stored = self._records.stored(record.run)
        if stored is not None and has_ended(stored) and stored.spec.workspace == self.name:
            self._records.save(stored)
            return stored
        record = ending.finished(record, look, self._records.store, self.tracked, self._sink)
        ending.copy_logs(self._records.store, record, look, self._logs, self._looks, self._is_settled)
        self._records.save_everywhere(record)
        return record

    def _is_settled(self, look: Look) -> bool:
        at = time_of(look.document.get("endTimeUtc"))
        return at is not None and (utc_now() - at).total_seconds() > self._timing.settled_after_s

    def _studio_url(self, run: str) -> str:
        tenant = self._connection.memory.value("facts", "tenant_id")
        return self._connection.address.studio_url(run, tenant or "")


def _check(run: str) -> None:
    if not is_record_run_id(run):
        raise NotFound(f"Run {run!r} not found", hint=Command("runs"))
