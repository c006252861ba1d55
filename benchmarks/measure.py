"""Time whole processes side by side: A B A B …, so that noise of the machine meets all of them alike."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


def nothing() -> None:
    """No preparation."""


@dataclass(frozen=True)
class Command:
    """One process to measure. `prepare` runs before each run of it, outside of the measured time.

    `shown` is what a user would type, free of the paths of this machine.
    """

    label: str
    shown: str
    argv: Sequence[str]
    cwd: Path
    environment: Mapping[str, str]
    prepare: Callable[[], None] = nothing


@dataclass
class Samples:
    """Wall times in seconds and peak resident memory in bytes, one each a run.

    The memory is that of the largest process among the command and its children.
    """

    seconds: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)

    @property
    def peak(self) -> int:
        return max(self.peak_bytes)


class CommandFailed(Exception):
    """A measured command, or one that prepares a measurement, did not end well."""


def interleaved(commands: Sequence[Command], repetitions: int, tell: Callable[[str], None]) -> list[Samples]:
    """Samples of each command: one round that is thrown away (it warms the page cache), then `repetitions`.

    Raises CommandFailed.
    """
    tell(f"runs {len(commands)} commands {repetitions} times each")
    samples = [Samples() for _ in commands]
    for round_number in range(repetitions + 1):
        for command, kept in zip(commands, samples, strict=True):
            command.prepare()
            os.sync()  # what the run before has left to write shall not slow this one down
            seconds, peak = run_once(command)
            if round_number:
                kept.seconds.append(seconds)
                kept.peak_bytes.append(peak)
    return samples


def run_once(command: Command) -> tuple[float, int]:
    """Seconds and peak memory in bytes of one run. Raises CommandFailed."""
    with tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            command.argv,
            cwd=command.cwd,
            env=command.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise CommandFailed(
                f"{command.shown}: exit code {process.returncode}\n{errors.read().decode(errors='replace')}"
            )
    return seconds, usage.ru_maxrss * _MAXRSS_UNIT


def output_of(argv: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> str:
    """Stdout of a command that prepares a measurement. Raises CommandFailed."""
    done = subprocess.run(argv, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise CommandFailed(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def memory_floor() -> int:
    """Bytes below which a child's peak cannot be seen: a new process inherits the peak of the one that forked it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT
