"""The processes of one run on this machine: the runtime once for every rank, each with its own log."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from amlctl.core.distribution import Rank
from amlctl.runtime.node_processes import read_end
from amlctl.runtime.unkept import has_started
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

    def start(self, rank: Rank, command: Sequence[str], variables: Mapping[str, str]) -> None:
        """Raises OSError."""
        # The log is handed on as it is, without a pipe: the script goes on writing whatever becomes of us.
        with self._places.log_of(rank.number).open("ab") as log:
            self._processes[rank] = subprocess.Popen(
                list(command),
                cwd=self._places.container_of(rank.node),
                env=dict(variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )

    def has_started(self) -> bool:
        """Whether the runtime of any rank has come to its script."""
        return any(has_started(self._places.node_folders(rank.node)) for rank in self._processes)

    def are_gone(self) -> bool:
        return all(process.poll() is not None for process in self._processes.values())

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
