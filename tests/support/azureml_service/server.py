"""The https server: reads requests, applies the faults that stand between wire and handler, counts calls."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.support.throwaway_ca import Certificate
from tests.support.wire_faults import WireReply, send

from .faults import Faults
from .replies import NO_BODY, RefusedError, Reply, Request, arm_error

_WORTH_PACKING = 1000
_OPEN = ("/metadata/", "/discovery")
"""Paths that need no login."""


@dataclass(frozen=True)
class Call:
    """One request that came in; `status` is 0 where the answer was lost. `headers` have lower-case names."""

    method: str
    path: str
    api_version: str
    status: int
    at_s: float
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None


class Server:
    """`answer` gets every request that no fault has taken; `calls` leaves out the look-up of clouds."""

    def __init__(self, certificate: Certificate, faults: Faults, answer: Callable[[Request], Reply]) -> None:
        self.calls: list[Call] = []
        self.faults = faults
        self._answer = answer
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.certificate, certificate.key)
        handler = type("Handler", (_Handler,), {"server_side": self})
        self._http = _Http(("127.0.0.1", 0), handler)
        # The handshake is left to the connection's own thread: no other waits for a slow client.
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), name="azureml", daemon=True)

    @property
    def port(self) -> int:
        return self._http.server_port

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
        self._http.end_connections()

    def reply_to(self, method: str, target: str, headers: Any, data: bytes) -> Reply | None:
        """None: the answer gets lost."""
        url = urlsplit(target)
        path = unquote(url.path)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        if path.startswith("/metadata/"):
            return self._handled(Request(method, path, query, {}))
        if self.faults.latency_s:
            time.sleep(self.faults.latency_s)
        reply, is_lost = self.faults.next_for(method, path)
        if reply is None:
            reply = self._checked(method, path, query, headers, data)
        status = 0 if is_lost else reply.status
        sent = {name.lower(): value for name, value in headers.items()}
        version = query.get("api-version", "")
        self.calls.append(Call(method, path, version, status, time.monotonic(), sent, _json(data)))
        return None if is_lost else reply

    def _checked(self, method: str, path: str, query: dict[str, str], headers: Any, data: bytes) -> Reply:
        if not path.startswith(_OPEN):
            scheme, _, token = headers.get("Authorization", "").partition(" ")
            if scheme != "Bearer" or token.count(".") != 2:
                challenge = {"WWW-Authenticate": 'Bearer authorization_uri="https://login.microsoftonline.com/"'}
                return arm_error(401, "AuthenticationFailed", "The 'Authorization' header is missing.", challenge).reply
        if path.lower().startswith("/subscriptions/") and not query.get("api-version"):
            text = "The api-version query parameter (?api-version=) is required for all requests."
            return arm_error(400, "MissingApiVersionParameter", text).reply
        try:
            body = json.loads(data) if data else {}
        except ValueError:
            return arm_error(400, "InvalidRequestContent", "The request content was invalid: it is not JSON.").reply
        return self._handled(Request(method, path, query, body or {}))

    def _handled(self, request: Request) -> Reply:
        try:
            return self._answer(request)
        except RefusedError as error:
            return error.reply
        except Exception:  # noqa: BLE001 - a mistake of the service itself has to be seen on both ends
            text = traceback.format_exc()
            sys.stderr.write(text)
            return Reply(500, {"error": {"code": "ServiceIsWrong", "message": text}})


def _json(data: bytes) -> Any:
    try:
        return json.loads(data) if data else None
    except ValueError:
        return data


class _Http(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        for one in list(self._open):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that went away is nothing to report
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server_side: ClassVar[Server]

    def _serve(self) -> None:
        began = time.monotonic()
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        wire = self.server_side.faults.wire
        if wire is not None and (fault := wire(self.command, self.path)) is not None:
            fault(self, lambda: self._wire_reply(data, began) or WireReply(500))
        elif (reply := self._wire_reply(data, began)) is None:
            self.close_connection = True
        else:
            send(self, reply)

    def _wire_reply(self, data: bytes, began: float) -> WireReply | None:
        """None: the answer gets lost."""
        reply = self.server_side.reply_to(self.command, self.path, self.headers, data)
        if reply is None:
            return None
        sent = b"" if reply.body is NO_BODY else json.dumps(reply.body).encode()
        is_packed = len(sent) > _WORTH_PACKING and "gzip" in self.headers.get("Accept-Encoding", "")
        sent = gzip.compress(sent) if is_packed else sent
        headers = {
            "Server": self.version_string(),
            "Date": self.date_time_string(),
            "x-ms-correlation-request-id": self.headers.get("x-ms-correlation-request-id") or str(uuid.uuid4()),
            "x-ms-request-id": str(uuid.uuid4()),
            "x-request-time": f"{time.monotonic() - began:.3f}",
            **({"x-ms-ratelimit-remaining-subscription-reads": "11999"} if self.command == "GET" else {}),
            **({} if reply.body is NO_BODY else {"Content-Type": "application/json; charset=utf-8"}),
            **({"Content-Encoding": "gzip"} if is_packed else {}),
            **reply.headers,
        }
        return WireReply(reply.status, headers, sent)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = _serve

    def date_time_string(self, timestamp: float | None = None) -> str:
        ahead_s = self.server_side.faults.clock_ahead_s
        return super().date_time_string((time.time() if timestamp is None else timestamp) + ahead_s)

    def log_message(self, format: str, *args: object) -> None:
        pass
