"""A pipe between a script and its log, so that the script cannot empty the log.

`open("/dev/stdout", "w")` on a regular file opens the file again and truncates it; on a pipe it does not. A small
program (`pump_program`) copies the pipe to the log. It is a process of its own that ignores signals and ends with the
last writer: a script continues, and no line is lost, when the runtime or the supervisor is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pkgutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from amlctl.localfs.locks import try_lock

_PIPE_BYTES = 1 << 20
"""Buffer of the kernel for a script that writes faster than its disk; Linux's limit for users."""
_SET_PIPE_SIZE = 1031
"""F_SETPIPE_SZ, which `fcntl` names from Python 3.10 on."""
_POLL_S = 0.01
WRITTEN_OUT_LIMIT_S = 10.0
"""How long the end of a run waits for its log, should a writer be left that cannot be killed."""


class LogPump:
    """Copies what is written to `writers` to the logs, in order."""

    def __init__(self, logs: Sequence[int]) -> None:
        """`logs` are descriptors of files, which this object closes. Each is locked (flock, shared) as long as it may
        be written to. Raises OSError.
        """
        self._logs = list(logs)
        self._readers: list[int] = []
        self.writers: list[int] = []
        for log in logs:
            reader, writer = os.pipe()
            self._readers.append(reader)
            self.writers.append(writer)
            with contextlib.suppress(OSError):
                if sys.platform == "linux":
                    fcntl.fcntl(writer, _SET_PIPE_SIZE, _PIPE_BYTES)
            with contextlib.suppress(OSError):
                fcntl.flock(log, fcntl.LOCK_SH)
        self._process = self._started()

    @property
    def pid(self) -> int:
        return self._process.pid

    def close_writers(self) -> None:
        """Those of this process; the pump ends with the last writer elsewhere."""
        for writer in self.writers:
            os.close(writer)
        self.writers = []

    def keep_alive(self) -> None:
        """Restart it if it was killed: its pipe still exists, with what is in it."""
        if self._process.poll() not in (None, 0):
            self._process = self._started()

    def wait(self, timeout_s: float) -> bool:
        """Whether all that was written is in the logs."""
        try:
            return self._process.wait(timeout_s) == 0
        except subprocess.TimeoutExpired:
            return False

    def close(self) -> None:
        """Close the descriptors of this process; the pump continues as long as it has a writer."""
        self.close_writers()
        for descriptor in (*self._readers, *self._logs):
            os.close(descriptor)
        self._readers, self._logs = [], []

    def _started(self) -> subprocess.Popen[bytes]:
        pairs = [f"{reader}:{log}" for reader, log in zip(self._readers, self._logs)]
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _program(), *pairs],
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[*self._readers, *self._logs],
            start_new_session=True,
        )


def _program() -> str:
    """Its source, since this package may be in an archive."""
    return (pkgutil.get_data(__package__, "pump_program.py") or b"").decode()


@contextlib.contextmanager
def files_behind_pump() -> Iterator[list[int]]:
    """Stdout and stderr of this process, and of all that it starts, go through a pump where they are files.

    Gives the process ids of pumps.
    """
    files = [number for number in (1, 2) if _is_file(number)]
    if not files:
        yield []
        return
    is_one = len(files) == 2 and os.path.samestat(os.fstat(1), os.fstat(2))
    kept = {number: os.dup(number) for number in files}
    pump = LogPump([os.dup(number) for number in (files[:1] if is_one else files)])
    for at, number in enumerate(files):
        os.dup2(pump.writers[0 if is_one else at], number)
    pump.close_writers()
    try:
        yield [pump.pid]
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, before in kept.items():
            os.dup2(before, number)
            os.close(before)
        pump.wait(WRITTEN_OUT_LIMIT_S)
        pump.close()


def _is_file(number: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(number).st_mode)
    except OSError:
        return False


def wait_until_written_out(log: str) -> None:
    """Until no pump of another process can write to the log."""
    deadline = time.monotonic() + WRITTEN_OUT_LIMIT_S
    try:
        descriptor = os.open(log, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # it may be a pipe by now
    except OSError:
        return
    try:
        while time.monotonic() < deadline and not try_lock(descriptor):
            time.sleep(_POLL_S)
    except OSError:  # a file system without locks
        return
    finally:
        os.close(descriptor)
