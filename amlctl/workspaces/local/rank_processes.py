"""The processes of one run on this machine: the runtime once for every rank, each with its own log."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from amlctl.core.distribution import Rank
from amlctl.localfs.folders import FILE_MODE
from amlctl.runtime.log_pump import WRITTEN_OUT_LIMIT_S, LogPump
from amlctl.runtime.node_processes import read_end
from amlctl.runtime.unkept import has_started
from amlctl.workspaces.local.cgroup import make_cgroup
from amlctl.workspaces.local.places import RunPlaces

HOST = "127.0.0.1"


@dataclass(frozen=True)
class RankFailure:
    """`process` is that of the rank, which may still be saving what its script has left."""

    rank: Rank
    process: subprocess.Popen[bytes]

    @property
    def return_code(self) -> int:
        """Of the process, once it is gone; negative after a signal."""
        code = self.process.returncode
        return 0 if code is None else code


class RankProcesses:
    """Not thread-safe; empty at first."""

    def __init__(self, places: RunPlaces) -> None:
        self._places = places
        self._processes: dict[Rank, subprocess.Popen[bytes]] = {}
        self._pumps: list[LogPump] = []
        self._cgroup = make_cgroup(places)

    def start(self, rank: Rank, command: Sequence[str], variables: Mapping[str, str]) -> None:
        """Raises OSError."""
        log = os.open(self._places.log_of(rank.number), os.O_WRONLY | os.O_APPEND | os.O_CREAT, FILE_MODE)
        pump = LogPump([log])
        self._pumps.append(pump)
        try:
            self._processes[rank] = subprocess.Popen(
                list(command),
                cwd=self._places.container_of(rank.node),
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
        """Whether the runtime of any rank has come to its script."""
        return any(has_started(self._places.node_folders(rank.node)) for rank in self._processes)

    def are_gone(self) -> bool:
        return all(process.poll() is not None for process in self._processes.values())

    @property
    def own_pids(self) -> set[int]:
        """Of the children whose end is noted here."""
        return {process.pid for process in self._processes.values()} | self.pump_pids

    @property
    def pump_pids(self) -> set[int]:
        """Of the processes that write the logs; they end after all others."""
        return {pump.pid for pump in self._pumps}

    def end_cgroup(self) -> int:
        """Kill what no look at the process tree has found; how many processes."""
        return 0 if self._cgroup is None else self._cgroup.end()

    def keep_logs_alive(self) -> None:
        """Raises OSError."""
        for pump in self._pumps:
            pump.keep_alive()

    def wait_for_logs(self, limit_s: float) -> None:
        """Until their last lines are in the logs, unless something still holds a log open."""
        deadline = time.monotonic() + limit_s
        for pump in self._pumps:
            pump.wait(max(0.0, deadline - time.monotonic()))

    def finish_logs(self) -> None:
        """Once all are gone: until their last lines are in the logs."""
        self.wait_for_logs(WRITTEN_OUT_LIMIT_S)
        for pump in self._pumps:
            pump.close()
        self._pumps = []

    def first_failure(self) -> RankFailure | None:
        """Which rank has failed before all others, if one has; the lower of two at once.

        A script's end counts from when it came, not from when its runtime has saved what it left.
        """
        found = []
        for rank, process in self._processes.items():
            code = process.poll()
            end = read_end(self._places.node_folders(rank.node).state_dir, rank.local)
            if end is not None and end.exit_code:
                found.append((end.ended_ns, rank.number, RankFailure(rank, process)))
            elif code:
                found.append((time.time_ns(), rank.number, RankFailure(rank, process)))
        return min(found, key=lambda one: one[:2])[2] if found else None

    def terminate(self, *, but: RankFailure | None = None) -> None:
        """Ask them to end, except the one that has failed by itself."""
        for process in self._others(but):
            process.terminate()

    def kill(self, *, but: RankFailure | None = None) -> None:
        for process in self._others(but):
            process.kill()

    def _others(self, but: RankFailure | None) -> list[subprocess.Popen[bytes]]:
        return [process for process in self._processes.values() if but is None or process is not but.process]


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on at this moment, all different. Raises OSError."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return [int(one.getsockname()[1]) for one in sockets]
