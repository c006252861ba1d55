"""The processes of one run on this machine: the runtime once for every rank, each with its own log, GPU and control
group.

A control group (cgroup v2), where this user may make one, is what no process can leave: its processes are found even
when the runtime and the supervisor were both killed. It limits nothing. `<run's folder>/cgroup` names it, from before
it is made.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from amlctl.core.content_id import content_id
from amlctl.core.job import Rank
from amlctl.localfs.atomic import write_bytes
from amlctl.localfs.regular_file import read_regular, regular_descriptor
from amlctl.runtime.log_pump import WRITTEN_OUT_LIMIT_S, LogPump
from amlctl.runtime.ranks import read_end
from amlctl.runtime.script import has_started
from amlctl.runtime.usage import VISIBLE, DriverQuery
from amlctl.workspaces.local.run_paths import RunPaths

_MARK = "amlctl-"
_MOST_PATH_BYTES = 4096
_POLL_S = 0.01
_CGROUP_LIMIT_S = 10.0


class RunCgroup:
    """One that exists, or existed; without it the methods do nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, pid: int) -> None:
        """With all that it starts from now on."""
        with contextlib.suppress(OSError):
            (self._folder / "cgroup.procs").write_text(str(pid))

    def end(self) -> int:
        """Kill all that is in it and remove it; how many there were."""
        killed: set[str] = set()
        deadline = time.monotonic() + _CGROUP_LIMIT_S
        with contextlib.suppress(OSError):
            while time.monotonic() < deadline:
                present = (self._folder / "cgroup.procs").read_text().split()
                if not present:
                    break
                killed.update(present)
                self._kill(present)
                time.sleep(_POLL_S)
            self._folder.rmdir()
        return len(killed)

    def _kill(self, pids: list[str]) -> None:
        try:
            (self._folder / "cgroup.kill").write_text("1")
        except FileNotFoundError:  # before Linux 5.14
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)


def make_cgroup(paths: RunPaths) -> RunCgroup | None:
    """Below that of this process; None where this user may not make one."""
    above = _own_folder()
    if above is None or not os.access(above, os.W_OK):
        return None
    folder = above / f"{_MARK}{content_id(os.fsencode(paths.folder))}"
    try:
        write_bytes(paths.cgroup, f"{folder}\n".encode())
        folder.mkdir(exist_ok=True)
    except OSError:
        return None
    return RunCgroup(folder)


def find_cgroup(paths: RunPaths) -> RunCgroup | None:
    """That of a run whose supervisor is dead."""
    try:
        folder = Path(os.fsdecode(read_regular(paths.cgroup, _MOST_PATH_BYTES)).strip())
    except (OSError, ValueError):
        return None
    return RunCgroup(folder) if folder.name.startswith(_MARK) and folder.is_absolute() else None


def _own_folder() -> Path | None:
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return None
    path = next((line[3:] for line in lines if line.startswith("0::")), None)
    root = next((fields[1] for fields in mounts if fields[2] == "cgroup2"), None)
    return None if path is None or root is None else Path(root, path.lstrip("/"))


class VisibleGpus:
    """What CUDA may see: the user's own choice, else what `nvidia-smi` lists, which is asked from the start."""

    def __init__(self) -> None:
        self._query = None
        if VISIBLE not in os.environ:
            self._query = DriverQuery("--query-gpu=index", "--format=csv,noheader")

    def names(self, wait: Callable[[], None]) -> Sequence[str] | None:
        """In order; empty without a GPU, None where the driver does not answer. `wait` is called until it does."""
        if self._query is None:
            return [name.strip() for name in os.environ[VISIBLE].split(",") if name.strip()]
        while (answer := self._query.answer()) is None:
            wait()
        is_silent = bool(self._query.processes)
        self._query.end()
        return (
            None
            if is_silent
            else [line.strip() for line in answer.decode(errors="replace").splitlines() if line.strip()]
        )

    @property
    def processes(self) -> Collection[int]:
        """Those that cannot be ended."""
        return () if self._query is None else self._query.processes


def gpu_variables(gpus: Sequence[str], slot: int, slots: int, *, node: int = 0, processes: int = 1) -> dict[str, str]:
    """What every process on `node` of the run in `slot` sees: one GPU each, which it chooses by its local rank.

    More slots than GPUs share them in turn; so do the processes of one run.
    """
    if not gpus:
        return {}
    share = gpus[slot::slots] or [gpus[slot % len(gpus)]]
    wanted = [share[number % len(share)] for number in range(node * processes, (node + 1) * processes)]
    return {VISIBLE: ",".join(dict.fromkeys(wanted))}


HOST = "127.0.0.1"


@dataclass(frozen=True)
class RankFailure:
    """`process` is the runtime of the rank, which may still be saving outputs."""

    rank: Rank
    process: subprocess.Popen[bytes]

    @property
    def return_code(self) -> int:
        """Of the process, once it is gone; negative after a signal."""
        code = self.process.returncode
        return 0 if code is None else code


class RankProcesses:
    """Not thread-safe; empty at first."""

    def __init__(self, paths: RunPaths) -> None:
        self._paths = paths
        self._processes: dict[Rank, subprocess.Popen[bytes]] = {}
        self._pumps: list[LogPump] = []
        self._cgroup = make_cgroup(paths)

    def start(self, rank: Rank, command: Sequence[str], variables: Mapping[str, str]) -> None:
        """Raises OSError."""
        log = regular_descriptor(self._paths.log_of(rank.number), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        pump = LogPump([log])
        self._pumps.append(pump)
        try:
            self._processes[rank] = subprocess.Popen(
                list(command),
                cwd=self._paths.container_of(rank.node),
                env=dict(variables),
                stdin=subprocess.DEVNULL,
                stdout=pump.writers[0],
                stderr=pump.writers[0],
                process_group=0,
            )
        finally:
            pump.close_writers()
        if self._cgroup is not None:
            self._cgroup.add(self._processes[rank].pid)

    def has_started(self) -> bool:
        """Whether the runtime of any rank has started its script."""
        return any(has_started(self._paths.node_folders(rank.node)) for rank in self._processes)

    def are_gone(self) -> bool:
        return all(process.poll() is not None for process in self._processes.values())

    @property
    def own_pids(self) -> set[int]:
        """Children that are waited for here."""
        return {process.pid for process in self._processes.values()} | self.pump_pids

    @property
    def pump_pids(self) -> set[int]:
        """Of the processes that write the logs; they end after all others."""
        return {pump.pid for pump in self._pumps}

    def end_cgroup(self) -> int:
        """Kill what was not found in the process tree; how many processes."""
        return 0 if self._cgroup is None else self._cgroup.end()

    def keep_logs_alive(self) -> None:
        """Raises OSError."""
        for pump in self._pumps:
            pump.keep_alive()

    def wait_for_logs(self, limit_s: float) -> None:
        """Until their last lines are in the logs, unless a process still holds a log open."""
        deadline = time.monotonic() + limit_s
        for pump in self._pumps:
            pump.wait(max(0.0, deadline - time.monotonic()))

    def finish_logs(self) -> None:
        """After the end of all processes: until their last lines are in the logs."""
        self.wait_for_logs(WRITTEN_OUT_LIMIT_S)
        for pump in self._pumps:
            pump.close()
        self._pumps = []

    def first_failure(self) -> RankFailure | None:
        """The rank that failed first, if one has; the lower of two at once.

        What counts is the end of its script, not of the runtime, which saves the outputs first.
        """
        found = []
        for rank, process in self._processes.items():
            code = process.poll()
            end = read_end(self._paths.node_folders(rank.node).state_dir, rank.local)
            if end is not None and end.exit_code:
                found.append((end.ended_ns, rank.number, RankFailure(rank, process)))
            elif code:
                found.append((time.time_ns(), rank.number, RankFailure(rank, process)))
        return min(found, key=lambda one: one[:2])[2] if found else None

    def terminate(self, *, but: RankFailure | None = None) -> None:
        """SIGTERM to all except the one that has failed by itself."""
        for process in self._others(but):
            process.terminate()

    def kill(self, *, but: RankFailure | None = None) -> None:
        for process in self._others(but):
            process.kill()

    def _others(self, but: RankFailure | None) -> list[subprocess.Popen[bytes]]:
        return [process for process in self._processes.values() if but is None or process is not but.process]


def free_ports(count: int) -> list[int]:
    """Ports of this machine that are free at this moment, all different. Raises OSError."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return [int(one.getsockname()[1]) for one in sockets]
