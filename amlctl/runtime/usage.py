"""Processor, memory and GPU of a run's processes, as this machine shows them without further libraries."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Optional

from amlctl.core.events import Usage
from amlctl.core.resources import Resources, Sample
from amlctl.core.run_schema import is_amount
from amlctl.runtime.process_tree import all_processes, family

_GPU_EVERY_S = 5.0
_GPU_LIMIT_S = 3.0
_KILLED_S = 0.2
_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 10.0
_LOOKS = 8
"""Of the time that has passed, the next look is this part away."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
_QUERY = ("--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits")


class UsageMeter:
    """Of what descends from one process, but for `without` and their descendants. Processor time is that since the last
    look; it includes `root` and processes that have ended since.

    Use, in parts of 1, and memory are those of all GPUs that this process may use; None without one. A look asks their
    driver, and a later one reads the answer. A driver that gives none is not asked again."""

    def __init__(self, root: int, without: Collection[int] = ()) -> None:
        self._root = root
        self._without = frozenset(without)
        self._used_s: float | None = None
        self._at_s = 0.0
        self._gpus: tuple[float | None, int | None] = None, None
        self._query: Optional[DriverQuery] = None
        self._asked_at_s = float("-inf") if os.environ.get(VISIBLE) != "" else float("inf")

    def look(self) -> Usage:
        self._look_at_gpus()
        without = self._without.union(() if self._query is None else self._query.processes)
        among = {pid: process for pid, process in all_processes().items() if pid not in without}
        seconds, memory = _used(self._root, [process.pid for process in family([self._root], among)])
        now_s = time.monotonic()
        before_s, passed_s, self._at_s = self._used_s, now_s - self._at_s, now_s
        # The time of a process that ends between two readings may be missing until the next look.
        self._used_s = max(seconds, before_s or 0.0)
        return Usage(None if before_s is None else (self._used_s - before_s) / passed_s, memory, *self._gpus)

    def end(self) -> Collection[int]:
        """After the last look. Processes that were started for it and cannot be ended yet."""
        query, self._query = self._query, None
        return () if query is None else query.end()

    def _look_at_gpus(self) -> None:
        now_s = time.monotonic()
        if self._query is not None and (answer := self._query.answer()) is not None:
            self._gpus = gpus_of(answer)
            if self._gpus[0] is None:
                self._asked_at_s = float("inf")
            self.end()
        elif self._query is None and now_s - self._asked_at_s >= _GPU_EVERY_S:
            visible = os.environ.get(VISIBLE)
            self._query = DriverQuery(*_QUERY, *([f"--id={visible}"] if visible else []))
            self._asked_at_s = now_s


class DriverQuery:
    """A question to `nvidia-smi`, which is asked now and answered later: a driver that hangs must not delay a run."""

    def __init__(self, *options: str) -> None:
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._until_s = time.monotonic() + _GPU_LIMIT_S
        none, program = subprocess.DEVNULL, shutil.which("nvidia-smi")
        if program is not None:
            with suppress(OSError):
                command, pipe = [program, *options], subprocess.PIPE
                self._process = subprocess.Popen(
                    command, stdin=none, stdout=pipe, stderr=none, bufsize=0, start_new_session=True
                )
                assert self._process.stdout is not None
                os.set_blocking(self._process.stdout.fileno(), False)  # a child of it may hold the pipe open

    @property
    def processes(self) -> Collection[int]:
        """Its own, while it lives."""
        return () if self._process is None or self._process.poll() is not None else (self._process.pid,)

    def answer(self) -> Optional[bytes]:
        """None while it may still come; empty without a driver that answers within 3 s."""
        if self.processes:
            return None if time.monotonic() < self._until_s else b""
        if self._process is None or self._process.returncode or self._process.stdout is None:
            return b""
        return self._process.stdout.read() or b""

    def end(self) -> Collection[int]:
        """Processes that cannot be ended yet: one that waits for its driver cannot be killed."""
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_KILLED_S)
            assert self._process.stdout is not None
            self._process.stdout.close()
        return self.processes


class ResourceWatch:
    """Keeps what descends from one process uses from now on. The first seconds are looked at most closely; later looks
    are rare, since each one lists all processes."""

    def __init__(self, root: int, without: Collection[int] = ()) -> None:
        self.resources = Resources()
        self._meter = UsageMeter(root, without)
        with suppress(OSError, ValueError):
            self._meter.look()
        self._began_s = self._looked_s = time.monotonic()

    def look_if_due(self) -> float:
        """Seconds until the next look is due."""
        now_s = time.monotonic()
        pause_s = min(_LONGEST_PAUSE_S, max(_PAUSE_S, (now_s - self._began_s) / _LOOKS))
        if now_s - self._looked_s >= pause_s:
            self.look()
            return pause_s
        return pause_s - (now_s - self._looked_s)

    def end(self) -> Collection[int]:
        """A last look; see `UsageMeter.end`."""
        self.look()
        return self._meter.end()

    def look(self) -> None:
        self._looked_s = time.monotonic()
        with suppress(OSError, ValueError):  # a system that shows nothing must not end a run
            usage = self._meter.look()
            processors = None if usage.processors is None else round(usage.processors, 3)
            at_s = round(time.monotonic() - self._began_s, 3)
            # The look after the end of the script finds its time, but nothing that has memory.
            self.resources.add(
                Sample(at_s, *usage._replace(processors=processors, memory_bytes=usage.memory_bytes or None))
            )


def _used(root: int, pids: Collection[int]) -> tuple[float, int]:
    """Seconds of processor time of the root and of all, and bytes of memory of all without the root."""
    if sys.platform == "linux":
        return _used_linux(root, pids)
    command = ["/bin/ps", "-o", "pid=,time=,rss=", "-p", ",".join(map(str, [root, *pids]))]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    rows = [line.split() for line in lines]
    return sum(_seconds(used) for _, used, _ in rows), sum(int(kib) << 10 for pid, _, kib in rows if int(pid) != root)


def _used_linux(root: int, pids: Collection[int]) -> tuple[float, int]:
    page = os.sysconf("SC_PAGE_SIZE")
    ticks, memory = 0, 0
    for pid in [root, *pids]:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()  # from field 3 on: proc(5)
        except OSError:  # it has ended
            continue
        ticks += sum(map(int, fields[11:15]))  # its own, and those of its children that have ended
        memory += int(fields[21]) * page if pid != root else 0
    return ticks / os.sysconf("SC_CLK_TCK"), memory


def _seconds(text: str) -> float:
    """Of `12:34.56` or `1-02:03:04`."""
    days, _, clock = text.rpartition("-")
    seconds = float(days or 0) * 24
    for part in clock.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds


def gpus_of(answer: bytes) -> tuple[float | None, int | None]:
    """What nvidia-smi says of all GPUs, one on a line."""
    try:
        rows = [[float(cell) for cell in line.split(b",")] for line in answer.splitlines()]
        gpu, memory = sum(row[0] for row in rows) / len(rows) / 100, int(sum(row[1] for row in rows)) << 20
        return (gpu, memory) if is_amount(gpu) and is_amount(memory) else (None, None)
    except (ValueError, IndexError, ArithmeticError):
        return None, None
