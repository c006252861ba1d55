"""Whether a process has a file open for writing right now.

Writing through a memory map changes a file's times once, when a page is first touched: what is written to that page
later shows in no stat data. Linux refuses a read lease (fcntl(2), F_SETLEASE) on a file that is open, or mapped, for
writing, which costs one call. Elsewhere, and on file systems without leases, such a change is found by `--checksum`.
"""

from __future__ import annotations

import errno
import fcntl
import signal
import sys
import threading
from types import FrameType
from typing import Optional


def can_look_for_writers() -> bool:
    """Call it once, before files are looked at. A process that opens a leased file for writing just before it is closed
    sends this process a SIGIO, which would end it."""
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return False
    if signal.getsignal(signal.SIGIO) is signal.SIG_DFL:
        signal.signal(signal.SIGIO, _ignore)  # not SIG_IGN, which scripts that are started from here would inherit
    return True


def has_writer(descriptor: int) -> bool:
    """The lease that this takes ends with the descriptor, which must be open for reading only."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN  # any other: the file system, or the owner, does not allow leases
    return False


def _ignore(number: int, frame: Optional[FrameType]) -> None:
    """The file was closed already, which is all that the other process waits for."""
