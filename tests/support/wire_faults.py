"""Wrong replies of a service or of what stands before it, as bytes on the wire.

A fault gets the handler of a request and a function that lets the service act and returns its reply.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from types import MappingProxyType
from typing import Any

SECRETS = ("sig=c2VjcmV0", "eyJzZWNyZXQ")
"""Parts of a signature and of a token that refusals repeat."""
_ECHO = (
    "for https://account.blob.core.windows.net/c/b?sv=2024-11-04&sig=c2VjcmV0c2VjcmV0c2VjcmV0 "
    "with Authorization: Bearer eyJzZWNyZXQiOjF9.eyJzZWNyZXQiOjF9.c2lnbmF0dXJl"
)
_PAGE = f"<!DOCTYPE html><html><head><title>Blocked</title></head><body><h1>Blocked</h1>{_ECHO}</body></html>".encode()


@dataclass(frozen=True)
class WireReply:
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


Fault = Callable[[BaseHTTPRequestHandler, Callable[[], WireReply]], None]


def send(handler: BaseHTTPRequestHandler, reply: WireReply, *, times: int = 1, size_bytes: int | None = None) -> None:
    """`size_bytes` of the body alone, after which the connection ends."""
    for _ in range(times):
        handler.send_response_only(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        if "Content-Length" not in reply.headers and reply.status not in (204, 304):
            handler.send_header("Content-Length", str(len(reply.body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(reply.body[:size_bytes])
    handler.wfile.flush()
    if size_bytes is not None:
        handler.close_connection = True


def _refuse(status: int, *, is_page: bool = False, headers: Mapping[str, str] = MappingProxyType({})) -> Fault:
    """With the service's own kind of document, or with the page of a proxy."""

    def fault(handler: BaseHTTPRequestHandler, _: Callable[[], WireReply]) -> None:
        text, given = f"The request was refused {_ECHO}", headers
        if is_page:
            kind, body = "text/html", _PAGE
        elif "x-ms-version" in handler.headers:
            kind, escaped = "application/xml", text.replace("&", "&amp;")
            body = f"<?xml version='1.0'?><Error><Code>Refused</Code><Message>{escaped}</Message></Error>".encode()
            given = {"x-ms-error-code": "Refused", "x-ms-request-id": "4711", **headers}
        else:
            kind, body = "application/json", json.dumps({"error": {"code": "Refused", "message": text}}).encode()
        send(handler, WireReply(status, {"Content-Type": kind, **given}, body))

    return fault


def _change(change: Callable[[WireReply], WireReply]) -> Fault:
    """The service acts, and its reply arrives changed."""

    def fault(handler: BaseHTTPRequestHandler, act: Callable[[], WireReply]) -> None:
        reply = change(_unpacked(act()))
        headers = {name: value for name, value in reply.headers.items() if name.lower() != "content-length"}
        send(handler, replace(reply, headers=headers))

    return fault


def _unpacked(reply: WireReply) -> WireReply:
    headers = {name: value for name, value in reply.headers.items() if name.lower() != "content-encoding"}
    is_packed = len(headers) < len(reply.headers)
    return WireReply(reply.status, headers, gzip.decompress(reply.body) if is_packed else reply.body)


def _document(change: Callable[[Any], Any]) -> Fault:
    def changed(reply: WireReply) -> WireReply:
        try:
            document = json.loads(reply.body)
        except ValueError:
            return replace(reply, body=re.sub(rb">[^<>]+</", b"></", reply.body))  # XML: its values are missing
        return replace(reply, body=json.dumps(change(document)).encode())

    return _change(changed)


def _leaves(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: changed(one) for name, one in value.items()}
        return [changed(one) for one in value] if isinstance(value, list) else change(value)

    return changed


def _swapped(value: Any) -> Any:
    """A string for a number, a number for a string, a list for anything else."""
    if isinstance(value, str):
        return len(value)
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else [value]


def _inner(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The values of the outermost mapping are replaced."""
    return lambda document: (
        {name: make(value) for name, value in document.items()} if isinstance(document, dict) else make(document)
    )


def _page_for_all(reply: WireReply) -> WireReply:
    return WireReply(200, {"Content-Type": "text/html"}, _PAGE)


def _lose(handler: BaseHTTPRequestHandler, act: Callable[[], WireReply]) -> None:
    act()
    handler.close_connection = True


def _reset(handler: BaseHTTPRequestHandler, _: Callable[[], WireReply]) -> None:
    handler.close_connection = True
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(handler.connection.detach())


def _garble(handler: BaseHTTPRequestHandler, _: Callable[[], WireReply]) -> None:
    """Bytes that are neither TLS nor HTTP."""
    handler.close_connection = True
    os.write(handler.connection.fileno(), b"\x15\x99 this is not what you expect\r\n\r\n")


def _cut(handler: BaseHTTPRequestHandler, act: Callable[[], WireReply]) -> None:
    reply = act()
    length = {"Content-Length": str(max(10, len(reply.body)))}
    send(handler, replace(reply, headers={**reply.headers, **length}), size_bytes=len(reply.body) // 2)


FAULTS: Mapping[str, Fault] = {
    "400": _refuse(400),
    "401": _refuse(401),
    "403": _refuse(403),
    "403-page": _refuse(403, is_page=True),
    "404": _refuse(404),
    "404-page": _refuse(404, is_page=True),
    "407-page": _refuse(407, is_page=True),
    "409": _refuse(409),
    "412": _refuse(412),
    "429": _refuse(429, headers={"Retry-After": "0"}),
    "500": _refuse(500),
    "502-page": _refuse(502, is_page=True),
    "503": _refuse(503, headers={"Retry-After": "0"}),
    "302": _refuse(302, is_page=True, headers={"Location": "https://login.portal.example/"}),
    "empty-200": lambda handler, _: send(handler, WireReply(200)),
    "page-200": lambda handler, _: send(handler, _page_for_all(WireReply(200))),
    "page-after": _change(_page_for_all),
    "bare": _change(lambda reply: WireReply(reply.status, {}, reply.body)),
    "truncated": _change(lambda reply: replace(reply, body=reply.body[: len(reply.body) // 2])),
    "null": _document(lambda _: None),
    "list": _document(lambda document: [document]),
    "nothing-inside": _document(lambda _: {}),
    "inner-nulls": _document(_inner(lambda _: None)),
    "inner-lists": _document(_inner(lambda value: [value])),
    "inner-texts": _document(_inner(lambda _: "text")),
    "leaf-nulls": _document(_leaves(lambda _: None)),
    "leaves-swapped": _document(_leaves(_swapped)),
    "lost": _lose,
    "reset": _reset,
    "garbled": _garble,
    "cut": _cut,
    "twice": lambda handler, act: send(handler, act(), times=2),
}
