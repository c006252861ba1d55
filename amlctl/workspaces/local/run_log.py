"""Lines of our own in a run's log, between those of its processes."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from amlctl.core.secret_names import masked
from amlctl.localfs.folders import open_private


def say(log: Path, line: str) -> None:
    """Append a line; it begins a new one where the script's last line has no end.

    No secret of the line gets into it. A full disk loses the line: no run ends for want of it.
    """
    with contextlib.suppress(OSError), open_private(log, "a+b") as file:
        size = file.seek(0, os.SEEK_END)
        is_inside_line = size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"
        file.write((b"\n" if is_inside_line else b"") + f"[amlctl] {masked(line)}\n".encode(errors="replace"))
