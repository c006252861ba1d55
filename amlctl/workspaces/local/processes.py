"""Processes that outlive whoever started them: told apart from later ones with the same number, and ended whole.

A run's supervisor leads a session, and all that it starts (pip, the runtime, the script and its children)
belongs to that session, whatever process groups they make. While one member lives the system gives the
session's number to nobody else, so the members can be found when the leader is long dead.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_END_LIMIT_S = 10.0
"""A killed process is gone at once, unless the kernel keeps it in an uninterruptible wait (a dead network disk)."""


@dataclass(frozen=True)
class ProcessIdentity:
    """Process number, when it started, and in which boot of the machine; the texts are only ever compared."""

    pid: int
    started: str
    boot: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Any) -> ProcessIdentity:
        """Raises KeyError, TypeError, ValueError where the document is none."""
        return cls(int(document["pid"]), str(document["started"]), str(document["boot"]))


def identity_of(pid: int) -> ProcessIdentity | None:
    """None where no process has this number, or it is dead and only waits for its parent."""
    started = _started(pid)
    return None if started is None else ProcessIdentity(pid, started, _boot())


def is_alive(identity: ProcessIdentity) -> bool:
    return identity_of(identity.pid) == identity


def end_session(leader: ProcessIdentity, *, keep: int | None = None) -> int:
    """Kill every process of the session that `leader` leads or led, except `keep`; returns how many.

    Kills nothing if the number belongs to somebody else by now, or the machine was started anew.
    """
    present = identity_of(leader.pid)
    if leader.boot != _boot() or (present is not None and present != leader):
        return 0
    killed: set[int] = set()
    deadline = time.monotonic() + _END_LIMIT_S
    while time.monotonic() < deadline:
        members = [pid for pid in _session_members(leader.pid) if pid != keep]
        if not members:
            break
        for pid in members:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        time.sleep(0.01)
    return len(killed)


if sys.platform == "linux":

    def _stat(pid: int) -> list[str] | None:
        """Fields of /proc/PID/stat from the state on (proc(5)); the name before them may hold blanks."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else fields

    def _started(pid: int) -> str | None:
        fields = _stat(pid)
        return None if fields is None else fields[19]

    def _session_members(session: int) -> Iterator[int]:
        for name in os.listdir("/proc"):
            if name.isdigit():
                fields = _stat(int(name))
                if fields is not None and int(fields[3]) == session:
                    yield int(name)

    @functools.cache
    def _boot() -> str:
        # Process 1 tells one start of a container from the next, which share the kernel's boot id.
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {_started(1)}"

else:

    def _ps(*options: str) -> list[str]:
        result = subprocess.run(["/bin/ps", *options], capture_output=True, text=True, check=False)
        return result.stdout.splitlines()

    def _started(pid: int) -> str | None:
        lines = _ps("-o", "stat=", "-o", "lstart=", "-p", str(pid))
        state, _, started = lines[0].strip().partition(" ") if lines else ("Z", "", "")
        return None if state.startswith("Z") else started.strip()

    def _session_members(session: int) -> Iterator[int]:
        for line in _ps("-A", "-o", "pid=", "-o", "stat="):
            pid, state = line.split()[:2]
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if not state.startswith("Z") and os.getsid(int(pid)) == session:
                    yield int(pid)

    @functools.cache
    def _boot() -> str:
        return str(_started(1))
