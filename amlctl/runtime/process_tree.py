"""All processes of a run: found and ended, in whatever session they are.

On Linux the runtime is a subreaper: an orphan among its descendants becomes its child, so a process cannot leave the
tree by forking twice or by a session of its own. Elsewhere only processes with a living parent are found.

A process id is not enough: when the signal is sent it may belong to another process. So a process is identified by id
and start time, and gets signals through a descriptor (pidfd) where the system has them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Optional

from amlctl.localfs.machine import ProcessIdentity, this_process

_POLL_S = 0.01
_LONGEST_POLL_S = 0.1
_OWN_END_S = 0.3
"""After their script, helpers such as the workers of a data loader end by themselves, and are not reported."""
TERM_GRACE_S = 2.0
"""Between SIGTERM and SIGKILL of what is left then."""
_KILL_LIMIT_S = 10.0
"""A killed process ends at once, unless it is in an uninterruptible wait (for a dead network disk)."""
_SET_CHILD_SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER of prctl(2)."""


class Process(NamedTuple):
    """`started` is only compared. `is_dead`: a zombie."""

    pid: int
    parent: int
    session: int
    started: int
    name: str
    is_dead: bool


if sys.platform == "linux":

    def find_process(pid: int) -> Optional[Process]:
        """None where no process has this id."""
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                text = file.read().decode(errors="replace")
        except OSError:
            return None
        head, _, tail = text.rpartition(")")  # the name may hold blanks and parentheses; fields: proc(5)
        fields = tail.split()
        return Process(pid, int(fields[1]), int(fields[3]), int(fields[19]), head.partition("(")[2], fields[0] in "ZX")

    def all_processes() -> dict[int, Process]:
        found = (find_process(int(name)) for name in os.listdir("/proc") if name.isdigit())
        return {process.pid: process for process in found if process is not None}

    def has_variable(pid: int, variables: Collection[bytes]) -> bool:
        """Whether the process was started with one of them (`NAME=value`)."""
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                return not set(file.read().split(b"\0")).isdisjoint(variables)
        except OSError:
            return False

else:

    def _ps(*options: str) -> dict[int, Process]:
        command = ["/bin/ps", *options, "-o", "pid=,ppid=,stat=,lstart=,comm="]
        lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
        found = {}
        for line in lines:
            pid, parent, state, *rest = line.split(None, 8)
            session = 0
            with contextlib.suppress(OSError):
                session = os.getsid(int(pid))
            started = int(time.mktime(time.strptime(" ".join(rest[:5]))))
            name = os.path.basename(rest[5]) if len(rest) > 5 else ""
            found[int(pid)] = Process(int(pid), int(parent), session, started, name, state.startswith("Z"))
        return found

    def find_process(pid: int) -> Optional[Process]:
        """None where no process has this id."""
        return _ps("-p", str(pid)).get(pid)

    def all_processes() -> dict[int, Process]:
        return _ps("-A")

    def has_variable(pid: int, variables: Collection[bytes]) -> bool:
        """Not known here."""
        return False


def identity_of(pid: int) -> Optional[ProcessIdentity]:
    """None where no process has this id, or it is a zombie."""
    process = find_process(pid)
    return None if process is None or process.is_dead else ProcessIdentity(this_process().machine, pid, process.started)


def is_alive(identity: ProcessIdentity) -> bool:
    return identity_of(identity.process) == identity


def become_subreaper() -> bool:
    """Orphans among the descendants of this process become its children from now on; False where not supported."""
    if sys.platform != "linux":
        return False
    try:
        import ctypes  # here, since a few environments lack it

        return bool(ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (ImportError, OSError, AttributeError):
        return False


def descendants(roots: Iterable[int], among: Mapping[int, Process]) -> list[Process]:
    """All living processes below the roots, without the roots."""
    return [process for process in family(roots, among) if not process.is_dead]


def family(roots: Iterable[int], among: Mapping[int, Process]) -> Iterable[Process]:
    """As `descendants`, with zombies."""
    children: dict[int, list[Process]] = {}
    for process in among.values():
        children.setdefault(process.parent, []).append(process)
    found: dict[int, Process] = {}
    pending = list(roots)
    while pending:
        for process in children.get(pending.pop(), ()):
            if process.pid not in found:
                found[process.pid] = process
                pending.append(process.pid)
    return found.values()


def send_signal(process: Process, number: int) -> None:
    """To this process only, not to a later one with its id."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        try:
            descriptor = os.pidfd_open(process.pid)  # type: ignore[attr-defined,unused-ignore]
        except (AttributeError, OSError):  # an older system, or no such process
            if _is_still(process):
                os.kill(process.pid, number)
            return
        try:
            if _is_still(process):
                signal.pidfd_send_signal(descriptor, number)  # type: ignore[attr-defined,unused-ignore]
        finally:
            os.close(descriptor)


def _is_still(process: Process) -> bool:
    present = find_process(process.pid)
    return present is not None and present.started == process.started and not present.is_dead


def reap_adopted(own: Collection[int]) -> None:
    """Reap children that were adopted; those in `own` are left to the code that started them."""
    with contextlib.suppress(ChildProcessError, AttributeError):
        while True:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None or ended.si_pid in own:
                return
            os.waitpid(ended.si_pid, os.WNOHANG)


def has_children() -> bool:
    """Cheap: does not list all processes."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    except AttributeError:
        return True
    return True


def end_descendants(keep: Collection[int] = (), *, own_end_s: float = _OWN_END_S) -> Sequence[Process]:
    """Wait `own_end_s` for the descendants of this process to end by themselves, then send SIGTERM, then SIGKILL.

    Returns those that got a signal. `keep` are children that are left alone, with their descendants.
    """
    signaled: dict[tuple[int, int], Process] = {}
    began = time.monotonic()
    pause_s = _POLL_S
    while True:
        reap_adopted(keep)
        if not has_children():
            break
        left = _living_descendants(keep)
        passed_s = time.monotonic() - began - own_end_s
        if not left or passed_s > TERM_GRACE_S + _KILL_LIMIT_S:
            break
        for process in left if passed_s >= 0 else ():
            identity = (process.pid, process.started)
            if passed_s >= TERM_GRACE_S:
                signaled.setdefault(identity, process)
                send_signal(process, signal.SIGKILL)
            elif identity not in signaled:
                signaled[identity] = process
                send_signal(process, signal.SIGTERM)
                send_signal(process, signal.SIGCONT)  # a stopped process would not get it
        time.sleep(pause_s)
        pause_s = min(_LONGEST_POLL_S, pause_s * 1.5)
    return list(signaled.values())


def _living_descendants(keep: Collection[int]) -> list[Process]:
    present = {pid: process for pid, process in all_processes().items() if pid not in keep}
    own = os.getpid()
    # Without a subreaper orphans are found by the session that this process leads, if it does.
    orphans = [process.pid for process in present.values() if process.session == own and process.pid != own]
    found = {process.pid: process for process in descendants([own, *orphans], present)}
    found.update({pid: present[pid] for pid in orphans if not present[pid].is_dead})
    return list(found.values())


def end_session(leader: ProcessIdentity, *, variables: Collection[str] = ()) -> int:
    """Kill every process of the session that `leader` led, every one with one of the variables (`NAME=value`), and all
    their descendants; returns how many. They are stopped first, until no new one is found: a stopped process cannot
    start another.

    While one member of a session lives the system gives the session's id to no other process, so the members are found
    when the leader is long dead. Kills nothing if the id belongs to another process by now, or the machine was
    restarted.
    """
    now = find_process(leader.process)
    if leader.machine != this_process().machine or (now is not None and now.started != leader.started):
        return 0
    marks = frozenset(map(os.fsencode, variables))

    def is_of_run(process: Process) -> bool:
        return process.session == leader.process or has_variable(process.pid, marks)

    stopped: dict[tuple[int, int], Process] = {}
    killed: set[tuple[int, int]] = set()
    deadline = time.monotonic() + _KILL_LIMIT_S
    while time.monotonic() < deadline:
        present = all_processes()
        roots = [one for one in present.values() if not one.is_dead and is_of_run(one)]
        known = [one for one in present.values() if (one.pid, one.started) in stopped and not one.is_dead]
        family = {*roots, *known, *descendants([process.pid for process in (*roots, *known)], present)}
        found = {(one.pid, one.started): one for one in family if one.pid != os.getpid()}
        new = found.keys() - stopped.keys()
        stopped.update(found)
        for identity in new:
            send_signal(found[identity], signal.SIGSTOP)
        if new:
            continue
        if not found:
            break
        for identity, process in found.items():
            killed.add(identity)
            send_signal(process, signal.SIGKILL)
        time.sleep(_POLL_S)
    for process in stopped.values():  # at the time limit: no process may stay stopped
        send_signal(process, signal.SIGKILL)
    return len(killed)


def in_words(processes: Sequence[Process]) -> str:
    """For a log: `2 processes that the script left running: sleep (12), python (34)`."""
    what = "1 process" if len(processes) == 1 else f"{len(processes)} processes"
    names = ", ".join(f"{process.name} ({process.pid})" for process in processes[:5])
    return f"{what} that the script left running: {names}{', …' if len(processes) > 5 else ''}"
