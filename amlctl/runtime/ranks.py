"""The processes of a run on one node: which of them this is, and what each writes for the others.

Azure ML and torchrun set NODE_RANK (GROUP_RANK) and LOCAL_RANK, Open MPI its OMPI_… variables; TensorFlow's TF_CONFIG
gives the index of the task (one process per node). A run without any of them has one node and one process.

Each process locks its file while it lives and writes into it which start of the node it belongs to and how its script
has ended. The others take the number of the start from the first process, and the first waits for the others to end.
Their parent learns from these files which one failed first, before its outputs are saved.

    <state>/processes/<local rank>     {"process", "attempt"}, with "exit_code" and "ended_ns" once the script has ended

Where the file system has no locks, the identity of the process in its file says whether it lives.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from amlctl.localfs.disk_errors import is_refusal
from amlctl.localfs.locks import is_held, locked
from amlctl.localfs.machine import ProcessIdentity, this_process
from amlctl.localfs.regular_file import read_regular
from amlctl.runtime.script import Wakeups


@dataclass(frozen=True)
class NodeRank:
    """`node` counts nodes, `local` the processes on one node, both from 0."""

    node: int = 0
    local: int = 0

    @property
    def is_first_process(self) -> bool:
        """Whether this process does what is done once per node."""
        return self.local == 0


def node_rank(variables: Mapping[str, str]) -> NodeRank:
    local = _number(variables, "LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK")
    node = _number(variables, "NODE_RANK", "GROUP_RANK")
    if node is None:
        per_node = _number(variables, "LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE")
        rank = _number(variables, "RANK", "OMPI_COMM_WORLD_RANK")
        node = rank // (per_node or 1) if rank is not None else _tensorflow_index(variables)
    return NodeRank(node, local or 0)


def _number(variables: Mapping[str, str], *names: str) -> int | None:
    for name in names:
        if variables.get(name, "").isdecimal():
            return int(variables[name])
    return None


def _tensorflow_index(variables: Mapping[str, str]) -> int:
    try:
        task = json.loads(variables.get("TF_CONFIG", "{}")).get("task", {})
        index = int(task.get("index", 0))
    except (ValueError, TypeError, AttributeError):
        return 0
    # Workers are counted after the chief, which has index 0 of its own kind.
    return index + 1 if task.get("type") == "worker" and "chief" in variables.get("TF_CONFIG", "") else index


_POLL_S = 0.05
_FIRST_LIMIT_S = 60.0
"""How long the other processes of a node wait for the first one to start."""
_STOP_MARGIN_S = 5.0
"""Processes that get a stop signal together with the first one have ended this long after their grace period."""


@dataclass(frozen=True)
class ProcessEnd:
    """How a script ended (128 + N after signal N), and when (nanoseconds of the wall clock)."""

    exit_code: int
    ended_ns: int


def read_end(state_dir: Path, local: int) -> Optional[ProcessEnd]:
    """None while the script runs, or if its process was killed before it could write it."""
    found = _read(state_dir, local)
    code, ended_ns = found.get("exit_code"), found.get("ended_ns")
    return ProcessEnd(code, ended_ns) if isinstance(code, int) and isinstance(ended_ns, int) else None


def attempt_of_first(state_dir: Path) -> Optional[int]:
    """Which start of the node this is, from the first process, which may start later; None if it does not start."""
    deadline = time.monotonic() + _FIRST_LIMIT_S
    while time.monotonic() < deadline:
        # The file of a first process that has ended does not count: its lock is free.
        attempt = _attempt(state_dir, 0) if _is_alive(state_dir, 0) else None
        if attempt is not None:
            return attempt
        time.sleep(_POLL_S)
    return None


class OwnProcess:
    """This process among those of its node."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._document: dict[str, Any] = {"process": this_process()}

    def write_attempt(self, attempt: int) -> None:
        """Raises OSError."""
        self._write(attempt=attempt)

    def write_end(self, exit_code: int) -> None:
        """Where it cannot be written the exit of the process shows it, if later."""
        with contextlib.suppress(OSError):
            self._write(exit_code=exit_code, ended_ns=time.time_ns())

    def _write(self, **more: int) -> None:
        self._document.update(more)
        # It only grows, so a reader finds a whole document or nothing.
        os.pwrite(self._descriptor, json.dumps(self._document).encode(), 0)


@contextmanager
def own_process(state_dir: Path, local: int) -> Iterator[OwnProcess]:
    path = _path(state_dir, local)
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path) as descriptor:
        os.ftruncate(descriptor, 0)
        yield OwnProcess(descriptor)


def wait_for_others(
    state_dir: Path, attempt: int, processes: int, wakeups: Wakeups, grace_s: float, *, is_ending: bool
) -> bool:
    """For the first process, whose script has ended: wait until the others of the node have ended.

    With `is_ending`, or after a stop signal, not much longer than `grace_s`. Returns whether all have succeeded without
    a stop signal.
    """
    left = set(range(1, processes))
    limit_s = grace_s + _STOP_MARGIN_S
    deadline = time.monotonic() + limit_s if is_ending else float("inf")
    was_stopped = False
    while True:
        left = {local for local in left if not _is_gone(state_dir, local, attempt)}
        if not left or time.monotonic() >= deadline:
            break
        if wakeups.wait(_POLL_S) and not was_stopped:
            was_stopped = True
            deadline = min(deadline, time.monotonic() + limit_s)
    ends = [read_end(state_dir, local) for local in range(1, processes)]
    return not (left or was_stopped) and all(end is not None and end.exit_code == 0 for end in ends)


_MOST_BYTES = 1 << 20


def _path(state_dir: Path, local: int) -> Path:
    return state_dir / "processes" / str(local)


def _read(state_dir: Path, local: int) -> Mapping[str, Any]:
    """What the process has written; empty where that cannot be read."""
    try:
        found = json.loads(read_regular(_path(state_dir, local), _MOST_BYTES))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _attempt(state_dir: Path, local: int) -> Optional[int]:
    attempt = _read(state_dir, local).get("attempt")
    return attempt if isinstance(attempt, int) else None


def _is_gone(state_dir: Path, local: int, attempt: int) -> bool:
    """False for a process that has not started yet: its file is missing, or was left by an earlier start."""
    return not _is_alive(state_dir, local) and _attempt(state_dir, local) == attempt


def _is_alive(state_dir: Path, local: int) -> bool:
    try:
        return is_held(_path(state_dir, local))
    except OSError as error:
        if not is_refusal(error):
            raise
    try:
        return not ProcessIdentity(*_read(state_dir, local)["process"]).is_gone()
    except (KeyError, TypeError):
        return False
