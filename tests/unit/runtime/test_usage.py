"""What a script and its processes have used is seen while they live, and its processor time also after their end."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from amlctl.runtime.usage import ResourceWatch, UsageMeter, gpus_of
from tests.support.runs import wait_until

HOLDS = (
    "import os, sys; kept = bytes(b'x') * 80_000_000; sum(range(3_000_000)); "
    "print(os.getpid(), flush=True); sys.stdin.readline()"
)
SCRIPT = (
    f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLDS!r}]); print(flush=True); sys.stdin.read()"
)


def test_memory_and_time_of_what_descends_from_a_process() -> None:
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        watch = ResourceWatch(process.pid)
        child = int(process.stdout.readline())

        def has_memory() -> bool:
            watch.look()
            return (watch.resources.samples[-1].memory_bytes or 0) > 80_000_000

        wait_until(has_memory)  # counters of the kernel may be late on a busy machine
        unseen = ResourceWatch(process.pid, [child])
        unseen.look()
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        watch.look()
        process.stdin.close()
    *_, alive, ended = watch.resources.samples
    assert (alive.memory_bytes or 0) < 400_000_000
    assert watch.resources.summary()["processors"] > 0
    assert ended.memory_bytes is None
    assert unseen.resources.samples[0].memory_bytes is None


def test_the_time_of_a_process_that_came_and_went_counts() -> None:
    meter = UsageMeter(os.getpid())
    assert meter.look().processors is None
    subprocess.run([sys.executable, "-c", "sum(range(5_000_000))"], check=True)
    assert (meter.look().processors or 0) > 0.01


def test_gpus_are_those_that_the_run_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\necho "50, 1000"\necho "100, 3000"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3")
    meter = UsageMeter(os.getpid())
    wait_until(lambda: meter.look().gpu is not None)
    usage = meter.look()
    assert (usage.gpu, usage.gpu_memory_bytes) == (0.75, 4000 << 20)
    assert "--id=1,3" in (tmp_path / "asked").read_text()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert UsageMeter(os.getpid()).look().gpu is None


@pytest.mark.parametrize("says", [b"5, inf", b"nan, 1", b"inf, inf", b"-5, 1", b"[N/A], [N/A]", b"5", b"\377", b""])
def test_values_of_a_driver_that_are_not_numbers_are_left_out(says: bytes) -> None:
    assert gpus_of(says + b"\n") == (None, None)


def test_a_driver_that_hangs_holds_up_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nsleep 600 & echo $! > {tmp_path}/child\nwait\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    meter = UsageMeter(os.getpid())
    assert meter.look().gpu is None
    child = tmp_path / "child"
    wait_until(lambda: child.exists() and child.read_text().endswith("\n"))
    assert meter.look().gpu is None
    assert meter.end() == ()
    wait_until(lambda: not _is_running(int(child.read_text())))


def _is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_driver_that_fails_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    may_end = tmp_path / "may end"
    os.mkfifo(may_end)
    program.write_text(f"#!/bin/sh\nread line < '{may_end}'\nexit 9\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("amlctl.runtime.usage._GPU_EVERY_S", 0.0)
    meter = UsageMeter(os.getpid())
    assert meter.look().gpu is None
    (asked,) = _drivers()
    may_end.write_text("\n")
    wait_until(lambda: not _is_running(asked))
    assert [meter.look().gpu, meter.look().gpu] == [None, None]
    assert _drivers() == []


def _drivers() -> list[int]:
    """Children of this process, also those that have ended and were not waited for."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, fields = stat.read_text().partition("(")[2].rsplit(")", 1)
            if name == "nvidia-smi" and int(fields.split()[1]) == os.getpid():
                found.append(int(stat.parent.name))
    return found
