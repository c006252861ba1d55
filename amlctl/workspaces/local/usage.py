"""Processor, memory and GPU of a run's processes, as far as this machine tells without libraries of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Collection

from amlctl.core.events import Usage
from amlctl.runtime.process_tree import all_processes, descendants

_GPU_EVERY_S = 5.0
_GPU_LIMIT_S = 3.0
_QUERY = ("--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits")


class UsageMeter:
    """Of one process and all of its descendants; processor time is that since the last look."""

    def __init__(self) -> None:
        self._before: dict[int, float] = {}
        self._before_s = 0.0
        self._gpu: tuple[float | None, int | None] = None, None
        self._gpu_at_s = float("-inf")

    def look(self, root: int) -> Usage:
        pids = [process.pid for process in descendants([root], all_processes())]
        seconds, memory = _used(pids)
        now_s = time.monotonic()
        passed_s, self._before_s = now_s - self._before_s, now_s
        more = [used - self._before[pid] for pid, used in seconds.items() if pid in self._before]
        is_first, self._before = not self._before, seconds
        if now_s - self._gpu_at_s >= _GPU_EVERY_S:
            self._gpu_at_s = now_s
            self._gpu = _gpu()
        return Usage(None if is_first else sum(more) / passed_s, memory, *self._gpu)


def _used(pids: Collection[int]) -> tuple[dict[int, float], int]:
    """Seconds of processor time of each, and bytes of memory of all."""
    if sys.platform == "linux":
        return _used_linux(pids)
    command = ["/bin/ps", "-o", "pid=,time=,rss=", "-p", ",".join(map(str, pids))]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines() if pids else []
    rows = [line.split() for line in lines]
    return {int(pid): _seconds(used) for pid, used, _ in rows}, sum(int(size) << 10 for *_, size in rows)


def _used_linux(pids: Collection[int]) -> tuple[dict[int, float], int]:
    tick, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    seconds, memory = {}, 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()  # from field 3 on: proc(5)
        except OSError:  # it has ended
            continue
        seconds[pid] = (int(fields[11]) + int(fields[12])) / tick
        memory += int(fields[21]) * page
    return seconds, memory


def _seconds(text: str) -> float:
    """Of `12:34.56` or `1-02:03:04`."""
    days, _, clock = text.rpartition("-")
    seconds = float(days or 0) * 24
    for part in clock.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds


def _gpu() -> tuple[float | None, int | None]:
    """Use in parts of 1, and bytes of memory, of all GPUs that the run may use; None without one."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None, None
    try:
        done = subprocess.run([program, *_QUERY], capture_output=True, text=True, timeout=_GPU_LIMIT_S, check=False)
        rows = [[float(cell) for cell in line.split(",")] for line in done.stdout.splitlines()]
        return sum(row[0] for row in rows) / len(rows) / 100, int(sum(row[1] for row in rows)) << 20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError, ZeroDivisionError):
        return None, None
