"""`Workspace` on this machine: every run in a process of its own, in slots, with a log and a record on disk."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from amlctl.config.compute_file import read_compute
from amlctl.core.compute import LocalTarget
from amlctl.core.environment import EnvironmentSpec
from amlctl.core.events import EventSink
from amlctl.core.run import RunRecord, RunState
from amlctl.core.settings import WorkspaceSettings
from amlctl.errors import Conflict, NotFound
from amlctl.localfs.project import Project
from amlctl.runtime.run_keys import log_key, run_prefix
from amlctl.stores.contract import Store
from amlctl.workspaces.contract import EnvironmentInfo, LogChunk
from amlctl.workspaces.local import detach, records
from amlctl.workspaces.local.ending import Clock
from amlctl.workspaces.local.environments import FOLDER_VARIABLE, Environments
from amlctl.workspaces.local.node_store import node_store_folder
from amlctl.workspaces.local.places import RunPlaces, queue_folder
from amlctl.workspaces.local.recovery import is_abandoned, recover
from amlctl.workspaces.local.slots import SlotQueue
from amlctl.workspaces.local.supervisor_settings import SUPERVISOR_MODULE, SupervisorSettings

LOG_NAME = "std_log.txt"
_LOG_PART_BYTES = 1 << 20
_LOOK_S = 0.05
_ABANDONED_LOOK_S = 1.0
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class LocalTiming:
    """Seconds: between two saves of outputs and log; from SIGTERM to SIGKILL; between two looks at the queue,
    at a request to cancel and at the timeout."""

    save_interval_s: float = 15.0
    grace_s: float = 30.0
    poll_s: float = 0.1


def utc_now() -> datetime:
    return datetime.now(UTC)


class LocalWorkspace:
    """Not thread-safe; any number of processes may use the same project."""

    def __init__(
        self,
        project: Project,
        settings: WorkspaceSettings,
        store: Store,
        clock: Clock = utc_now,
        *,
        variables: Mapping[str, str] | None = None,
        timing: LocalTiming = LocalTiming(),
    ) -> None:
        """`variables` are what a run inherits (default: those of this process)."""
        self._project = project
        self._name = settings.name
        self._store = store
        self._clock = clock
        self._variables = dict(os.environ if variables is None else variables)
        self._timing = timing
        folder = self._variables.get(FOLDER_VARIABLE)
        self._environments_dir = Path(folder).absolute() if folder else project.state_dir / "environments"
        self._environments = Environments(self._environments_dir, self._variables)
        self._seen: dict[str, int] = {}

    @property
    def name(self) -> str:
        return self._name

    def environment(self, spec: EnvironmentSpec) -> EnvironmentInfo:
        return self._environments.find(spec)

    def prepare_environment(self, spec: EnvironmentSpec, sink: EventSink) -> EnvironmentInfo:
        self._project.ensure_state_dir()
        return self._environments.prepare(spec, sink)

    def start(self, record: RunRecord, secrets: Mapping[str, str]) -> None:
        """See the contract. Raises SettingsError (store or compute target cannot be used), RightsError."""
        store_folder = node_store_folder(self._store)
        slots = self._slots(record.compute)
        places = self._places(record.run)
        self._project.ensure_state_dir()
        try:
            places.folder.mkdir(parents=True)
        except FileExistsError:
            return
        # Locked before anybody can know of the run; the supervisor inherits the lock, so there is no moment
        # at which nobody looks after it.
        lock = os.open(places.lock, os.O_RDWR | os.O_CREAT, 0o644)
        descriptors = [lock]
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            places.log.touch()
            record = RunRecord.from_json(record.to_json())
            record.reached(RunState.QUEUED, self._clock())
            trouble = records.save(places, self._store, record)
            if trouble is not None:
                raise trouble
            ticket = SlotQueue(queue_folder(self._project.state_dir, record.compute)).take_ticket(record.run)
            descriptors.append(ticket.descriptor)
            settings = SupervisorSettings(
                state_dir=str(self._project.state_dir),
                store=str(store_folder),
                environments_dir=str(self._environments_dir),
                slots=slots,
                ticket=str(ticket.path),
                ticket_descriptor=ticket.descriptor,
                save_interval_s=self._timing.save_interval_s,
                grace_s=self._timing.grace_s,
                poll_s=self._timing.poll_s,
            )
            self._spawn(places, settings, {**self._variables, **secrets}, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def read(self, run: str) -> RunRecord:
        places = self._places(run)
        self._seen[run] = _mtime_ns(places.record)
        record = recover(places, self._store, self._clock)
        return record if record is not None else records.load_stored(self._store, run)

    def list_runs(self) -> list[RunRecord]:
        found = []
        for record in records.load_all(self._project.state_dir):
            if record.workspace == self._name:
                found.append(record if record.is_final else self.read(record.run))
        return sorted(found, key=lambda record: (record.created_at, record.run), reverse=True)

    def log_names(self, run: str) -> Sequence[str]:
        self.read(run)
        return [LOG_NAME]

    def read_log(self, run: str, cursor: int, *, name: str | None = None) -> LogChunk:
        # The record first: when it is final, the log has been written to its end.
        record = self.read(run)
        if name not in (None, LOG_NAME):
            raise NotFound(f"run {run} has no log {name!r}", hint=f"it has: {LOG_NAME}")
        try:
            with self._places(run).log.open("rb") as file:
                file.seek(cursor)
                data = file.read(_LOG_PART_BYTES)
                is_end = file.tell() >= os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            data, is_end = self._stored_log(run, cursor), True
        return LogChunk(data, cursor + len(data), is_end and record.is_final)

    def wait(self, run: str, cursor: int, timeout_s: float) -> None:
        """See the contract. What changed between the last `read` and this call counts as well."""
        places = self._places(run)
        seen = self._seen.get(run, _mtime_ns(places.record))
        now = time.monotonic()
        deadline, next_look = now + timeout_s, now + _ABANDONED_LOOK_S
        while now < deadline:
            if _mtime_ns(places.record) != seen or _size(places.log) > cursor:
                return
            if now >= next_look:
                next_look = now + _ABANDONED_LOOK_S
                if is_abandoned(places):
                    return
            time.sleep(min(_LOOK_S, deadline - now))
            now = time.monotonic()

    def cancel(self, run: str) -> None:
        record = self.read(run)
        if record.is_final:
            return
        places = self._places(run)
        try:
            places.folder.mkdir(parents=True)
        except FileExistsError:
            places.cancel_request.touch()
            return
        # It was recorded but never handed over, and from now on it cannot be any more.
        record.reached(RunState.CANCELED, self._clock())
        record.error = {"kind": "canceled", "message": "canceled before it was started"}
        trouble = records.save(places, self._store, record)
        if trouble is not None:
            raise trouble

    def delete(self, run: str) -> None:
        record = self.read(run)
        if not record.is_final:
            raise Conflict(f"run {run} is {record.status}", hint=f"amlctl cancel {run}")
        places = self._places(run)
        for entry in list(self._store.list(run_prefix(run))):
            self._store.delete(entry.key)
        shutil.rmtree(places.folder, ignore_errors=True)
        shutil.rmtree(places.record_dir, ignore_errors=True)
        self._seen.pop(run, None)

    def _places(self, run: str) -> RunPlaces:
        if _RUN_ID.fullmatch(run) is None:
            raise NotFound(f"no run {run!r}", hint="amlctl runs")
        return RunPlaces(self._project.state_dir, run)

    def _slots(self, compute: str) -> int:
        file = self._project.compute_dir / f"{compute}.yaml"
        target = read_compute(file) if file.is_file() else None
        return target.slots if isinstance(target, LocalTarget) else 1

    def _spawn(
        self, places: RunPlaces, settings: SupervisorSettings, variables: Mapping[str, str], descriptors: Sequence[int]
    ) -> None:
        detached = [sys.executable, "-I", "-S", str(detach.__file__), sys.executable]
        command = [*detached, "-m", SUPERVISOR_MODULE, places.run, settings.to_text()]
        with places.log.open("ab") as log:
            subprocess.run(
                command,
                cwd=places.folder,
                env=dict(variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=tuple(descriptors),
                start_new_session=True,
                check=True,
            )

    def _stored_log(self, run: str, cursor: int) -> bytes:
        try:
            return self._store.get(log_key(run), start=cursor, length=_LOG_PART_BYTES)
        except NotFound:
            return b""


def _mtime_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
