"""In which order runs were made from this project folder: `.amlctl/run-order`, one id a line, oldest first.

Times cannot say it: a clock that was set back would make an old run the newest, and `cancel @last` would end the wrong
one. Losing the file loses nothing but that: without it the times of the records decide.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from amlctl.core.run_schema import is_record_run_id
from amlctl.localfs.atomic import open_regular

_MAX_BYTES = 1 << 20
"""Some 30,000 runs. When the file is larger, its older half goes; those runs are ordered by their times."""


def note_made(state_dir: Path, run: str) -> None:
    """`run` is the newest from now on. Raises OSError."""
    descriptor = os.open(state_dir / "run-order", os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = os.fstat(file.fileno()).st_size
        if size > _MAX_BYTES:
            file.seek(size - _MAX_BYTES // 2)
            rest = file.read().partition(b"\n")[2]
            file.seek(0)
            file.write(rest)
            file.truncate()
        file.seek(0, os.SEEK_END)
        # A writer that was killed may have left half a line: the line feed before ours ends it.
        file.write(f"\n{run}\n".encode())


def read_order(state_dir: Path) -> list[str]:
    """Ids, oldest first; empty where the file is lost or cannot be read."""
    try:
        with open_regular(state_dir / "run-order") as file:
            lines = file.read(4 * _MAX_BYTES).decode("ascii", "replace").split("\n")
    except OSError:
        return []
    return [line for line in lines if is_record_run_id(line)]
