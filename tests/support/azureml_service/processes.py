"""A job's processes on this machine: bash in a process group of its own, which never outlives the service."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_PROLOGUE = """\
trap 'exit 143' TERM
(read -r _ <&{watched}; kill -KILL 0) >/dev/null 2>&1 &
disown $!
"""
"""A signal to the group lets the command's own programs end first. A process that holds the other end of the pipe keeps
the group alive."""


@dataclass
class Running:
    """`log` is the file that standard output and error go to."""

    process: subprocess.Popen[bytes]
    log: Path
    pipe: int

    def signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return

    def release(self) -> None:
        """End whatever the command left behind; once is enough."""
        if self.pipe >= 0:
            self.signal(signal.SIGKILL)
            self.process.wait()
            os.close(self.pipe)
            self.pipe = -1


def start(command: str, folder: Path, variables: Mapping[str, str], log: Path) -> Running:
    watched, pipe = os.pipe()
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", _PROLOGUE.format(watched=watched) + command],
                cwd=folder,
                env=dict(variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[watched],
            )
    except OSError:
        os.close(pipe)
        raise
    finally:
        os.close(watched)
    return Running(process, log, pipe)


def end_all(running: list[Running], grace_s: float) -> None:
    """SIGTERM, and SIGKILL for who is still there after the time given."""
    for one in running:
        one.signal(signal.SIGTERM)
    until = time.monotonic() + grace_s
    for one in running:
        try:
            one.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            one.signal(signal.SIGKILL)
            one.process.wait()
