"""The program that answers for a `blob_account.Service` over HTTP, path style; prints its port."""

from __future__ import annotations

import asyncio
import sys
from urllib.parse import unquote, unquote_plus

from blob_account import Request, Service, http_time

_HEAD_LIMIT = 1 << 16
_REASONS = {
    200: "OK", 201: "Created", 202: "Accepted", 206: "Partial Content", 304: "Not Modified", 400: "Bad Request",
    404: "Not Found", 409: "Conflict", 411: "Length Required", 412: "Precondition Failed", 416: "Invalid Range",
}  # fmt: skip


class Connection(asyncio.BufferedProtocol):
    """One client; its requests are answered in their order."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._scratch = bytearray(_HEAD_LIMIT)
        self._filled = 0
        self._request: Request | None = None
        self._body = bytearray()
        self._body_filled = 0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._request is not None:
            return memoryview(self._body)[self._body_filled :]
        return memoryview(self._scratch)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._request is not None:
            self._body_filled += nbytes
            if self._body_filled == len(self._body):
                self._finish(self._request)
            return
        self._filled += nbytes
        while self._filled and self._request is None:
            end = self._scratch.find(b"\r\n\r\n", 0, self._filled)
            if end < 0:
                if self._filled == len(self._scratch):
                    self._transport.abort()
                return
            self._begin(bytes(self._scratch[:end]).decode("latin-1"), end + 4)

    def _begin(self, head: str, used: int) -> None:
        """The head is there; take what there is of the body."""
        line, *lines = head.split("\r\n")
        verb, target, _ = line.split(" ", 2)
        headers = {}
        for text in lines:
            name, _, value = text.partition(":")
            headers[name.lower()] = value.strip()
        if "transfer-encoding" in headers:
            self._transport.write(b"HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self._transport.close()
            self._filled = 0
            return
        path, _, query = target.partition("?")
        if not path.startswith("/"):
            path = "/" + path.split("/", 3)[3]
        _, container, blob = (*unquote(path[1:]).split("/", 2), "", "")[:3]
        pairs = {unquote_plus(name): unquote(value) for name, _, value in (p.partition("=") for p in query.split("&"))}
        size = int(headers.get("content-length") or 0)
        there = min(size, self._filled - used)
        self._request = Request(verb, container, blob, pairs, headers)
        self._body = bytearray(size)
        self._body[:there] = self._scratch[used : used + there]
        self._body_filled = there
        rest = self._filled - used - there
        self._scratch[:rest] = self._scratch[used + there : self._filled]
        self._filled = rest
        if there == size:
            self._finish(self._request)
        elif headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _finish(self, request: Request) -> None:
        self._request = None
        body, self._body = self._body, bytearray()
        complete = Request(request.verb, request.container, request.blob, request.query, request.headers, body)
        status, headers, parts = self._service.answer(complete)
        size = sum(len(part) for part in parts)
        lines = [f"HTTP/1.1 {status} {_REASONS[status]}", f"Date: {http_time()}", "Server: memory"]
        lines += ["x-ms-version: 2021-12-02", "x-ms-request-id: 00000000-0000-0000-0000-000000000000"]
        if "x-ms-client-request-id" in request.headers:
            lines.append(f"x-ms-client-request-id: {request.headers['x-ms-client-request-id']}")
        if request.verb == "PUT":
            lines.append("x-ms-request-server-encrypted: true")
        if "Content-Length" not in headers and status != 304:
            lines.append(f"Content-Length: {size}")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._transport.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        if request.verb != "HEAD":
            for part in parts:
                self._transport.write(part)
        if request.headers.get("connection", "").lower() == "close":
            self._transport.close()


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    service = Service()
    server = await loop.create_server(lambda: Connection(service), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(_serve())
