"""A second processor for scanning large trees: a bare interpreter that runs `plain_folder.py`.

Threads do not help, since stat calls are too short for the interpreter's lock; a fork of a program with threads
is unsafe. Starting this costs some 20 ms, so it is for trees that are known to be large.
"""

from __future__ import annotations

import fcntl
import marshal
import os
import pkgutil
import select
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Optional

from amlctl.localfs import plain_folder
from amlctl.localfs.plain_folder import Careful

FolderAnswer = Optional[tuple[bytes, list[str]]]
_BATCH = 4
_BATCHES_UNDER_WAY = 2
"""So that the helper works while this process reads a folder of its own."""
_SMALLEST_PIPE = 4096
_PIPE_BYTES = 1 << 20
"""As much as a batch of large folders comes to: 70 bytes a file."""


class HelperEnded(Exception):
    """The helper was killed; what it was asked for has to be read without it."""


class ScanHelper:
    """Both methods raise HelperEnded. Not thread-safe."""

    def __init__(self, requests: int, answers: int, careful: Careful) -> None:
        """The descriptors of its pipes."""
        self._requests = requests
        self._answers = answers
        self._careful = careful
        self._is_configured = False
        self._asked: deque[list[tuple[str, str]]] = deque()

    @property
    def is_idle(self) -> bool:
        return not self._asked

    @property
    def asked(self) -> list[tuple[str, str]]:
        """Folders that it has not answer of yet."""
        return [folder for batch in self._asked for folder in batch]

    def ask(self, pending: list[tuple[str, str]]) -> None:
        """Take some folders, as (path in the tree, full path), from the front of the list; fewer and fewer towards its
        end, so that both processes come to theirs at the same time."""
        if not self._is_configured:
            self._is_configured = True
            self._send(marshal.dumps(self._careful, 2))
        while len(pending) > 1 and len(self._asked) < _BATCHES_UNDER_WAY:
            batch = pending[: min(_BATCH, len(pending) // 2)]
            message = marshal.dumps([full for _, full in batch], 2)
            if self._asked and len(message) > _SMALLEST_PIPE:
                break  # it may be waiting for its answer to be read, and this would wait for it
            self._send(message)
            del pending[: len(batch)]
            self._asked.append(batch)

    def answers(self, *, wait: bool) -> Iterator[tuple[tuple[str, str], FolderAnswer]]:
        """What was asked for, as far as it is there; at least one batch where somebody waits."""
        while self._asked and (wait or select.select([self._answers], [], [], 0)[0]):
            wait = False
            size_bytes = int.from_bytes(self._read(plain_folder.LENGTH_BYTES), "little")
            answer = marshal.loads(self._read(size_bytes))
            yield from zip(self._asked.popleft(), answer)

    def _send(self, message: bytes) -> None:
        rest = memoryview(message)
        try:
            while rest:
                rest = rest[os.write(self._requests, rest) :]
        except BrokenPipeError as error:
            raise HelperEnded from error

    def _read(self, size_bytes: int) -> bytearray:
        """So many bytes. No more are taken, as a buffer would: whether an answer is there is asked of the system."""
        data = bytearray(size_bytes)
        rest = memoryview(data)
        while rest:
            length = os.readv(self._answers, (rest,))
            if not length:
                raise HelperEnded
            rest = rest[length:]
        return data


def _program() -> str:
    """Its text, since on a node this package lies in an archive."""
    return (pkgutil.get_data(plain_folder.__package__, "plain_folder.py") or b"").decode()


@contextmanager
def scan_helper(careful: Careful) -> Iterator[ScanHelper]:
    """Starts the helper; it ends with the block, or with this process. Ctrl-C is for this process alone."""
    program = [sys.executable, "-I", "-S", "-c", _program()]
    process = subprocess.Popen(
        program,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(OSError, AttributeError):  # all pipes of a user have a quota; only Linux knows of it at all
            fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        try:
            yield ScanHelper(process.stdin.fileno(), process.stdout.fileno(), careful)
        finally:
            process.kill()
