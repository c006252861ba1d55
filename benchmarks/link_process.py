"""The program of a simulated link (see `link.py`): passes bytes on late and slowly, counts requests; prints a port."""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import time
from collections import deque
from dataclasses import asdict

from link import Counts, RequestCounter

_BUFFER = 1 << 18
_LINE_BUFFER = 1 << 15
"""Read at once from a connection on a line of limited bandwidth: what one is ahead of the others."""
_BACKLOG_S = 0.03
"""How much is taken in before the line is free for it."""
_WINDOW = 4 << 20
"""Bytes on their way in one direction of one connection, as a TCP window."""
_EVENTS = 0x001 | 0x004 | 0x2000 | (1 << 31)
"""EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLET."""
_ENDED = 0x2000 | 0x008 | 0x010
"""EPOLLRDHUP, EPOLLERR, EPOLLHUP."""


class _Lane:
    """One direction of the link; what is on its way arrives in the order in which it left."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.bytes_per_second: float | None = None
        self.free_at = 0.0
        self.travelling: deque[tuple[float, _Flow, bytes]] = deque()
        self.waiting: deque[_Flow] = deque()

    def is_full(self, now: float) -> bool:
        return self.free_at - now > _BACKLOG_S

    def send(self, flow: _Flow, data: bytes, now: float) -> None:
        leaves = now
        if self.bytes_per_second is not None:
            leaves = self.free_at = max(now, self.free_at) + len(data) / self.bytes_per_second
        self.travelling.append((leaves + self.delay_s, flow, data))


class _Flow:
    """One direction of one connection. Empty data is its end."""

    def __init__(self, source: socket.socket, target: socket.socket, lane: _Lane) -> None:
        self.source = source
        self.target = target
        self.lane = lane
        self.counter: RequestCounter | None = None
        self.is_open = True
        """Whether the handshake has been made."""
        self.is_readable = False
        self.has_ended = False
        """Whether the other side has said that it sends no more."""
        self.is_read_out = False
        self.is_waiting = False
        self.is_writable = True
        self.arrived: deque[memoryview] = deque()
        self.on_way = 0
        self.is_done = False
        self.other: _Flow


class _Proxy:
    def __init__(self, host: str, port: int, round_trip_s: float, bytes_per_second: float | None) -> None:
        self._service = (host, port)
        self._counts = Counts()
        self._up, self._down = _Lane(), _Lane()
        self._shape(round_trip_s, bytes_per_second)
        self._handshakes: deque[tuple[float, _Flow]] = deque()
        self._epoll = select.epoll()
        self._flows: dict[int, tuple[_Flow, _Flow]] = {}
        """By file descriptor: the flow that is read from it, and the one that is written to it."""
        self._scratch = memoryview(bytearray(_BUFFER))
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]

    def run(self) -> None:
        """Until standard input ends."""
        listener = self._listener.fileno()
        self._epoll.register(listener, 0x001)
        self._epoll.register(0, 0x001)
        while True:
            for descriptor, event in self._events():
                if descriptor in self._flows:
                    self._on_event(descriptor, event)
                elif descriptor == listener:
                    self._accept()
                elif descriptor == 0 and not self._answer():
                    return
            if not self._is_direct:
                self._pass_time()

    def _events(self) -> list[tuple[int, int]]:
        if self._is_direct:
            return self._epoll.poll()
        due = [lane.travelling[0][0] for lane in (self._up, self._down) if lane.travelling]
        due += [lane.free_at - _BACKLOG_S for lane in (self._up, self._down) if lane.waiting]
        due += [self._handshakes[0][0]] if self._handshakes else []
        if due:
            # select counts in microseconds, epoll in milliseconds
            wait_s = min(due) - time.monotonic()
            if wait_s > 0:
                select.select([self._epoll], [], [], wait_s)
            return self._epoll.poll(0)
        return self._epoll.poll()

    def _answer(self) -> bool:
        asked = os.read(0, 4096)
        for what in asked.split():
            os.write(1, json.dumps(asdict(self._counts)).encode() + b"\n")
            verb, *values = what.split(b":")
            if verb == b"shape":
                self._shape(float(values[0]), float(values[1]) / 8 or None)
            elif verb == b"reset":
                for name, value in asdict(Counts()).items():
                    setattr(self._counts, name, value)
        return bool(asked)

    def _shape(self, round_trip_s: float, bytes_per_second: float | None) -> None:
        self._round_trip_s = round_trip_s
        self._is_direct = round_trip_s == 0 and bytes_per_second is None
        self._read_at_once = _BUFFER if bytes_per_second is None else _LINE_BUFFER
        for lane in (self._up, self._down):
            lane.delay_s = round_trip_s / 2
            lane.bytes_per_second = bytes_per_second

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                return
            service = socket.socket()
            for end in (client, service):
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            service.connect_ex(self._service)
            self._counts.connections += 1
            up, down = _Flow(client, service, self._up), _Flow(service, client, self._down)
            up.other, down.other = down, up
            up.counter = RequestCounter(self._counts)
            up.is_writable = False  # until the connection to the service stands
            if self._round_trip_s:
                up.is_open = False
                self._handshakes.append((time.monotonic() + self._round_trip_s, up))
            self._flows[client.fileno()] = (up, down)
            self._flows[service.fileno()] = (down, up)
            self._epoll.register(client.fileno(), _EVENTS)
            self._epoll.register(service.fileno(), _EVENTS)

    def _on_event(self, descriptor: int, event: int) -> None:
        read, written = self._flows[descriptor]
        if event & 0x004 and not written.is_writable:
            written.is_writable = True
            self._flush(written)
        if event & _ENDED:
            read.has_ended = True
        if event & (0x001 | _ENDED):
            read.is_readable = True
        if read.is_readable and not read.is_done:
            self._pump(read)

    def _pump(self, flow: _Flow) -> None:
        """Read what there is, as far as the window and the line allow."""
        lane = flow.lane
        while flow.is_readable and flow.is_open and flow.on_way < _WINDOW and not flow.is_waiting:
            if flow.is_read_out:
                return
            if lane.bytes_per_second is not None and (lane.waiting or lane.is_full(time.monotonic())):
                flow.is_waiting = True
                lane.waiting.append(flow)
                return
            self._read(flow)

    def _read(self, flow: _Flow) -> None:
        room = self._read_at_once
        try:
            count = flow.source.recv_into(self._scratch, room)
        except BlockingIOError:
            flow.is_readable = False
            return
        except OSError:
            self._close(flow)
            return
        if count == 0 or (count < room and not flow.has_ended):
            flow.is_readable = False  # a short read has emptied the socket
        flow.is_read_out = count == 0
        data = self._scratch[:count]
        if flow.counter is not None:
            self._counts.sent_bytes += count
            flow.counter.feed(data)
        else:
            self._counts.received_bytes += count
        if self._is_direct:
            self._deliver(flow, data)
        else:
            flow.on_way += count
            flow.lane.send(flow, bytes(data), time.monotonic())

    def _deliver(self, flow: _Flow, data: memoryview) -> None:
        """`data` is valid during the call only."""
        if flow.is_done:
            return
        if flow.is_writable and not flow.arrived and data:
            try:
                sent = flow.target.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._close(flow)
                return
            if sent == len(data):
                if not self._is_direct:
                    flow.on_way -= sent
                return
            if not self._is_direct:
                flow.on_way -= sent
            flow.is_writable = False
            data = data[sent:]
        if self._is_direct:
            flow.on_way += len(data)
        flow.arrived.append(memoryview(bytes(data)))
        if not data:
            self._flush(flow)

    def _flush(self, flow: _Flow) -> None:
        while flow.arrived and flow.is_writable:
            data = flow.arrived[0]
            if not data:
                self._end(flow)
                return
            try:
                sent = flow.target.send(data)
            except BlockingIOError:
                flow.is_writable = False
                return
            except OSError:
                self._close(flow)
                return
            flow.on_way -= sent
            if sent < len(data):
                flow.arrived[0] = data[sent:]
                flow.is_writable = False
                return
            flow.arrived.popleft()
        if flow.is_readable and not flow.is_done:
            self._pump(flow)

    def _end(self, flow: _Flow) -> None:
        flow.is_done = True
        if flow.other.is_done:
            self._close(flow)
            return
        try:
            flow.target.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(flow)

    def _close(self, flow: _Flow) -> None:
        """The whole connection, with what is on its way."""
        for one in (flow, flow.other):
            one.is_done = True
            one.is_readable = False
            one.arrived.clear()
            if self._flows.pop(one.source.fileno(), None):
                one.source.close()

    def _pass_time(self) -> None:
        now = time.monotonic()
        while self._handshakes and self._handshakes[0][0] <= now:
            _, flow = self._handshakes.popleft()
            flow.is_open = True
            if not flow.is_done:
                self._pump(flow)
        for lane in (self._up, self._down):
            while lane.travelling and lane.travelling[0][0] <= now:
                _, flow, data = lane.travelling.popleft()
                self._deliver(flow, memoryview(data))
                if flow.is_readable and not flow.is_done:
                    self._pump(flow)
            while lane.waiting and not lane.is_full(now):
                flow = lane.waiting.popleft()
                flow.is_waiting = False
                if flow.is_readable and not flow.is_done:
                    self._read(flow)
                    if flow.is_readable and flow.on_way < _WINDOW and not flow.is_done:  # type: ignore[redundant-expr]
                        flow.is_waiting = True
                        lane.waiting.append(flow)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--round-trip", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--bits-per-second", type=float, metavar="RATE")
    options = parser.parse_args()
    rate = options.bits_per_second / 8 if options.bits_per_second else None
    proxy = _Proxy(options.host, options.port, options.round_trip, rate)
    print(proxy.port, flush=True)
    proxy.run()


if __name__ == "__main__":
    main()
