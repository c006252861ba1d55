"""The slots of a compute target: which run gets one next, by order of submission, across processes.

A run in the queue is a ticket file, a slot is a file; both belong to the process that holds their lock (flock), so they
are free again when it dies. Everything is decided under one short lock of the queue:

    <queue>/lock
            tickets/<number>-<run>    lower numbers come first
            slots/<N>                 holds the id of the run that has, or had, slot N
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from amlctl.core.message import count
from amlctl.localfs.folders import FILE_MODE, make_private_folder
from amlctl.localfs.locks import is_held, try_lock
from amlctl.localfs.regular_file import open_regular, read_regular, regular_descriptor

_NAMED = 3
"""Runs that are named as users of slots."""


@dataclass(frozen=True)
class Ticket:
    """A place in the queue; `descriptor` holds its lock and may be handed to another process."""

    path: Path
    descriptor: int

    @property
    def number(self) -> int:
        return int(self.path.name.partition("-")[0])


@dataclass(frozen=True)
class Slot:
    """Slot `index`, ours until `descriptor` is closed; `previous_run` had it before and may have left something."""

    index: int
    descriptor: int
    previous_run: str


class SlotQueue:
    """Safe across processes; the object itself holds no state."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tickets = folder / "tickets"
        self._slots = folder / "slots"

    def take_ticket(self, run: str) -> Ticket:
        """At the end of the queue."""
        for folder in (self._tickets, self._slots):
            make_private_folder(folder)
        with self._locked():
            number = max((number for number, _ in self._waiting()), default=0) + 1
            path = self._tickets / f"{number}-{run}"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        return Ticket(path, descriptor)

    def try_slot(self, ticket: Ticket, slots: int, run: str) -> Slot | None:
        """A slot, if one of `slots` is free and no living process is before this ticket, which is then used up."""
        with self._locked():
            for number, path in self._waiting():
                if number < ticket.number:
                    if is_held(path):
                        return None
                    path.unlink(missing_ok=True)
            for index in range(slots):
                descriptor = regular_descriptor(self._slots / str(index), os.O_RDWR | os.O_CREAT)
                if not try_lock(descriptor):
                    os.close(descriptor)
                    continue
                previous_run = os.pread(descriptor, 4096, 0).decode(errors="replace")
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, run.encode(), 0)
                self.leave(ticket)
                return Slot(index, descriptor, previous_run)
        return None

    def reason(self, ticket: Ticket, slots: int) -> str:
        """What the ticket waits for, in words."""
        with self._locked():
            before = sum(number < ticket.number and is_held(path) for number, path in self._waiting())
            held = [self._slots / str(index) for index in range(slots)]
            runs = [
                read_regular(path, 4096).decode(errors="replace") for path in held if path.exists() and is_held(path)
            ]
        used = f", used by {', '.join(runs[:_NAMED])}{' …' if len(runs) > _NAMED else ''}" if runs else ""
        queue = f"; {count(before, 'run')} before it" if before else ""
        which = "slot 1 of 1" if slots == 1 else f"one of {slots} slots"
        return f"waiting for {which}{used}{queue}"

    def leave(self, ticket: Ticket) -> None:
        """Give the ticket up; can be repeated."""
        ticket.path.unlink(missing_ok=True)

    def _waiting(self) -> list[tuple[int, Path]]:
        found = [(path.name.partition("-")[0], path) for path in self._tickets.iterdir()]
        return sorted((int(number), path) for number, path in found if number.isdecimal())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with open_regular(self._folder / "lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
