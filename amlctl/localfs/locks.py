"""One process at a time: by `flock` on a file, which is free again when its holder ends, however it ends.

Where a file system has no `flock`, a file that only one process can create stands for it (a *claim*). It says who holds
it: the claim of a killed process of this machine is taken over at once, one of another machine when it has not changed
for a minute; a holder changes it every few seconds. Two that take it over in the same moment can both hold it for an
instant: this is for mounts that offer nothing better.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from amlctl.core.content_id import content_id
from amlctl.core.events import EventSink, Note
from amlctl.localfs.disk_errors import is_refusal
from amlctl.localfs.machine import ProcessIdentity, read_identity, this_process
from amlctl.localfs.regular_file import open_regular, read_regular, regular_descriptor

_HELD = (errno.EWOULDBLOCK, errno.EACCES)
"""Errors of `flock` where another holder has the lock; the second one on SMB."""


def try_lock(descriptor: int, wanted: int = fcntl.LOCK_EX) -> bool:
    """Whether this process holds the open file's lock now; False: another holder has it. Raises OSError."""
    try:
        fcntl.flock(descriptor, wanted | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _HELD:
            raise
        return False
    return True


@contextmanager
def exclusive(path: Path, purpose: str, sink: EventSink) -> Iterator[None]:
    """Hold the lock; while this waits, a note names the holder. Raises OSError."""
    with open_regular(path, "a+b") as file:
        if not try_lock(file.fileno()):
            holder = ""
            with suppress(OSError):  # on SMB a locked file cannot be read
                file.seek(0)
                holder = file.read(200).decode(errors="replace").strip()
            sink(Note(f"{purpose} waits for {holder or 'another amlctl'}"))
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(os.fsencode(f"{purpose} (process {os.getpid()})"))
        file.flush()
        yield


def is_held(path: Path, wanted: int = fcntl.LOCK_SH) -> bool:
    """Whether another holder of the file does not let this process have the `wanted` lock, which for one that others
    share is LOCK_EX. A missing file counts as unlocked."""
    try:
        descriptor = regular_descriptor(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not try_lock(descriptor, wanted)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Hold the lock of a file, which is made; waits for another holder. Gives its descriptor. Raises OSError."""
    descriptor = regular_descriptor(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if not is_refusal(error):
                raise
            with claimed(path):
                yield descriptor
        else:
            yield descriptor
    finally:
        os.close(descriptor)


_PREFIX = ".amlctl-tmp-claim-"
"""Begins as all temporary names do, which listings skip."""
_LOOK_S = 0.02
_STALE_S = 60.0
_MOST_BYTES = 1024
_LONGEST_NAME = 200
"""Bytes: the prefix has to fit before it."""


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Hold the claim on `path`, which need not exist; waits for another holder. Raises OSError."""
    bare = os.fsencode(path.name)
    name = path.name if len(bare) < _LONGEST_NAME else content_id(bare)
    claim = path.with_name(_PREFIX + name)
    text = f"{' '.join(map(str, this_process()))} {os.urandom(8).hex()} ".encode()
    seen, since_s = b"", time.monotonic()
    while not _make_claim(claim, text):
        found = _read_claim(claim)
        if found != seen:
            seen, since_s = found, time.monotonic()
        holder = read_identity(dict(zip(ProcessIdentity._fields, found.decode(errors="replace").split())))
        is_near = holder is not None and holder.machine == this_process().machine
        is_left = holder.is_gone() if holder is not None and is_near else time.monotonic() - since_s > _STALE_S
        if is_left:
            if _read_claim(claim) == found:
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
        if _read_claim(claim).startswith(text):  # else it was taken over
            with suppress(FileNotFoundError):
                os.unlink(claim)


def _keep_fresh(claim: Path, text: bytes, ended: Event) -> None:
    """So that other machines see that its holder lives."""
    number = 0
    while not ended.wait(_STALE_S / 6) and _read_claim(claim).startswith(text):
        number += 1
        with suppress(OSError), open_regular(claim, "r+b") as file:
            file.write(text + b"%d" % number)


def _make_claim(claim: Path, text: bytes) -> bool:
    try:
        descriptor = os.open(claim, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    try:
        os.write(descriptor, text)
    finally:
        os.close(descriptor)
    return True


def _read_claim(claim: Path) -> bytes:
    try:
        return read_regular(claim, _MOST_BYTES)
    except FileNotFoundError:
        return b""
