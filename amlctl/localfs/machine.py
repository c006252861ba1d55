"""Time, and which process wrote a file or a lease, in a form that lets others tell for certain that it has ended.

A process id alone is not enough: other machines have the same ones, so do containers on this machine, and they are used
again. So the identity also has the machine (its boot and its namespace of process ids) and the start of the process.
"""

from __future__ import annotations

import functools
import os
import time
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple, Optional

import xxhash


def utc_now() -> datetime:
    return datetime.now(timezone.utc)


def passed_s() -> float:
    """Seconds since some moment; also those that the machine has slept, where the system counts them."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


def host_name() -> str:
    return os.uname().nodename


def user_name() -> str:
    import getpass  # here, since most commands do without it

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in many containers
        return ""


def user_at_host() -> str:
    """Who writes, for people: `anna@laptop`."""
    return "@".join(filter(None, (user_name(), host_name())))


_FIELDS_BEFORE_START = 19
"""In `/proc/<id>/stat`, between the end of the program's name and the start time (field 22, proc(5))."""


class ProcessIdentity(NamedTuple):
    """`machine`: 8 hex digits. `started`: ticks since boot; 0 where the system does not say."""

    machine: str
    process: int
    started: int

    def is_gone(self) -> bool:
        """True only where it is certain: a process of another machine may always be alive."""
        if self.machine != _machine():
            return False
        try:
            os.kill(self.process, 0)
        except (ProcessLookupError, OverflowError):
            return True
        except OSError:
            return False  # it is another user's
        state, started = _stat(self.process)
        return state in ("Z", "X") or bool(self.started and started and started != self.started)


def read_identity(document: Any) -> Optional[ProcessIdentity]:
    """From a mapping with its fields, as JSON has it; None for anything else."""
    try:
        return ProcessIdentity(str(document["machine"]), int(document["process"]), int(document["started"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def this_process() -> ProcessIdentity:
    return _identity(os.getpid())


@functools.lru_cache(maxsize=1)
def _identity(process: int) -> ProcessIdentity:
    """Kept by process id, since a fork is another process."""
    return ProcessIdentity(_machine(), process, _started(process))


@functools.lru_cache(maxsize=1)
def _machine() -> str:
    parts = [host_name()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text("utf-8"))
    except OSError:  # macOS, where host names repeat: two machines of one name must not judge each other's processes
        import uuid  # here, since Linux does without it

        parts.append(f"{uuid.getnode():x}")
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
        parts.append(str(_started(1)))  # a container that is restarted may get the same namespace
    return xxhash.xxh3_64_hexdigest("\0".join(parts).encode("utf-8", "surrogateescape"))[:8]


def _started(process: int) -> int:
    return _stat(process)[1]


def _stat(process: int) -> tuple[str, int]:
    """State, which is `Z` for one whose parent has not taken note of its end, and start; empty and 0 if not known."""
    try:
        stat = Path(f"/proc/{process}/stat").read_bytes()
        fields = stat[stat.rindex(b")") + 2 :].split()
        return fields[0].decode(), int(fields[_FIELDS_BEFORE_START])
    except (OSError, ValueError, IndexError):
        return "", 0
