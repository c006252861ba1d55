"""The simulated network of the benchmarks: what it counts, how long it takes, how much goes through."""

from __future__ import annotations

import http.client
import select
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.link import Counts, RequestCounter, running_link

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="the link needs epoll")


class _Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_PUT(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        self._reply(str(len(body)).encode())

    def do_GET(self) -> None:
        self._reply(b"x" * int(self.path[1:]))

    def _reply(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Service)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def _connection(port: int) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _asked(connection: http.client.HTTPConnection, verb: str, path: str, body: object = None) -> bytes:
    connection.request(verb, path, body)  # type: ignore[arg-type]
    return connection.getresponse().read()


@pytest.mark.parametrize("round_trip_s", [0.0, 0.002])
def test_requests_of_many_connections_are_counted(service: int, round_trip_s: float) -> None:
    with running_link("127.0.0.1", service, round_trip_s=round_trip_s) as link:

        def client(number: int) -> None:
            connection = _connection(link.port)
            for turn in range(30):
                size = 1000 * turn + number
                assert _asked(connection, "PUT", "/a", b"b" * size) == str(size).encode()
                assert len(_asked(connection, "GET", f"/{size}")) == size
            assert _asked(connection, "PUT", "/chunked", iter([b"one", b"twenty-two", b"3" * 40_000])) == b"40013"
            connection.close()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(client, range(8)))
        bodies = sum(1000 * turn + number for turn in range(30) for number in range(8))
        counts = link.counts()
        assert (counts.requests, counts.connections) == (8 * 61, 8)
        assert counts.verbs == {"PUT": 8 * 31, "GET": 8 * 30}
        assert counts.sent_body_bytes == bodies + 8 * 40_013
        assert 0 < counts.sent_bytes - counts.sent_body_bytes < 8 * 61 * 300
        assert 0 < counts.received_bytes - bodies < 8 * 61 * 300
        link.reset()
        assert link.counts() == Counts()


def test_a_request_takes_a_round_trip_and_a_connection_another(service: int) -> None:
    with running_link("127.0.0.1", service, round_trip_s=0.06) as link:
        connection = _connection(link.port)
        times = []
        for _ in range(10):
            started = time.perf_counter()
            _asked(connection, "GET", "/10")
            times.append(time.perf_counter() - started)
        connection.close()
    assert times[0] >= 0.12
    assert min(times[1:]) >= 0.06
    assert min(times[1:]) < 0.12  # which two would take


@pytest.mark.parametrize("verb", ["PUT", "GET"])
def test_all_connections_share_the_line(service: int, verb: str) -> None:
    size, count = 1_000_000, 4
    with running_link("127.0.0.1", service, round_trip_s=0.01, bits_per_second=50e6) as link:

        def transfer(_: int) -> None:
            connection = _connection(link.port)
            body = b"b" * size if verb == "PUT" else None
            _asked(connection, verb, f"/{size}", body)
            connection.close()

        started = time.perf_counter()
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(transfer, range(count)))
        seconds = time.perf_counter() - started
    # A busy machine may take longer; four lines instead of one would take a quarter.
    assert seconds >= 0.85 * size * count * 8 / 50e6


def test_the_line_can_become_another(service: int) -> None:
    with running_link("127.0.0.1", service) as link:
        connection = _connection(link.port)
        _asked(connection, "GET", "/10")
        link.shape(0.06)
        started = time.perf_counter()
        _asked(connection, "GET", "/10")
        assert time.perf_counter() - started >= 0.06
        link.shape(0.0)
        times = []
        for _ in range(20):
            started = time.perf_counter()
            _asked(connection, "GET", "/10")
            times.append(time.perf_counter() - started)
        assert min(times) < 0.06
        connection.close()


def test_a_side_that_ends_is_passed_on(service: int) -> None:
    with running_link("127.0.0.1", service, round_trip_s=0.002) as link:
        with socket.create_connection(("127.0.0.1", link.port), timeout=30) as client:
            client.sendall(b"GET /100000 HTTP/1.1\r\nHost: a\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            received = b"".join(iter(lambda: client.recv(65536), b""))
        assert received.endswith(b"x" * 100_000)


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_requests_are_found_however_they_are_cut(step: int) -> None:
    stream = (
        b"PUT /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\ncontent-length: 5\r\n\r\nGET /"
        b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n"
        b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"a;name=value\r\n0123456789\r\n4\r\n\r\n\r\n\r\n0\r\nTrailer: GET / HTTP/1.1\r\n\r\n"
        b"DELETE /d HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
    )
    counts = Counts()
    counter = RequestCounter(counts)
    for start in range(0, len(stream), step):
        counter.feed(memoryview(stream[start : start + step]))
    assert counts.verbs == {"PUT": 1, "GET": 1, "POST": 1, "DELETE": 1}
    assert counts.sent_body_bytes == 5 + 14
