"""The processes of a run on one node: each tells how its script ended, and the first waits for the others.

Each holds the lock of its file while it lives and writes into it how its script has ended. Whoever starts the
processes learns from these files who failed first, before the first process has saved what there is.

    <state>/processes/<local rank>     {"exit_code", "ended_ns"}, empty while the script works
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Optional

from amlctl.runtime.wakeups import Wakeups

_LOOK_S = 0.05
_STOP_MARGIN_S = 5.0
"""Processes that are asked to end together with the first one are gone so long after their grace at the latest."""


@dataclass(frozen=True)
class ProcessEnd:
    """How a script ended (128 + N after signal N), and when (nanoseconds of the wall clock)."""

    exit_code: int
    ended_ns: int


def read_end(state_dir: Path, local: int) -> Optional[ProcessEnd]:
    """None while the script works, or if its process was killed before it could tell."""
    try:
        document = json.loads(_path(state_dir, local).read_bytes())
        return ProcessEnd(int(document["exit_code"]), int(document["ended_ns"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


class OwnProcess:
    """This process among those of its node."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def tell_end(self, exit_code: int) -> None:
        """What cannot be written is learned from the exit of the process, if later."""
        document = json.dumps(asdict(ProcessEnd(exit_code, time.time_ns())))
        with contextlib.suppress(OSError):
            os.pwrite(self._descriptor, document.encode(), 0)


@contextmanager
def own_process(state_dir: Path, local: int) -> Iterator[OwnProcess]:
    path = _path(state_dir, local)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.ftruncate(descriptor, 0)
        yield OwnProcess(descriptor)
    finally:
        os.close(descriptor)


def wait_for_others(state_dir: Path, processes: int, wakeups: Wakeups, grace_s: float, *, is_ending: bool) -> bool:
    """For the first process, whose script has ended: until the others of the node are gone.

    With `is_ending`, or once a stop signal comes, not much longer than `grace_s`. Whether all have succeeded, and no
    stop signal came.
    """
    left = set(range(1, processes))
    limit_s = grace_s + _STOP_MARGIN_S
    deadline = time.monotonic() + limit_s if is_ending else float("inf")
    was_stopped = False
    while True:
        left = {local for local in left if not _is_gone(_path(state_dir, local))}
        if not left or time.monotonic() >= deadline:
            break
        if wakeups.wait(_LOOK_S) and not was_stopped:
            was_stopped = True
            deadline = min(deadline, time.monotonic() + limit_s)
    ends = [read_end(state_dir, local) for local in range(1, processes)]
    return not (left or was_stopped) and all(end is not None and end.exit_code == 0 for end in ends)


def _path(state_dir: Path, local: int) -> Path:
    return state_dir / "processes" / str(local)


def _is_gone(path: Path) -> bool:
    """False also for a process that has not come yet."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)
