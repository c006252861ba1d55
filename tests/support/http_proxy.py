"""A forward proxy that asks for a login: CONNECT tunnels, and whole URLs for plain http."""

from __future__ import annotations

import base64
import http.client
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_LOGIN = "someone:pass word"


@dataclass
class ForwardProxy:
    """`url` has the login in it. `tunnels` and `passed` are the hosts (with port) that were reached through it."""

    url: str
    tunnels: list[str] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)


@contextmanager
def running_forward_proxy() -> Iterator[ForwardProxy]:
    expected = "Basic " + base64.b64encode(_LOGIN.encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_CONNECT(self) -> None:
            if self.headers.get("Proxy-Authorization") != expected:
                self.send_error(407)
                return
            proxy.tunnels.append(self.path)
            host, _, port = self.path.rpartition(":")
            with socket.create_connection((host, int(port))) as there:
                self.send_response_only(200)
                self.end_headers()
                _splice(self.connection, there)
            self.close_connection = True

        def _pass_on(self) -> None:
            # Also before a refusal: closing a connection with unread bytes resets it, and the answer may be lost.
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Proxy-Authorization") != expected:
                self.send_error(407)
                return
            target = urlsplit(self.path)
            proxy.passed.append(target.netloc)
            connection = http.client.HTTPConnection(target.hostname or "", target.port)
            path = target.path + (f"?{target.query}" if target.query else "")
            headers = {name: value for name, value in self.headers.items() if not name.lower().startswith("proxy-")}
            connection.request(self.command, path, data or None, headers)
            response = connection.getresponse()
            body = response.read()
            self.send_response_only(response.status)
            for name, value in response.getheaders():
                if name.lower() not in ("connection", "transfer-encoding", "content-length", "keep-alive"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            connection.close()

        do_GET = do_PUT = do_DELETE = _pass_on

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    proxy = ForwardProxy(f"http://{_LOGIN.replace(' ', '%20')}@127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _splice(one: socket.socket, two: socket.socket) -> None:
    """Both ways, until either side has said all."""
    with suppress(OSError):
        while True:
            for source in select.select([one, two], [], [])[0]:
                data = source.recv(1 << 16)
                if not data:
                    return
                (two if source is one else one).sendall(data)
