"""Exclusion without `flock`, for file systems that have none: a file that only one process can create.

It says who holds it, so that the claim of a killed process of this machine is taken over at once, and one of another
machine when it has not changed for a minute; a holder changes it every few seconds. Two that take it over in the same
moment can both hold it for an instant: this is for mounts that offer nothing better.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Optional

from amlctl.localfs.process_identity import ProcessIdentity, this_process

_PREFIX = ".amlctl-tmp-claim-"
"""Begins as all temporary names do, which listings skip."""
_LOOK_S = 0.02
_STALE_S = 60.0
_LONGEST_NAME = 200
"""Bytes: the prefix has to fit before it."""


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Hold the claim on `path`, which need not exist; waits for another holder. Raises OSError."""
    name = (
        path.name if len(os.fsencode(path.name)) < _LONGEST_NAME else hashlib.sha256(os.fsencode(path.name)).hexdigest()
    )
    claim = path.with_name(_PREFIX + name)
    text = f"{' '.join(map(str, this_process()))} {secrets.token_hex(8)} ".encode()
    seen, since_s = b"", time.monotonic()
    while not _make(claim, text):
        found = _read(claim)
        if found != seen:
            seen, since_s = found, time.monotonic()
        holder = _holder(found)
        is_near = holder is not None and holder.machine == this_process().machine
        is_left = holder.is_gone() if holder is not None and is_near else time.monotonic() - since_s > _STALE_S
        if is_left:
            if _read(claim) == found:
                with suppress(FileNotFoundError):
                    os.unlink(claim)
            continue
        time.sleep(_LOOK_S)
    ended = Event()
    Thread(target=_keep_fresh, args=(claim, text, ended), name="amlctl-claim", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        if _read(claim).startswith(text):  # else it was taken over
            with suppress(FileNotFoundError):
                os.unlink(claim)


def _shortened(name: str) -> str:
    raw = os.fsencode(name)
    return name if len(raw) < _LONGEST_NAME else hashlib.sha256(raw).hexdigest()


def _keep_fresh(claim: Path, text: bytes, ended: Event) -> None:
    """So that other machines see that its holder lives."""
    number = 0
    while not ended.wait(_STALE_S / 6) and _read(claim).startswith(text):
        number += 1
        with suppress(OSError), open(claim, "r+b", buffering=0) as file:
            file.write(text + b"%d" % number)


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
        machine, process, started = text.decode().split()[:3]
        return ProcessIdentity(machine, int(process), int(started))
    except ValueError:
        return None
