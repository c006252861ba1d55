"""Exclusion without `flock`, for file systems that have none: a file that only one process can create.

It says who holds it, so that the claim of a killed process of this machine is taken over at once, and one of another
machine when it has not changed for a minute. Two that take it over in the same moment can both hold it for an instant:
this is for mounts that offer nothing better.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Optional

from amlctl.localfs.process_identity import ProcessIdentity, this_process

_PREFIX = ".amlctl-tmp-claim-"
"""Begins as all temporary names do, which listings skip."""
_LOOK_S = 0.02
_STALE_S = 60.0


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Hold the claim on `path`, which need not exist; waits for another holder. Raises OSError."""
    claim = path.with_name(_PREFIX + path.name)
    text = " ".join(map(str, this_process())).encode()
    seen, since_s = b"", time.monotonic()
    while not _make(claim, text):
        found = _read(claim)
        if found != seen:
            seen, since_s = found, time.monotonic()
        holder = _holder(found)
        if (holder is not None and holder.is_gone()) or time.monotonic() - since_s > _STALE_S:
            if _read(claim) == found:
                with suppress(FileNotFoundError):
                    os.unlink(claim)
            continue
        time.sleep(_LOOK_S)
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            os.unlink(claim)


def _make(claim: Path, text: bytes) -> bool:
    try:
        descriptor = os.open(claim, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    try:
        os.write(descriptor, text)
    finally:
        os.close(descriptor)
    return True


def _read(claim: Path) -> bytes:
    try:
        return claim.read_bytes()
    except FileNotFoundError:
        return b""


def _holder(text: bytes) -> Optional[ProcessIdentity]:
    """None where it is still being written."""
    try:
        machine, process, started = text.decode("ascii").split()
        return ProcessIdentity(machine, int(process), int(started))
    except ValueError:
        return None
