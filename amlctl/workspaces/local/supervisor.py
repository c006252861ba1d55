"""The supervisor of one run: a process that lives from the queue to the run's final record.

`python -m amlctl.workspaces.local.supervisor_program RUN SETTINGS`, started detached, as leader of a session, with the
lock of the run and its ticket in the queue already held through inherited descriptors. It alone writes the run's
record. A request to cancel (a file, or SIGTERM) ends the run in order; after a kill of the supervisor see `recovery`.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import traceback
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from amlctl.core.events import Event, Note, Retried, ToolSaid
from amlctl.core.hidden_values import ENVIRONMENT_PREFIX
from amlctl.core.job import Rank, log_names, rank_variables
from amlctl.core.message import ID_CELLS, Command, count
from amlctl.core.phases import CACHED, Phase
from amlctl.core.run import RunRecord
from amlctl.core.run_id import is_record_run_id
from amlctl.core.run_state import RunState
from amlctl.core.secret_names import is_login_variable
from amlctl.errors import AmlctlError, Interrupted, NotFound
from amlctl.localfs.atomic import write_json
from amlctl.localfs.machine import utc_now
from amlctl.runs.records import load_local_record, read_failure, save_both
from amlctl.runtime.process_tree import become_subreaper, end_descendants, identity_of, in_words, reap_adopted
from amlctl.runtime.script import Wakeups
from amlctl.workspaces.contract import EnvironmentInfo
from amlctl.workspaces.local.ending import Ending, ending_of_processes, failed, finish, outputs_saver
from amlctl.workspaces.local.environments import Environments, interpreter
from amlctl.workspaces.local.logs import PhaseNotes, saved_logs, say
from amlctl.workspaces.local.node_files import make_container, node_store, open_run_store
from amlctl.workspaces.local.rank_processes import (
    HOST,
    RankFailure,
    RankProcesses,
    VisibleGpus,
    free_ports,
    gpu_variables,
)
from amlctl.workspaces.local.recovery import recover
from amlctl.workspaces.local.run_paths import RunPaths, machine_error, queue_folder, release_reserve
from amlctl.workspaces.local.slots import Slot, SlotQueue, Ticket
from amlctl.workspaces.local.starting import SupervisorSettings

if TYPE_CHECKING:
    from amlctl.runs.tree_saver import TreeSaver
    from amlctl.workspaces.local.data_copies import DataCopy

SAVE_LIMIT_S = 600.0
"""Time for the runtime, beyond the script's grace, to save outputs after SIGTERM; then it is killed."""
RECORD_LIMIT_S = 600.0
"""How long writing the final record is retried on a full disk."""
_RETRY_S = 0.5
_LOG_MOMENT_S = 0.1


class Supervisor:
    """One run's; used once, from the main thread."""

    def __init__(self, settings: SupervisorSettings, run: str, record: RunRecord, wakeups: Wakeups) -> None:
        self._settings = settings
        self._paths = RunPaths(Path(settings.state_dir), run)
        self.store = open_run_store(settings.store, run, os.environ, self._tell)
        self._node = node_store(self.store, self._paths.state_dir)
        self._record = record
        self._wakeups = wakeups
        self._environments = Environments(Path(settings.environments_dir), os.environ)
        self._logs = saved_logs(self.store, self._paths, record)
        self._savers: dict[int, TreeSaver] = {}
        self._placed: list[DataCopy] = []
        self._held: IO[bytes] | None = None
        """The environment is not removed before this is closed, at the end of the process."""
        self._has_started = False
        self._notes = PhaseNotes(self._paths, record)
        self._gpus = VisibleGpus()
        self.is_stop_signalled = False

    def run(self) -> None:
        """From Queued to the final record."""
        try:
            ending = self._run()
        except Interrupted as error:
            ending = Ending(RunState.CANCELED, None, "canceled", error.message)
        except AmlctlError as error:
            ending = failed(error)
        except OSError as error:
            ending = failed(machine_error(self._paths, error))
        self._finish(ending)

    def _finish(self, ending: Ending) -> None:
        """Retry on a full disk, until a stop signal: a run without a final record counts as killed."""
        deadline = time.monotonic() + RECORD_LIMIT_S
        while True:
            try:
                finish(self._paths, self.store, self._record, ending, logs=self._logs, placed=self._placed)
                return
            except OSError:
                if time.monotonic() >= deadline or self.is_stop_signalled:
                    raise
            self._poll_signals(_RETRY_S)

    def _run(self) -> Ending:
        slot = self._wait_for_slot()
        self._held = self._environments.hold(self._record.spec.environment)
        environment = self._environments.find(self._record.spec.environment)
        self._notes.begin(Phase.ENVIRONMENT, CACHED if environment.is_ready else "")
        self._reached(RunState.PREPARING)
        if not environment.is_ready:
            try:
                self._notes.wait_for(f"making environment {self._record.spec.environment[:ID_CELLS]}")
                environment = self._prepared_environment()
                self._notes.end_tool()
                self._held = self._environments.hold(environment.id)
            except Interrupted:
                raise
            except AmlctlError as error:
                for line in error.details:
                    say(self._paths.log, line)
                return failed(error, kind="environment")
        if self._record.spec.manifests:
            self._notes.begin(Phase.DATA)
            self._notes.wait_for(f"placing {count(len(self._record.spec.manifests), 'dataset')}")
        runtime = Path()
        for node in range(self._record.spec.instances):
            runtime = make_container(
                self.store, self._record.spec.code, self._paths.container_of(node), self._paths.state_dir / "runtimes"
            )
            self._check_canceled()
        if self._record.spec.manifests or self.store.folder is None:
            self._place_data()
        processes = RankProcesses(self._paths)
        become_subreaper()
        try:
            self._start_processes(processes, environment, slot, runtime)
            return self._watch(processes)
        finally:
            # The script never outlives its run, whatever failed above.
            if not processes.are_gone():
                processes.kill()
                self._end_leftovers(processes)
            processes.end_cgroup()
            processes.finish_logs()

    def _prepared_environment(self) -> EnvironmentInfo:
        # Here, since most runs find theirs ready, and the reader of conda files takes a third of a supervisor's start.
        from amlctl.config.environment_file import recorded_environment
        from amlctl.workspaces.local.environment_making import prepare_environment

        spec, _ = recorded_environment(self._record, os.environ)
        return prepare_environment(self._environments, spec, self._tell, check=self._check_canceled)

    def _place_data(self) -> None:
        from amlctl.workspaces.local.placing import Placer  # here, since it comes with much that only data needs

        tell = partial(say, self._paths.log)
        self._placed = Placer(self.store, self._node, self._paths, self._record, tell, self._check_canceled).place()

    def _wait_for_slot(self) -> Slot:
        folder = queue_folder(self._paths.state_dir, self._record.spec.compute)
        queue = SlotQueue(folder)
        ticket = Ticket(Path(self._settings.ticket), self._settings.ticket_descriptor)
        try:
            while (slot := queue.try_slot(ticket, self._settings.slots, self._record.run)) is None:
                self._notes.wait_for(queue.reason(ticket, self._settings.slots))
                self._check_canceled(wait_s=self._settings.timing.poll_s)
        finally:
            queue.leave(ticket)
        if is_record_run_id(slot.previous_run) and slot.previous_run != self._record.run:
            # Processes of a run whose supervisor was killed may still use this slot.
            with contextlib.suppress(AmlctlError):  # its record is lost, which does not concern this run
                recover(RunPaths(self._paths.state_dir, slot.previous_run), self.store)
        return slot

    def _start_processes(
        self, processes: RankProcesses, environment: EnvironmentInfo, slot: Slot, runtime: Path
    ) -> None:
        """`runtime` is the folder of its modules."""
        settings, layout = self._settings, self._record.spec.process_group
        gpus = self._gpus.names(lambda: self._check_canceled(settings.timing.poll_s))
        if gpus is None:
            say(self._paths.log, "nvidia-smi does not answer: the GPUs are not shared out")
        shared = list(gpus or ())[: settings.gpus]
        ports = free_ports(layout.ports_wanted())
        for rank in layout.ranks:
            container = self._paths.container_of(rank.node)
            variables = self._for_script(self._environments.inherited_variables(environment))
            variables.update(
                gpu_variables(
                    shared,
                    slot.index,
                    settings.slots,
                    node=rank.node,
                    processes=layout.processes,
                )
            )
            variables.update(rank_variables(layout, rank, HOST, ports))
            paths = [str(runtime), variables.get("PYTHONPATH", "")]
            variables["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
            processes.start(rank, self._command(environment, rank, container), variables)

    def _for_script(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Without amlctl's own login, unless the run was given it, and without what was for its environment only."""
        return {
            name: value
            for name, value in variables.items()
            if not name.startswith(ENVIRONMENT_PREFIX)
            and (name in self._record.spec.variables or not is_login_variable(name, value))
        }

    def _command(self, environment: EnvironmentInfo, rank: Rank, container: Path) -> list[str]:
        timing = self._settings.timing
        return [
            *(str(interpreter(environment)), "-m", "amlctl.runtime"),
            *("--store", self._node.url, "--run", self._record.run, "--container", str(container)),
            *("--rank", str(rank.node), str(rank.local)),
            *("--save-interval", str(timing.save_interval_s), "--grace", str(timing.grace_s)),
        ]

    def _watch(self, processes: RankProcesses) -> Ending:
        """Until all processes have ended: by themselves, because one failed, at the timeout, or by a cancel."""
        timing = self._settings.timing
        started = time.monotonic()
        kill_at, next_save = float("inf"), started + timing.save_interval_s
        stopped: Ending | None = None
        failure: RankFailure | None = None
        while not processes.are_gone():
            self._poll_signals(timing.poll_s)
            reap_adopted(processes.own_pids)
            processes.keep_logs_alive()
            now = time.monotonic()
            if stopped is None:
                self._note_start(processes)
                stopped = self._why_stop(now - started)
                if stopped is not None:
                    processes.terminate()
                    kill_at = now + timing.grace_s + SAVE_LIMIT_S
                elif failure is None and (failure := processes.first_failure()) is not None:
                    self._log_failure(failure)
                    processes.terminate(but=failure)
                    kill_at = now + timing.grace_s + SAVE_LIMIT_S
            if now >= kill_at:
                processes.kill(but=None if stopped else failure)
            if now >= next_save:
                next_save = now + timing.save_interval_s
                self._save_log()
                self._save_outputs()
        self._end_leftovers(processes)
        if stopped is None:
            self._note_start(processes)
        self._notes.take_times(self._node)
        reason = None if stopped else read_failure(self._node, self._record.run)
        return ending_of_processes(self._record, processes, stopped, failure or processes.first_failure(), reason)

    def _why_stop(self, passed_s: float) -> Ending | None:
        """How the run is to end, where it is not to continue."""
        limit_s = self._record.spec.timeout_s
        if self._is_cancel_requested():
            self._try_to_reach(RunState.CANCEL_REQUESTED)
            return Ending(RunState.CANCELED, None, "canceled", "canceled while it was running")
        if not self._paths.supervisor.exists():
            # `rm -rf .amlctl`: nothing can be saved any more, and no command would find the processes.
            return Ending(RunState.FAILED, None, "folder", f"{self._paths.folder} was deleted or moved")
        if limit_s is not None and passed_s >= limit_s:
            return Ending(RunState.FAILED, None, "timeout", f"the run took longer than {limit_s:g} s")
        return None

    def _note_start(self, processes: RankProcesses) -> None:
        """The run is Running from the start of its script; until then its data is downloaded."""
        if not self._has_started and processes.has_started():
            self._has_started = True
            self._try_to_reach(RunState.RUNNING)

    def _log_failure(self, failure: RankFailure) -> None:
        """In the log that is shown by default: it explains why the other processes end."""
        names = log_names(self._record.spec.process_group.world_size)
        if len(names) > 1:
            rank = failure.rank.number
            what = f"rank {rank} failed; ending the other ranks"
            say(self._paths.log, f"{what}; its log: {Command('logs', self._record.run, '--file', names[rank])}")

    def _end_leftovers(self, processes: RankProcesses) -> None:
        """After a killed runtime: its script, with all that the script has started."""
        processes.wait_for_logs(_LOG_MOMENT_S)  # they mostly end at once; then no need to list all processes
        ended = end_descendants({*processes.pump_pids, *self._gpus.processes}, own_end_s=0.0)
        more = processes.end_cgroup()
        if ended:
            say(self._paths.log, f"ended {in_words(ended)}")
        elif not more:
            return
        for node in range(self._record.spec.instances):  # they may have written after the outputs were saved
            self._paths.node_folders(node).saved_marker.unlink(missing_ok=True)

    def _save_log(self) -> None:
        with contextlib.suppress(AmlctlError, OSError):  # reported at the end if it still fails
            for log in self._logs:
                log.save()

    def _save_outputs(self) -> None:
        """The runtime saves them into the node's folder; another store gets them from here."""
        if self.store.folder is not None:
            return
        for node in range(self._record.spec.instances):
            with contextlib.suppress(AmlctlError, OSError):  # reported at the end if it still fails
                if node not in self._savers:
                    self._savers[node] = outputs_saver(self._paths, self.store, node)
                self._savers[node].save()

    def _reached(self, state: RunState) -> None:
        self._record.reached(state, utc_now())
        failure = save_both(self._paths.state_dir, self.store, self._record)
        if failure is not None:
            say(self._paths.log, f"cannot write the run's record to the store: {failure.message}")

    def _try_to_reach(self, state: RunState) -> None:
        """A full disk must not keep the script from being watched and ended."""
        with contextlib.suppress(OSError):
            self._reached(state)

    def _tell(self, event: Event) -> None:
        if isinstance(event, Note):
            say(self._paths.log, event.message)
        elif isinstance(event, ToolSaid):
            self._notes.note_tool(event.line)
        elif isinstance(event, Retried) and event.is_noteworthy:
            retry = f"{event.reason}, retry {event.attempt} of {event.most} in {event.wait_s:.0f} s"
            say(self._paths.log, f"{event.name}: {retry}")

    def _poll_signals(self, wait_s: float) -> None:
        if self._wakeups.wait(wait_s):
            self.is_stop_signalled = True

    def _is_cancel_requested(self) -> bool:
        return self.is_stop_signalled or os.path.exists(self._paths.cancel_request)

    def _check_canceled(self, wait_s: float = 0.0) -> None:
        """Raises Interrupted once the run is to end."""
        self._poll_signals(wait_s)
        if self._is_cancel_requested():
            state = self._record.status
            self._try_to_reach(RunState.CANCEL_REQUESTED)
            raise Interrupted(f"canceled while it was {state}")


def main(arguments: Sequence[str]) -> None:
    run, settings = arguments[0], SupervisorSettings.from_text(arguments[1])
    paths = RunPaths(Path(settings.state_dir), run)
    # Before anything is started: a reader that finds this process dead ends its session by this.
    identity = identity_of(os.getpid())
    if identity is not None:
        document = {**identity._asdict(), "lock": paths.lock.stat().st_ino, "folder": str(paths.folder)}
        try:
            write_json(paths.supervisor, document)
        except OSError:
            release_reserve(paths)  # the run will fail, but its supervisor can be identified
            write_json(paths.supervisor, document)
    with open(settings.variables_descriptor, "rb") as pipe:
        passed = pipe.read()
    try:
        # Into this process's memory alone: /proc/PID/environ shows what a process was started with.
        os.environ.update(json.loads(passed))
    except ValueError:
        say(paths.log, "the command that submitted the run was killed before it passed the run's variables")
        return  # the next command that reads the run records that
    with Wakeups() as wakeups:
        try:
            record = load_local_record(paths.state_dir, run)
            if record is None:
                raise NotFound(f"run {run} has no record")
            if record.spec.produces:
                import amlctl.runs.produced  # before an upgrade of amlctl can replace it
            variables = dict(os.environ)
            if not settings.store.startswith("/"):
                import amlctl.runs.tree_saver  # noqa: F401  # for the same reason
            supervisor = Supervisor(settings, run, record, wakeups)
            supervisor.run()
            if record.spec.parent is not None and not supervisor.is_stop_signalled:
                from amlctl.workspaces.local.sweeps import continue_sweep

                continue_sweep(settings, supervisor.store, record, variables)
        except Exception:
            # The end of this process frees the lock, and the next reader records the run as Failed.
            say(paths.log, "internal error:\n" + traceback.format_exc())
            raise
