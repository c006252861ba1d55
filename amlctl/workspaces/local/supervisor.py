"""The process that looks after one run, from the queue to its final record.

`python -m amlctl.workspaces.local.supervisor_program RUN SETTINGS`, started detached, as leader of a session, with the
lock of the run and its ticket in the queue already held through inherited descriptors. It alone writes the run's
record. Asked to cancel (a file, or SIGTERM) it ends the run in an orderly way; killed, it is `recovery`'s matter.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from amlctl.config.environment_file import environment_of
from amlctl.core.distribution import Rank, log_names, rank_variables
from amlctl.core.environment import EnvironmentSpec
from amlctl.core.events import Event, Note, Retried
from amlctl.core.hidden_values import ENVIRONMENT_PREFIX
from amlctl.core.message import Command
from amlctl.core.run import RunRecord
from amlctl.core.run_schema import is_record_run_id
from amlctl.core.run_state import RunState
from amlctl.core.secret_names import is_login_variable
from amlctl.errors import AmlctlError, Interrupted, NotFound
from amlctl.localfs.atomic import write_json
from amlctl.localfs.clock import utc_now
from amlctl.runs.records import load_local_record, read_failure, save_both
from amlctl.runs.tree_saver import TreeSaver
from amlctl.runtime.process_tree import become_subreaper, end_descendants, in_words, reap_adopted
from amlctl.runtime.script import Wakeups
from amlctl.workspaces.local.ending import Ending, ending_of, failed, finish, outputs_saver
from amlctl.workspaces.local.environment_making import prepare_environment
from amlctl.workspaces.local.environments import Environments
from amlctl.workspaces.local.logs import SavedLogs, say
from amlctl.workspaces.local.node_files import bring, is_folder, make_container, node_store, open_run_store
from amlctl.workspaces.local.processes import identity_of
from amlctl.workspaces.local.rank_processes import (
    HOST,
    RankFailure,
    RankProcesses,
    free_ports,
    gpu_variables,
    list_gpus,
)
from amlctl.workspaces.local.recovery import recover
from amlctl.workspaces.local.run_paths import RunPaths, give_room, machine_error, queue_folder
from amlctl.workspaces.local.slots import Slot, SlotQueue, Ticket
from amlctl.workspaces.local.starting import SupervisorSettings

SAVE_LIMIT_S = 600.0
"""What the runtime gets, beyond the script's grace, to save outputs after it was asked to end; then it is killed."""
RECORD_LIMIT_S = 600.0
"""So long the end of a run is written again and again where this disk does not take it."""
_AGAIN_S = 0.5
_LOG_MOMENT_S = 0.1


class Supervisor:
    """One run's; used once, from the main thread."""

    def __init__(self, settings: SupervisorSettings, run: str, record: RunRecord, wakeups: Wakeups) -> None:
        self._settings = settings
        self._paths = RunPaths(Path(settings.state_dir), run)
        self._store = open_run_store(settings.store, os.environ, self._tell)
        self._node = node_store(self._store, self._paths.state_dir)
        self._record = record
        self._wakeups = wakeups
        self._environments = Environments(Path(settings.environments_dir), os.environ)
        self._logs = SavedLogs(self._store, self._paths, record)
        self._savers: dict[int, TreeSaver] = {}
        self._has_started = False
        self._is_stop_signalled = False
        self._is_record_behind = False

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
        """Where even the room that was kept does not suffice it waits for more, unless it is told to end: a run whose
        end is not written counts as one that was killed."""
        deadline = time.monotonic() + RECORD_LIMIT_S
        while True:
            try:
                finish(self._paths, self._store, self._record, ending, utc_now, logs=self._logs)
                return
            except OSError:
                if time.monotonic() >= deadline or self._is_stop_signalled:
                    raise
            self._look_for_signals(_AGAIN_S)

    def _run(self) -> Ending:
        slot = self._wait_for_slot()
        self._reached(RunState.PREPARING)
        spec = environment_of(self._record, os.environ)
        try:
            prepare_environment(self._environments, spec, self._tell, check=self._check_canceled)
        except Interrupted:
            raise
        except AmlctlError as error:
            return failed(error, kind="environment")
        if not is_folder(self._store):
            bring(self._store, self._node, self._record, lambda line: say(self._paths.log, line), self._check_canceled)
        runtime = Path()
        for node in range(self._record.instances):
            runtime = make_container(
                self._store, self._record.code, self._paths.container_of(node), self._paths.state_dir / "runtimes"
            )
            self._check_canceled()
        processes = RankProcesses(self._paths)
        become_subreaper()
        try:
            self._start_processes(processes, spec, slot, runtime)
            return self._watch(processes)
        finally:
            # Whatever goes wrong here: the script never outlives its run.
            if not processes.are_gone():
                processes.kill()
                self._end_leftovers(processes)
            processes.end_cgroup()
            processes.finish_logs()

    def _wait_for_slot(self) -> Slot:
        folder = queue_folder(self._paths.state_dir, self._record.compute)
        queue = SlotQueue(folder)
        path = Path(self._settings.ticket)
        ticket = Ticket(int(path.name.partition("-")[0]), path, self._settings.ticket_descriptor)
        try:
            while (slot := queue.try_slot(ticket, self._settings.slots, self._record.run)) is None:
                self._check_canceled(wait_s=self._settings.timing.poll_s)
        finally:
            queue.leave(ticket)
        if is_record_run_id(slot.previous_run) and slot.previous_run != self._record.run:
            # A run whose supervisor was killed may still be working in this slot.
            with contextlib.suppress(AmlctlError):  # its record is lost: no matter of this run
                recover(RunPaths(self._paths.state_dir, slot.previous_run), self._store, utc_now)
        return slot

    def _start_processes(self, processes: RankProcesses, spec: EnvironmentSpec, slot: Slot, runtime: Path) -> None:
        """`runtime` is the folder of its modules."""
        settings, layout = self._settings, self._record.layout
        gpus = list_gpus(os.environ)[: settings.gpus]
        ports = free_ports(layout.ports_wanted())
        for rank in layout.ranks:
            container = self._paths.container_of(rank.node)
            variables = self._for_script(self._environments.script_variables(spec))
            variables.update(
                gpu_variables(gpus, slot.index, settings.slots, node=rank.node, processes=layout.processes)
            )
            variables.update(rank_variables(layout, rank, HOST, ports))
            paths = [str(runtime), variables.get("PYTHONPATH", "")]
            variables["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
            processes.start(rank, self._command(spec, rank, container), variables)

    def _for_script(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Without what amlctl logs in with, unless the run was given it, and without what its environment took."""
        return {
            name: value
            for name, value in variables.items()
            if not name.startswith(ENVIRONMENT_PREFIX)
            and (name in self._record.variables or not is_login_variable(name, value))
        }

    def _command(self, spec: EnvironmentSpec, rank: Rank, container: Path) -> list[str]:
        timing = self._settings.timing
        return [
            *(str(self._environments.python(spec)), "-m", "amlctl.runtime"),
            *("--store", self._node.url, "--run", self._record.run, "--container", str(container)),
            *("--rank", str(rank.node), str(rank.local)),
            *("--save-interval", str(timing.save_interval_s), "--grace", str(timing.grace_s)),
        ]

    def _watch(self, processes: RankProcesses) -> Ending:
        """Until all have ended: by themselves, because one has failed, at the timeout, or as the run is canceled."""
        started = time.monotonic()
        limit_s = self._record.timeout_s
        kill_at = float("inf")
        stopped: Ending | None = None
        failure: RankFailure | None = None
        next_save = started + self._settings.timing.save_interval_s
        while not processes.are_gone():
            self._look_for_signals(self._settings.timing.poll_s)
            reap_adopted(processes.own_pids)
            processes.keep_logs_alive()
            now = time.monotonic()
            if stopped is None:
                self._look_for_start(processes)
                if self._is_cancel_requested():
                    stopped = Ending(RunState.CANCELED, None, "canceled", "canceled while it was running")
                    self._is_record_behind = not self._try_to_reach(RunState.CANCEL_REQUESTED)
                elif not self._paths.supervisor.exists():
                    # `rm -rf .amlctl`: nothing can be kept any more, and no command would find the processes.
                    stopped = Ending(RunState.FAILED, None, "folder", f"{self._paths.folder} was deleted")
                elif limit_s is not None and now >= started + limit_s:
                    stopped = Ending(RunState.FAILED, None, "timeout", f"the run took longer than {limit_s:g} s")
                if stopped is not None:
                    processes.terminate()
                    kill_at = now + self._settings.timing.grace_s + SAVE_LIMIT_S
                elif failure is None and (failure := processes.first_failure()) is not None:
                    self._tell_failure(failure)
                    processes.terminate(but=failure)
                    kill_at = now + self._settings.timing.grace_s + SAVE_LIMIT_S
            if now >= kill_at:
                processes.kill(but=None if stopped else failure)
            if now >= next_save:
                next_save = now + self._settings.timing.save_interval_s
                self._save_log()
                self._save_outputs()
                if self._is_record_behind:
                    self._is_record_behind = not self._try_to_reach(RunState.CANCEL_REQUESTED)
        self._end_leftovers(processes)
        failure = failure or processes.first_failure()
        return_code = 0 if failure is None else failure.return_code
        if stopped is None:
            self._look_for_start(processes)
        if not processes.has_started():
            return self._not_started(stopped, return_code)
        if stopped is None:
            is_one_of_several = failure is not None and self._record.layout.world_size > 1
            told = read_failure(self._node, self._record.run)
            if failure is None or not is_one_of_several:
                return ending_of(return_code, told)
            rank = failure.rank.number
            ending = ending_of(return_code, told, who=f"the script of rank {rank}")
            name = log_names(self._record.layout.world_size)[rank]
            log_hint = str(Command("logs", self._record.run, "--file", name))
            return dataclasses.replace(ending, hint=ending.hint or log_hint)
        exit_code = 128 - return_code if return_code < 0 else return_code
        return dataclasses.replace(stopped, exit_code=exit_code)

    def _look_for_start(self, processes: RankProcesses) -> None:
        """The run is Running from when its script is: until then its data is still brought."""
        if not self._has_started and processes.has_started():
            self._has_started = True
            self._try_to_reach(RunState.RUNNING)

    def _not_started(self, stopped: Ending | None, return_code: int) -> Ending:
        """The ending of a run whose processes ended before there was a script; no exit code is one of a script."""
        ending = stopped or ending_of(return_code, read_failure(self._node, self._record.run))
        if ending.kind == "script" or ending.state is RunState.COMPLETED:
            message = f"the run ended before its script was started (exit code {return_code})"
            ending = Ending(RunState.FAILED, None, "runtime", message, is_told=True)
        return dataclasses.replace(ending, exit_code=None)

    def _tell_failure(self, failure: RankFailure) -> None:
        """In the log that is shown by default, where the others' ends would be a riddle."""
        names = log_names(self._record.layout.world_size)
        if len(names) > 1:
            rank = failure.rank.number
            what = f"rank {rank} has failed and the others are ended"
            say(self._paths.log, f"{what}; its log: {Command('logs', self._record.run, '--file', names[rank])}")

    def _end_leftovers(self, processes: RankProcesses) -> None:
        """After a killed runtime: its script, with all that this has started."""
        processes.wait_for_logs(_LOG_MOMENT_S)  # mostly there is nothing else, and no need to look at all processes
        ended = end_descendants(processes.pump_pids, own_end_s=0.0)
        more = processes.end_cgroup()
        if ended:
            say(self._paths.log, f"ended {in_words(ended)}")
        elif not more:
            return
        for node in range(self._record.instances):  # they may have written since the runtime saved the outputs
            self._paths.node_folders(node).saved_marker.unlink(missing_ok=True)

    def _save_log(self) -> None:
        with contextlib.suppress(AmlctlError, OSError):  # said at the end, if it fails then too
            self._logs.save()

    def _save_outputs(self) -> None:
        """The runtime saves them into the node's folder; where the store is another one, they go there from here."""
        if is_folder(self._store):
            return
        for node in range(self._record.instances):
            with contextlib.suppress(AmlctlError, OSError):  # as above
                if node not in self._savers:
                    self._savers[node] = outputs_saver(self._paths, self._store, node)
                self._savers[node].save()

    def _reached(self, state: RunState) -> None:
        self._record.reached(state, utc_now())
        trouble = save_both(self._paths.state_dir, self._store, self._record)
        if trouble is not None:
            say(self._paths.log, f"the run's record could not be put into the store: {trouble.message}")

    def _try_to_reach(self, state: RunState) -> bool:
        """Whether it is written: on a full disk the script is watched, and ended, all the same."""
        try:
            self._reached(state)
        except OSError:
            return False
        return True

    def _tell(self, event: Event) -> None:
        if isinstance(event, Note):
            say(self._paths.log, event.message)
        elif isinstance(event, Retried) and event.is_noteworthy:
            retry = f"{event.reason}, retry {event.attempt} of {event.most} in {event.wait_s:.0f} s"
            say(self._paths.log, f"{event.name}: {retry}")

    def _look_for_signals(self, wait_s: float) -> None:
        if self._wakeups.wait(wait_s):
            self._is_stop_signalled = True

    def _is_cancel_requested(self) -> bool:
        return self._is_stop_signalled or os.path.exists(self._paths.cancel_request)

    def _check_canceled(self, wait_s: float = 0.0) -> None:
        """Raises Interrupted once the run shall end."""
        self._look_for_signals(wait_s)
        if self._is_cancel_requested():
            state = self._record.status
            self._try_to_reach(RunState.CANCEL_REQUESTED)
            raise Interrupted(f"canceled while it was {state}")


def main(arguments: Sequence[str]) -> None:
    run, settings = arguments[0], SupervisorSettings.from_text(arguments[1])
    paths = RunPaths(Path(settings.state_dir), run)
    # Before anything is started: whoever finds us dead ends our session by this.
    identity = identity_of(os.getpid())
    if identity is not None:
        try:
            write_json(paths.supervisor, identity.to_json())
        except OSError:
            give_room(paths)  # the run will come to nothing, but who looks after it is known
            write_json(paths.supervisor, identity.to_json())
    with open(settings.variables_descriptor, "rb") as pipe:
        passed = pipe.read()
    try:
        # Into this process's memory alone: /proc/PID/environ shows what a process was started with.
        os.environ.update(json.loads(passed))
    except ValueError:
        say(paths.log, "the command that submitted the run was killed before it had passed the run's variables")
        return  # the next command that looks at the run records that
    with Wakeups() as wakeups:
        try:
            record = load_local_record(paths.state_dir, run)
            if record is None:
                raise NotFound(f"run {run} has no record")
            Supervisor(settings, run, record, wakeups).run()
        except Exception:
            # Ours, not the user's; the lock is given up by ending, and the next reader sees a Failed run.
            say(paths.log, "a fault of amlctl itself:\n" + traceback.format_exc())
            raise
