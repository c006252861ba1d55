"""Which runs this machine knows, without reading a record: a shell that completes RUN has no time for that.

`.amlctl/run-order` has the order in which runs were made from this project, one id per line, oldest first. Times cannot
tell it: a clock that was set back would make an old run the newest, and `cancel @last` would end the wrong one.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from amlctl.core.run_id import is_record_run_id
from amlctl.localfs.regular_file import open_regular, regular_descriptor

_MAX_ORDER_BYTES = 1 << 20
"""About 30,000 runs. Of a larger file the older half is removed; those runs are ordered by their times."""


def note_made(state_dir: Path, run: str) -> None:
    """`run` is the newest from now on. Raises OSError."""
    descriptor = regular_descriptor(state_dir / "run-order", os.O_RDWR | os.O_CREAT)
    with os.fdopen(descriptor, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = os.fstat(file.fileno()).st_size
        if size > _MAX_ORDER_BYTES:
            file.seek(size - _MAX_ORDER_BYTES // 2)
            rest = file.read().partition(b"\n")[2]
            file.seek(0)
            file.write(rest)
            file.truncate()
        file.seek(0, os.SEEK_END)
        # The line feed before ours ends the line of a writer that was killed in the middle of it.
        file.write(f"\n{run}\n".encode())


def read_order(state_dir: Path) -> list[str]:
    """Ids, oldest first; empty where the file is lost or cannot be read."""
    try:
        with open_regular(state_dir / "run-order") as file:
            lines = file.read(4 * _MAX_ORDER_BYTES).decode("ascii", "replace").split("\n")
    except OSError:
        return []
    return [line for line in lines if is_record_run_id(line)]


def shared_folder(state_dir: Path) -> Path:
    """Copies of finished records of others, `<run>.json`."""
    return state_dir / "cache" / "shared-runs"
