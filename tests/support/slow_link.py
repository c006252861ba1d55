"""A slow line to a service on this machine: TCP, with so many bytes a second in each direction for all connections."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple
from urllib.parse import urlsplit

_BUFFER_BYTES = 64 << 10
"""Of the kernel, on each side: what waits there has left the sender and not arrived."""
_PIECE_BYTES = 16 << 10


class _Direction:
    """Thread-safe."""

    def __init__(self, bytes_per_s: float) -> None:
        self.bytes_per_s = bytes_per_s
        self._lock = threading.Lock()
        self._free_at_s = 0.0
        self.carried_bytes = 0

    def carry(self, size_bytes: int) -> None:
        with self._lock:
            self._free_at_s = max(self._free_at_s, time.monotonic()) + size_bytes / self.bytes_per_s
            wait_s = self._free_at_s - time.monotonic()
        time.sleep(max(0.0, wait_s))
        with self._lock:
            self.carried_bytes += size_bytes


class SlowLink(NamedTuple):
    """`url` is that of the service by way of the line."""

    url: str
    there: _Direction
    back: _Direction


@contextmanager
def slow_link(service_url: str, bytes_per_s: float) -> Iterator[SlowLink]:
    service = urlsplit(service_url)
    there, back = _Direction(bytes_per_s), _Direction(bytes_per_s)
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    listening.bind(("127.0.0.1", 0))
    listening.listen(64)
    open_sockets: list[socket.socket] = [listening]

    def pump(source: socket.socket, target: socket.socket, direction: _Direction) -> None:
        with suppress(OSError):
            while data := source.recv(_PIECE_BYTES):
                direction.carry(len(data))
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                near, _ = listening.accept()
                far = socket.create_connection((service.hostname or "", service.port or 80))
                open_sockets.extend((near, far))
                for pair in ((near, far, there), (far, near, back)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield SlowLink(f"http://127.0.0.1:{listening.getsockname()[1]}{service.path}", there, back)
    finally:
        for one in open_sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
