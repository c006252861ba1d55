"""An HTTP proxy in front of a service: it counts, and does to single requests what networks and services do."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.support.throwaway_ca import Certificate
from tests.support.wire_faults import Fault, WireReply


@dataclass(frozen=True)
class Seen:
    """One request; `number` counts from 1."""

    number: int
    verb: str
    path: str
    headers: Mapping[str, str]
    size_bytes: int

    @property
    def is_block(self) -> bool:
        return "comp=block&" in self.path


@dataclass(frozen=True)
class Reply:
    """Answered by the proxy itself; the service never sees the request."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class LoseAnswer:
    """The service acts, and the connection ends before its answer."""


class LoseRequest:
    """The connection ends before the service has seen anything."""


@dataclass(frozen=True)
class CutAnswer:
    """The connection ends after so many bytes of the answer's body."""

    size_bytes: int


Act = Callable[[Seen], "Reply | LoseAnswer | LoseRequest | CutAnswer | Fault | None"]


@dataclass
class FaultProxy:
    """`url` stands for the service's. `act` decides for each request; None lets it pass."""

    url: str
    act: Act = lambda seen: None
    seen: list[Seen] = field(default_factory=list)

    @property
    def sent_block_bytes(self) -> int:
        return sum(one.size_bytes for one in self.seen if one.is_block)


@contextmanager
def fault_proxy(service_url: str, certificate: Certificate | None = None) -> Iterator[FaultProxy]:
    """In front of a service that speaks plain HTTP; with a `certificate` the proxy itself speaks HTTPS."""
    service = urlsplit(service_url)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def _pass_on(self) -> None:
            size_bytes = int(self.headers.get("Content-Length") or 0)
            data = self.rfile.read(size_bytes)
            if len(data) < size_bytes:  # its client is gone
                self.close_connection = True
                return
            with lock:
                one = Seen(len(proxy.seen) + 1, self.command, self.path, dict(self.headers.items()), len(data))
                proxy.seen.append(one)
            wanted = proxy.act(one)
            if isinstance(wanted, LoseRequest):
                self.close_connection = True
                return
            if isinstance(wanted, Reply):
                self._answer(wanted.status, wanted.headers, wanted.body)
                return
            if callable(wanted):
                wanted(self, lambda: self._service_reply(data))
                return
            reply = self._service_reply(data)
            headers, body = reply.headers, reply.body
            if isinstance(wanted, LoseAnswer):
                self.close_connection = True
                return
            if isinstance(wanted, CutAnswer):
                self._answer(reply.status, {**headers, "Content-Length": str(len(body))}, body[: wanted.size_bytes])
                self.close_connection = True
                return
            self._answer(reply.status, headers, body)

        def _service_reply(self, data: bytes) -> WireReply:
            connection = http.client.HTTPConnection(service.hostname or "", service.port, timeout=30)
            try:
                connection.request(self.command, self.path, data or None, dict(self.headers.items()))
                response = connection.getresponse()
                body = response.read()
                headers = {name: value for name, value in response.getheaders() if name.lower() not in _OWN}
                if self.command == "HEAD":
                    headers["Content-Length"] = response.getheader("Content-Length", "0")
                return WireReply(response.status, headers, body)
            finally:
                connection.close()

        def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _pass_on

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that was killed goes without a word."""

    server = Server(("127.0.0.1", 0), Handler)
    scheme = "http"
    if certificate is not None:
        scheme = "https"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.certificate, certificate.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    proxy = FaultProxy(f"{scheme}://127.0.0.1:{server.server_port}{service.path}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


_OWN = frozenset({"connection", "transfer-encoding", "content-length", "keep-alive"})
