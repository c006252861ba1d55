"""`Workspace` on this machine: every run in a process of its own, in slots, with a log and a record on disk."""

from __future__ import annotations

import contextlib
import copy
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from amlctl.core.compute import ClusterTarget
from amlctl.core.environment import EnvironmentSpec
from amlctl.core.events import EventSink, Usage, Warned, null_sink
from amlctl.core.job import log_names
from amlctl.core.message import Command
from amlctl.core.run import RunRecord
from amlctl.core.run_id import is_record_run_id, newest_first
from amlctl.core.run_state import RunState, is_final
from amlctl.core.settings import CacheSettings, WorkspaceSettings
from amlctl.core.store_keys import log_key, run_prefix
from amlctl.errors import AmlctlError, Conflict, IntegrityError, NotFound
from amlctl.localfs.atomic import kept_json, remove_at_once
from amlctl.localfs.folders import touch_private
from amlctl.localfs.machine import read_identity, utc_now
from amlctl.localfs.project import Project
from amlctl.localfs.regular_file import open_regular
from amlctl.localfs.tool_variables import with_absolute_paths
from amlctl.runs.known import read_order
from amlctl.runs.records import load_record, local_records, save_both
from amlctl.stores.contract import Store
from amlctl.workspaces.contract import Check, EnvironmentInfo, LogChunk
from amlctl.workspaces.local.disk import keep_within
from amlctl.workspaces.local.environments import Environments
from amlctl.workspaces.local.recovery import (
    QUIET_DAYS,
    is_abandoned,
    is_elsewhere,
    is_quiet,
    recover,
    refuse_cancel,
    wait_for_supervisor,
)
from amlctl.workspaces.local.run_paths import (
    RunPaths,
    machine_error,
    make_folder,
    make_reserve,
    paths_of,
    release_reserve,
)
from amlctl.workspaces.local.starting import DEFAULT_TIMING, LocalTiming, Starter, credential_in
from amlctl.workspaces.local.sweeps import Sweep

if TYPE_CHECKING:
    from amlctl.runtime.usage import UsageMeter

_LOG_PART_BYTES = 1 << 20
_POLL_S = 0.02
_ABANDONED_POLL_S = 1.0


class LocalWorkspace:
    """Not thread-safe; any number of processes may use the same project."""

    shows_variables = False
    shows_usage = True
    service = None

    def __init__(
        self,
        project: Project,
        settings: WorkspaceSettings,
        store: Store,
        *,
        environments_dir: Path | None = None,
        variables: Mapping[str, str] | None = None,
        timing: LocalTiming = DEFAULT_TIMING,
        sink: EventSink = null_sink,
        cache_limit: int = CacheSettings().limit,
    ) -> None:
        """`variables`: what a run inherits (default: this process's). `sink` gets warnings of damaged records.
        Without `environments_dir` environments are the project's own. `cache_limit`: bytes that copies of a remote
        store may take."""
        self._project = project
        self._name = settings.name
        self._store = store
        inherited = os.environ if variables is None else variables
        self._variables = {**with_absolute_paths(inherited, os.getcwd()), **credential_in(settings.store)}
        self._timing = timing
        self._sink = sink
        self._environments = Environments(environments_dir or project.state_dir / "environments", self._variables)
        self._cache_limit = cache_limit
        self._starter = Starter(project, store, self._environments.folder, self._variables, timing)
        self._seen: dict[str, int] = {}
        self._families: dict[str, list[str]] = {}
        self._meters: dict[str, UsageMeter] = {}

    @property
    def name(self) -> str:
        return self._name

    def environment(self, spec: EnvironmentSpec) -> EnvironmentInfo:
        found = self._environments.find(spec.id)
        return found if found.is_ready else replace(found, tool=self._environments.tool_for(spec))

    def check_environment(self, spec: EnvironmentSpec, sink: EventSink) -> None:
        if spec.interpreter or not self._environments.find(spec.id).is_ready:
            from amlctl.workspaces.local.packages import Packages  # here, since it loads version rules

            Packages(self._environments, spec).check(sink)

    def python(self, spec: EnvironmentSpec) -> tuple[int, int] | None:
        return self._environments.python(spec)

    def has_module(self, spec: EnvironmentSpec, module: str) -> bool | None:
        return self._environments.has_module(spec, module)

    def prepare_environment(self, spec: EnvironmentSpec, sink: EventSink) -> EnvironmentInfo:
        from amlctl.workspaces.local.environment_making import prepare_environment  # here, since it loads version rules

        self._project.ensure_state_dir()
        return prepare_environment(self._environments, spec, sink)

    def expect_start(self) -> None:
        pass

    def start_sweep(self, parent: RunRecord, children: Sequence[RunRecord], secrets: Mapping[str, str]) -> None:
        """See the contract. Raises as `start` does."""
        self._project.ensure_state_dir()
        lanes = parent.spec.sweep.get("parallel") or self._starter.target(parent.spec.compute).slots
        try:
            self._sweep(parent.run).start(
                copy.deepcopy(parent), children, lanes, lambda child: self.start(child, secrets, slots=lanes)
            )
        except OSError as error:
            raise machine_error(self._paths(parent.run), error) from error

    def start_next(self, record: RunRecord) -> None:
        """After a run of a sweep, called by its supervisor: start the next one, with the same variables."""
        with contextlib.suppress(NotFound):  # the sweep was deleted
            parent = self.read(str(record.spec.parent))
            lanes = parent.spec.sweep.get("parallel") or self._starter.target(parent.spec.compute).slots
            secrets = {name: self._variables[name] for name, value in record.spec.variables.items() if value is None}
            self._sweep(parent.run).start_next(parent, lambda child: self.start(child, secrets, slots=lanes))

    def start(self, record: RunRecord, secrets: Mapping[str, str], *, slots: int | None = None) -> None:
        """See the contract. `slots`: instead of those of its target. Raises SettingsError (store or compute target
        cannot be used), RightsError."""
        paths = self._paths(record.run)
        self._project.ensure_state_dir()
        if self._store.folder is None:
            with contextlib.suppress(AmlctlError, OSError):  # a full cache does not stop a run
                keep_within(self._project.state_dir, self._cache_limit, starting=record.run)
        try:
            lock = make_folder(paths, paths.lock)  # which the supervisor inherits
        except OSError as error:
            raise machine_error(paths, error) from error
        if lock is None:
            return
        record = copy.deepcopy(record)
        try:
            touch_private(paths.log)
            make_reserve(paths)
            self._starter.start(paths, record, secrets, lock, slots)
        except AmlctlError as error:
            self._not_started(paths, record, error)
            raise
        except OSError as error:
            failure = machine_error(paths, error)
            self._not_started(paths, record, failure)
            raise failure from error
        finally:
            os.close(lock)

    def _not_started(self, paths: RunPaths, record: RunRecord, error: AmlctlError) -> None:
        release_reserve(paths)
        record.failed(error.kind, error.message, utc_now())
        with contextlib.suppress(OSError):  # the next reader finds the lock free
            save_both(paths.state_dir, self._store, record)

    def read(self, run: str) -> RunRecord:
        paths = self._paths(run)
        self._seen[run] = _mtime_ns(paths.record)
        record = recover(paths, self._store, self._sink, workspace=self._name)
        if record is not None and record.spec.workspace != self._name:
            hint = Command("runs", "show", run, workspace=record.spec.workspace)
            raise NotFound(f"run {run} belongs to the workspace {record.spec.workspace}", hint=hint)
        if record is None:
            record = load_record(self._store, run)  # of a run that another clone of the project has made
            if record is not None and not record.is_final:
                if self._is_left(paths):
                    record.status = RunState.NOT_RESPONDING
                    record.waits_for = f"nothing of it has changed for {QUIET_DAYS} days"
                elif record.is_overdue(utc_now()) and not record.spec.parent and not is_elsewhere(paths):
                    record.failed("lost", "it was recorded, but never started: its command was ended", utc_now())
                    with contextlib.suppress(AmlctlError, OSError):  # it is shown all the same
                        if not self._record_unstarted(paths, record):
                            return self.read(run)  # it is being started after all
        if record is None:
            raise NotFound(f"Run {run!r} not found", hint=Command("runs"))
        if record.spec.sweep and not record.is_final:
            record = self._sweep(run).present(record)
            self._families[run] = [one["run"] for one in record.children if not is_final(one["status"])]
            self._seen[run] = self._changed_ns(run)
        if not record.is_final and paths.cancel_request.exists():
            record.status = RunState.CANCEL_REQUESTED  # the supervisor is about to notice
        return record

    def list_runs(self) -> list[RunRecord]:
        damaged: list[str] = []
        found = [
            record
            for record in local_records(self._project.state_dir, on_damaged=damaged.append)
            if record.spec.workspace == self._name
        ]
        for run in damaged:
            try:
                found.append(self.read(run))
            except NotFound:  # it is one of another workspace
                continue
            except AmlctlError as error:
                self._sink(Warned(f"{error.message}; not listed"))
        listed = [self.read(record.run) if record.may_change else record for record in found]
        return newest_first(listed, read_order(self._project.state_dir)) if damaged else listed

    def log_names(self, run: str) -> Sequence[str]:
        return log_names(self.read(run).spec.process_group.world_size)

    def read_log(self, run: str, cursor: int, *, name: str | None = None) -> LogChunk:
        # The record first: when it is final, the log has been written to its end.
        record = self.read(run)
        names = log_names(record.spec.process_group.world_size)
        rank = _rank_of(run, names, name)
        try:
            with open_regular(self._paths(run).log_of(rank)) as file:
                file.seek(cursor)
                data = file.read(_LOG_PART_BYTES)
                is_end = file.tell() >= os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            data = self._stored_log(run, names[rank], cursor)
            is_end = len(data) < _LOG_PART_BYTES
        return LogChunk(data, cursor + len(data), is_end and record.is_final)

    def log_end(self, run: str, *, name: str | None = None) -> int | None:
        names = self.log_names(run)
        rank = _rank_of(run, names, name)
        try:
            return self._paths(run).log_of(rank).stat().st_size
        except FileNotFoundError:
            stored = self._store.info(log_key(run, names[rank]))
            return 0 if stored is None else stored.size_bytes

    def wait(self, run: str, cursor: int, timeout_s: float, *, name: str | None = None) -> None:
        """See the contract. What changed between the last `read` and this call counts as well."""
        paths = self._paths(run)
        seen = self._seen.get(run, self._changed_ns(run))
        log = paths.log if name is None else paths.log_of(_rank_of(run, self.log_names(run), name))
        now = time.monotonic()
        deadline, next_poll = now + timeout_s, now + _ABANDONED_POLL_S
        while now < deadline:
            if self._changed_ns(run) != seen or _size(log) > cursor:
                return
            if now >= next_poll:
                next_poll = now + _ABANDONED_POLL_S
                if any(is_abandoned(self._paths(one)) for one in self._families.get(run, [run])):
                    return
            time.sleep(min(_POLL_S, deadline - now))
            now = time.monotonic()

    def usage(self, run: str) -> Usage:
        from amlctl.runtime.usage import UsageMeter  # here, since only a terminal shows it

        supervisor = read_identity(kept_json(self._paths(run).supervisor))
        if supervisor is None:
            return Usage()
        return self._meters.setdefault(run, UsageMeter(supervisor.process)).look()

    def cancel(self, run: str) -> None:
        record = self.read(run)
        paths = self._paths(run)
        if record.is_final:
            return
        if is_elsewhere(paths):
            raise refuse_cancel(record)
        if record.spec.sweep:
            self._sweep(run).cancel(record)
            return
        record.reached(RunState.CANCELED, utc_now())
        record.error = {"kind": "canceled", "message": "canceled before it was started"}
        if not self._record_unstarted(paths, record):
            touch_private(paths.cancel_request)

    def _record_unstarted(self, paths: RunPaths, record: RunRecord) -> bool:
        """The end of a run that was recorded but never handed over: once its folder exists, it cannot be. False where
        it exists already. Raises what saving raises."""
        lock = make_folder(paths, paths.lock)
        if lock is None:
            return False
        try:
            if (failure := save_both(paths.state_dir, self._store, record)) is not None:
                raise failure
        finally:
            os.close(lock)
        return True

    def delete(self, run: str) -> Sequence[str]:
        paths = self._paths(run)
        try:
            record = self.read(run)
        except IntegrityError:
            # How it ended is unknown; it only has to be certain that it is not running.
            if (is_elsewhere(paths) and not self._is_left(paths)) or (paths.lock.exists() and not is_abandoned(paths)):
                raise
        else:
            if not record.is_final and record.status != RunState.NOT_RESPONDING:
                raise Conflict(f"run {run} is {record.status}", hint=Command("cancel", run))
        wait_for_supervisor(paths)
        for entry in list(self._store.list(run_prefix(run))):
            self._store.delete(entry.key)
        remove_at_once(paths.folder)
        remove_at_once(paths.record_dir)
        self._seen.pop(run, None)
        return ()

    def checks(self, target: ClusterTarget | None) -> Iterator[Check]:
        """Nothing of its own: tools, folders and the store are checked for every workspace."""
        return iter(())

    def _is_left(self, paths: RunPaths) -> bool:
        """Whether the project that has started it seems to be lost."""
        return is_elsewhere(paths) and is_quiet(self._store, paths.run, utc_now())

    def _paths(self, run: str) -> RunPaths:
        if not is_record_run_id(run):
            raise NotFound(f"Run {run!r} not found", hint=Command("runs"))
        return paths_of(self._project.state_dir, run)

    def _sweep(self, run: str) -> Sweep:
        return Sweep(self._paths(run), self._store, self.read, self.cancel)

    def _changed_ns(self, run: str) -> int:
        """When its record last changed, or one of its active runs of a sweep."""
        return max(_mtime_ns(self._paths(one).record) for one in (run, *self._families.get(run, ())))

    def _stored_log(self, run: str, name: str, cursor: int) -> bytes:
        try:
            return self._store.get(log_key(run, name), start=cursor, length=_LOG_PART_BYTES)
        except NotFound:
            return b""


def _rank_of(run: str, names: Sequence[str], name: str | None) -> int:
    """The rank whose log it is. Raises NotFound."""
    if name is None:
        return 0
    if name not in names:
        raise NotFound(f"run {run} has no log {name!r}", hint=f"it has: {', '.join(names)}")
    return names.index(name)


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
