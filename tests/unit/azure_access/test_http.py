"""Requests and answers are framed as RFC 9112 has it, whatever their headers look like."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from amlctl.azure_access.connections import Connections
from amlctl.azure_access.http import WireResponse, response_to
from amlctl.azure_access.network_errors import reason_of


@pytest.fixture
def ask() -> Callable[..., tuple[WireResponse, bytes, bool]]:
    """Sends a request to a peer that says `said`; the answer, its body, and whether the connection stays open."""

    def send(said: bytes, verb: str = "GET") -> tuple[WireResponse, bytes, bool]:
        one, other = socket.socketpair()

        def serve() -> None:
            other.recv(1 << 16)
            with other, suppress(ConnectionError):  # an answer that is too long is not read to its end
                other.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            one.sendall(f"{verb} / HTTP/1.1\r\n\r\n".encode())
            with response_to(one, verb, 0, lambda waited_s, limit_s: None, lambda: None) as response:
                return response, response.read(), not response.will_close
        finally:
            one.close()
            thread.join()

    return send


def test_headers_are_found_in_any_case_and_spacing(ask: Callable[..., tuple[WireResponse, bytes, bool]]) -> None:
    said = b'HTTP/1.1 200 OK\r\nETag:  "a:b" \r\nX-Ms-Meta-A:\r\nContent-LENGTH: 4\r\nno header\r\n\r\nbody'
    response, body, goes_on = ask(said)
    assert response.fields == {"etag": '"a:b"', "x-ms-meta-a": "", "content-length": "4"}
    assert (response.status, response.reason, body, goes_on) == (200, "OK", b"body", True)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("fields", [[], [b"content-length: 6"]])
def test_a_body_that_looks_like_the_end_of_headers(
    ask: Callable[..., tuple[WireResponse, bytes, bool]], end: bytes, fields: list[bytes]
) -> None:
    said = end.join([b"HTTP/1.1 200 OK", *fields, b"", b"a\r\n\r\nb"])
    assert ask(said)[1] == b"a\r\n\r\nb"


@pytest.mark.parametrize("ends", ["\n\r\n", "\r\n\n", "\n\n"])
def test_line_ends_of_both_kinds_in_one_head(ask: Callable[..., tuple[WireResponse, bytes, bool]], ends: str) -> None:
    head = f"HTTP/1.1 200 OK\r\nA: b\nContent-Length: 9\r\nC: d{ends}"
    response, body, goes_on = ask(head.encode() + b"a\r\n\r\nb\n\nc")
    assert response.fields == {"a": "b", "content-length": "9", "c": "d"}
    assert (body, goes_on) == (b"a\r\n\r\nb\n\nc", True)


def test_chunks(ask: Callable[..., tuple[WireResponse, bytes, bool]]) -> None:
    said = b"HTTP/1.1 206 Partial Content\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
    response, body, goes_on = ask(said)
    assert (response.status, body, goes_on) == (206, b"abcde", True)


@pytest.mark.parametrize(
    ("head", "verb"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "HEAD"),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "GET"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "GET"),
    ],
)
def test_answers_without_a_body(ask: Callable[..., tuple[WireResponse, bytes, bool]], head: bytes, verb: str) -> None:
    _, body, goes_on = ask(head, verb)
    assert (body, goes_on) == (b"", True)


def test_continue_is_passed_over(ask: Callable[..., tuple[WireResponse, bytes, bool]]) -> None:
    said = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
    assert ask(said)[0].status == 201


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 4\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"4" * 5000 + b"\r\n\r\n",
    ],
)
def test_a_connection_that_ends_is_not_kept(ask: Callable[..., tuple[WireResponse, bytes, bool]], head: bytes) -> None:
    _, body, goes_on = ask(head + b"body")
    assert (body, goes_on) == (b"body", False)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 20",
        b"HTTP/1.1 200 " + b"OK" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000 + b"\r\n",
    ],
)
def test_other_answers_are_an_error_of_http(ask: Callable[..., tuple[WireResponse, bytes, bool]], said: bytes) -> None:
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        ask(said)


def test_the_head_of_a_request() -> None:
    connections = Connections("::1", 8000, is_https=False, variables={})
    head = connections.request_head("GET", "/c/b?x=%20", {"x-ms-version": "2021-12-02"})
    assert head.split(b"\r\n") == [
        b"GET /c/b?x=%20 HTTP/1.1",
        b"host: [::1]:8000",
        b"accept-encoding: identity",
        b"x-ms-version: 2021-12-02",
        b"",
        b"",
    ]
    with_default_port = Connections("peer", 443, is_https=True, variables={})
    assert with_default_port.request_head("PUT", "/c", {}) == b"PUT /c HTTP/1.1\r\nhost: peer\r\n\r\n"


@pytest.mark.parametrize("target", ["/c/a b", "/c/a\r\nx: y", "/c/a\x00", "/c/ä"])
def test_a_path_that_is_not_quoted_is_never_sent(target: str) -> None:
    with pytest.raises(http.client.InvalidURL):
        Connections("peer", 80, is_https=False, variables={}).request_head("GET", target, {})


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb: c", "a\rb", "\r\n"])
def test_a_header_never_becomes_two(value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        Connections("peer", 80, is_https=False, variables={}).request_head("GET", "/c", {"x": value})


def test_an_end_of_tls_is_reported_as_one_of_any_connection() -> None:
    cut = ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "EOF occurred in violation of protocol (_ssl.c:1)")
    assert reason_of(cut) == reason_of(http.client.RemoteDisconnected("x"))
