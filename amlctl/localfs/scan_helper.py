"""A second processor for scanning large trees: a bare interpreter that runs `plain_folder.py`.

Threads do not help, since stat calls are too short for the interpreter's lock; a fork of a program with threads
is unsafe. Starting this costs some 20 ms, so it is for trees that are known to be large.
"""

from __future__ import annotations

import marshal
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

from amlctl.localfs import plain_folder
from amlctl.localfs.plain_folder import Careful

FolderAnswer = Optional[tuple[bytes, list[str]]]
_BATCH = 8


class ScanHelper:
    """One batch of folders is under way at a time. Not thread-safe."""

    def __init__(self, process: subprocess.Popen[bytes], careful: Careful) -> None:
        self._process = process
        self._careful = careful
        self._asked: list[tuple[str, str]] = []

    @property
    def is_idle(self) -> bool:
        return not self._asked

    def ask(self, pending: list[tuple[str, str]]) -> None:
        """Take some folders, as (path in the tree, full path), from the front of the list."""
        self._asked = pending[:_BATCH]
        del pending[:_BATCH]
        assert self._process.stdin is not None
        self._process.stdin.write(marshal.dumps((self._careful, [full for _, full in self._asked]), 2))
        self._process.stdin.flush()

    def answers(self, *, wait: bool) -> Sequence[tuple[tuple[str, str], FolderAnswer]]:
        """The batch that was asked for; empty while it is not ready and nobody waits."""
        output = self._process.stdout
        assert output is not None
        if not self._asked or not (wait or select.select([output], [], [], 0)[0]):
            return ()
        asked, self._asked = self._asked, []
        return list(zip(asked, marshal.load(output)))


@contextmanager
def scan_helper(careful: Careful) -> Iterator[ScanHelper]:
    """Starts the helper; it ends with the block, or with this process. Ctrl-C is for this process alone."""
    program = [sys.executable, "-I", "-S", str(Path(plain_folder.__file__))]
    process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    with process:
        try:
            yield ScanHelper(process, careful)
        finally:
            process.kill()
