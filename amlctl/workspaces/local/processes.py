"""The processes of a run whose supervisor may be dead: told apart from later ones of the same number, and ended whole.

A run's supervisor leads a session, to which most of what it starts belongs. What has made a session of its own has an
ancestor there, or has inherited the variables of the run's script. While one member of a session lives the system
gives the session's number to no other, so the members can be found when the leader is long dead.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from amlctl.runtime.process_tree import Process, end_found, find_process, has_variable

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


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
    process = find_process(pid)
    return None if process is None or process.is_dead else ProcessIdentity(pid, process.started, _boot())


def is_alive(identity: ProcessIdentity) -> bool:
    return identity_of(identity.pid) == identity


def end_session(leader: ProcessIdentity, *, variables: Collection[str] = ()) -> int:
    """Kill every process of the session that `leader` led, every one with one of the variables (`NAME=value`), and
    all their descendants; returns how many.

    Kills nothing if the number belongs to another process by now, or the machine was restarted.
    """
    present = identity_of(leader.pid)
    if leader.boot != _boot() or (present is not None and present != leader):
        return 0
    marks = frozenset(variable.encode() for variable in variables)

    def find(processes: Mapping[int, Process]) -> list[Process]:
        return [one for one in processes.values() if one.session == leader.pid or has_variable(one.pid, marks)]

    return end_found(find)


@functools.cache
def _boot() -> str:
    # Process 1 tells one start of a container from the next, which share the kernel's boot id.
    first = find_process(1)
    boot = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
    return f"{boot} {first.started if first else ''}".strip()
