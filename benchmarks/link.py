"""A network between a client and a service on this machine: round trip, bandwidth, and counts of what goes over it.

Each byte travels half a round trip; a new connection waits one for its handshake. The bandwidth is that of the line,
each way, shared by all connections in turn. It models neither packet loss nor slow start. The link is a process of its
own (`link_process.py`, Linux: epoll) that lives as long as its standard input, over which it is asked for its counts:

    with running_link("127.0.0.1", port, round_trip_s=0.02) as link:
        link.reset()
        ...  # against link.port
        print(link.counts().requests)
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_HEAD_END = b"\r\n\r\n"


@dataclass
class Counts:
    """Since the last reset. `sent` and `received` are as the client sees it, heads included."""

    requests: int = 0
    connections: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    sent_body_bytes: int = 0
    verbs: dict[str, int] = field(default_factory=dict)


class Link:
    """`port` stands for the service's, on 127.0.0.1."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process = process
        self.port = port

    def reset(self) -> None:
        self._ask("reset")

    def counts(self) -> Counts:
        return self._ask("read")

    def shape(self, round_trip_s: float, bits_per_second: float | None = None) -> None:
        """Become another line, at a moment when nothing is on its way."""
        self._ask(f"shape:{round_trip_s}:{bits_per_second or 0}")

    def _ask(self, what: str) -> Counts:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return Counts(**json.loads(self._process.stdout.readline()))


@contextmanager
def running_link(
    host: str, port: int, *, round_trip_s: float = 0.0, bits_per_second: float | None = None
) -> Iterator[Link]:
    program = str(Path(__file__).with_name("link_process.py"))
    command = [sys.executable, program, host, str(port), "--round-trip", str(round_trip_s)]
    if bits_per_second is not None:
        command += ["--bits-per-second", str(bits_per_second)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Link(process, int(process.stdout.readline()))
        finally:
            process.stdin.close()
            process.wait(timeout=10)


class RequestCounter:
    """Follows the requests of one connection (HTTP/1.1): heads, bodies with a length and chunked ones."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._skip = 0
        self._line = b""
        self._is_chunked = False
        self._chunk_is_last = False

    def feed(self, data: memoryview) -> None:
        while data:
            if self._skip:
                taken = min(self._skip, len(data))
                self._skip -= taken
                self._counts.sent_body_bytes += taken
                data = data[taken:]
                continue
            # The start of what is there is enough for a head; the rest is its body.
            start = self._line + bytes(data[:8192])
            end = start.find(b"\r\n" if self._is_chunked else _HEAD_END)
            if end < 0:
                self._line = start
                data = data[8192:]
                continue
            used = end + (2 if self._is_chunked else 4)
            data = data[used - len(self._line) :]
            self._line = b""
            if self._is_chunked:
                self._chunk(start[:end])
            else:
                self._head(start[:used])

    def _head(self, head: bytes) -> None:
        counts = self._counts
        counts.requests += 1
        verb = head.lstrip()[:8].split(b" ", 1)[0].decode("latin-1")
        counts.verbs[verb] = counts.verbs.get(verb, 0) + 1
        lower = head.lower()
        found = lower.find(b"\r\ncontent-length:")
        if found >= 0:
            self._skip = int(lower[found + 17 : lower.find(b"\r\n", found + 17)])
        elif b"\r\ntransfer-encoding: chunked" in lower:
            self._is_chunked = True

    def _chunk(self, line: bytes) -> None:
        """A chunk's size; the empty line after its bytes; after the last one the trailers and an empty line."""
        if self._chunk_is_last:
            if not line:
                self._is_chunked = self._chunk_is_last = False
        elif line:
            self._skip = int(line.split(b";", 1)[0], 16)
            self._chunk_is_last = not self._skip
