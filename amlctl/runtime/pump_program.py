"""`python -I -S -c SOURCE IN:OUT…`: copies pipes to logs, by descriptors, until their last writer has ended.

Run as a program of its own, so that nothing of this package is imported. It ignores signals: it ends when there is
nothing left to copy. A full disk loses lines and never stops the script; the loss is reported when there is room again.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

_PART_BYTES = 1 << 20
_SMALL_BYTES = 64 << 10
_OWN_LINE = b"[amlctl] "
_PAUSE_S = 0.002
"""Before a read, unless the last one was large: a script writes a line in pieces."""


class _Log:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lost_bytes = 0
        self._is_inside_line = False

    def write(self, data: bytes) -> None:
        if self._is_inside_line and data.startswith(_OWN_LINE):
            data = b"\n" + data  # the script's last line has no line feed
        self._is_inside_line = not data.endswith(b"\n")
        if self._lost_bytes:
            report = f"\n[amlctl] {self._lost_bytes} bytes of the log were lost: the disk was full\n".encode()
            if self._put(report):
                self._lost_bytes += len(data)
                return
            self._lost_bytes = 0
        self._lost_bytes += self._put(data)

    def _put(self, data: bytes) -> int:
        """Bytes that could not be written."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except OSError:
                break
        return len(rest)


def _pump(logs: dict[int, _Log]) -> None:
    size = 0
    while logs:
        ready = select.select(list(logs), [], [])[0]
        if size < _SMALL_BYTES:
            time.sleep(_PAUSE_S)
        size = 0
        for reader in ready:
            data = os.read(reader, _PART_BYTES)
            if not data:
                del logs[reader]
                continue
            size += len(data)
            logs[reader].write(data)


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    _pump({int(reader): _Log(int(log)) for reader, _, log in (pair.partition(":") for pair in sys.argv[1:])})
