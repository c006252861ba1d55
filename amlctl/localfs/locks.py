"""One process at a time, by `flock` on a file; it is free again when its holder ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amlctl.core.events import EventSink, Note
from amlctl.localfs.private import open_file


@contextmanager
def exclusive(path: Path, purpose: str, sink: EventSink) -> Iterator[None]:
    """Hold the lock; who has to wait is told for whom. Raises OSError."""
    with open_file(path, "a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read(200).decode(errors="replace").strip() or "another amlctl"
            sink(Note(f"{purpose} waits for {holder}"))
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(os.fsencode(f"{purpose} (process {os.getpid()})"))
        file.flush()
        yield


def is_held(path: Path) -> bool:
    """Whether another holder has locked the file. One that is not there is held by nobody."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)
