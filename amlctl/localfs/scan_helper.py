"""A second processor for scanning large trees: a bare interpreter that runs `plain_folder.py`.

Threads do not help, since stat calls are too short for the interpreter's lock; a fork of a program with threads
is unsafe. Starting this costs some 20 ms, so it is for trees that are known to be large.
"""

from __future__ import annotations

import marshal
import os
import select
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

from amlctl.errors import ServiceUnavailable
from amlctl.localfs import plain_folder
from amlctl.localfs.plain_folder import Careful

FolderAnswer = Optional[tuple[bytes, list[str]]]
_BATCH = 4
_BATCHES_UNDER_WAY = 2
"""So that the helper goes on while this process reads a folder of its own."""
_PIPE_BYTES = 1 << 20
"""As much as a batch of large folders comes to: 70 bytes a file."""


class ScanHelper:
    """Not thread-safe."""

    def __init__(self, process: subprocess.Popen[bytes], careful: Careful) -> None:
        self._process = process
        self._asked: deque[list[tuple[str, str]]] = deque()
        self._tell(careful)

    @property
    def is_idle(self) -> bool:
        return not self._asked

    def ask(self, pending: list[tuple[str, str]]) -> None:
        """Take some folders, as (path in the tree, full path), from the front of the list; fewer and fewer towards its
        end, so that both processes come to theirs at the same time."""
        while len(pending) > 1 and len(self._asked) < _BATCHES_UNDER_WAY:
            batch = pending[: min(_BATCH, len(pending) // 2)]
            del pending[: len(batch)]
            self._asked.append(batch)
            self._tell([full for _, full in batch])

    def _tell(self, message: Careful | list[str]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(marshal.dumps(message, 2))
        self._process.stdin.flush()

    def answers(self, *, wait: bool) -> Iterator[tuple[tuple[str, str], FolderAnswer]]:
        """What was asked for, as far as it is there; at least one batch where somebody waits."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while self._asked and (wait or select.select([descriptor], [], [], 0)[0]):
            wait = False
            size_bytes = int.from_bytes(_read(descriptor, plain_folder.LENGTH_BYTES), "little")
            yield from zip(self._asked.popleft(), marshal.loads(_read(descriptor, size_bytes)))


def _read(descriptor: int, size_bytes: int) -> bytearray:
    """So many bytes. No more are taken, as a buffer would: whether an answer is there is asked of the system."""
    data = bytearray(size_bytes)
    rest = memoryview(data)
    while rest:
        length = os.readv(descriptor, (rest,))
        if not length:
            raise ServiceUnavailable("the process that helps to scan has ended", hint="run the same command again")
        rest = rest[length:]
    return data


@contextmanager
def scan_helper(careful: Careful) -> Iterator[ScanHelper]:
    """Starts the helper; it ends with the block, or with this process. Ctrl-C is for this process alone."""
    program = [sys.executable, "-I", "-S", str(Path(plain_folder.__file__))]
    process = subprocess.Popen(
        program,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pipesize=_PIPE_BYTES,
        start_new_session=True,
    )
    with process:
        try:
            yield ScanHelper(process, careful)
        finally:
            process.kill()
