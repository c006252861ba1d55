"""Azurite under the names of the real storage hosts: an https proxy that ends the encryption itself.

The SDK makes the address of a blob from the account's name alone, and nothing can make it use another one.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from tests.support.azurite import Azurite
from tests.support.throwaway_ca import Certificate

BLOB_HOSTS = "blob.core.windows.net"
_PIECE = 1 << 18


class StorageFront:
    """Serves CONNECT to hosts below BLOB_HOSTS, and to nothing else."""

    def __init__(self, certificate: Certificate, azurite: Azurite, authority: Path | None) -> None:
        """`authority` signs the certificate of an https Azurite."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.certificate, certificate.key)
        url = urlsplit(azurite.url)
        inner = ssl.create_default_context(cafile=authority) if authority else None
        target = (url.hostname, url.port)
        handler = type("Handler", (_Handler,), {"context": context, "target": target, "inner": inner})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), name="storage", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True
    context: ClassVar[ssl.SSLContext]
    target: ClassVar[tuple[str, int]]
    inner: ClassVar[ssl.SSLContext | None]

    def do_CONNECT(self) -> None:
        if not self.path.partition(":")[0].endswith(f".{BLOB_HOSTS}"):
            self.send_error(403, "only blobs are served")
            return
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        try:
            with (
                self.context.wrap_socket(self.connection, server_side=True, do_handshake_on_connect=True) as client,
                socket.create_connection(self.target) as plain,
            ):
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.inner is None:
                    _exchange(client, plain)
                else:
                    with self.inner.wrap_socket(plain, server_hostname="127.0.0.1") as service:
                        _exchange(client, service)
        except OSError:  # the client has gone
            return

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _exchange(client: ssl.SSLSocket, service: socket.socket) -> None:
    """Until one of them ends. On one thread: an encrypted connection is not for two."""
    other: dict[socket.socket, socket.socket] = {client: service, service: client}
    while True:
        decrypted = [one for one in other if isinstance(one, ssl.SSLSocket) and one.pending()]
        ready = decrypted or select.select([client, service], [], [])[0]
        for source in ready:
            data = source.recv(_PIECE)
            if not data:
                return
            other[source].sendall(data)
