"""HTTP/1.1 responses.

`http.client` reads headers with the e-mail parser, which takes much of the processor time of a small request: a Put
Blob of 20 kB costs 0.53 ms with it and 0.43 ms with `WireResponse`, a Get Blob 0.96 and 0.52 ms. It also writes one
header at a time: a head in one piece (`Connections.request_head`) saves a tenth of the instructions of either.
"""

from __future__ import annotations

import email.utils
import fcntl
import http.client
import io
import json
import re
import select
import socket
import sys
import termios
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from azure.core.exceptions import HttpResponseError
from azure.core.rest import HttpResponse

from amlctl.azure_access.network_errors import NoResponse

ANSWER_S = 30.0
"""Longest wait for the first byte of a response."""
_LARGE_BODY_ANSWER_S = 60.0
"""The same after a large body, which may still be in the kernel's buffers on a slow line."""
_LARGE_BODY = 256 << 10
_QUIET_S = 5.0
"""A wait is reported each time this has passed."""
_LOOKS = 25
"""In that time, at what of a large body has arrived."""
_SO_NWRITE = 0x1024
"""Of macOS, which Python does not name."""
_MAX_HEAD = 1 << 16
"""Bytes before a body."""
LONGEST_NUMBER = 18
"""Digits; `int` refuses thousands of them."""
_STATUS_LINE = re.compile(r"(?P<version>HTTP/1\.\d)\s+(?P<status>[1-9]\d\d)(?P<reason>|\s.*)")


class _Arriving(io.RawIOBase):
    """What a socket receives; `on_bytes` gets its size while one large read is still waiting for the rest."""

    def __init__(self, receiving: socket.socket) -> None:
        self._raw = receiving.makefile("rb", buffering=0)
        self.on_bytes: Callable[[int], None] | None = None

    def makefile(self, mode: str) -> io.BufferedReader:
        """`HTTPResponse` takes a socket only for this."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        size = self._raw.readinto(buffer)
        if size and self.on_bytes is not None:
            self.on_bytes(size)
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()


class WireResponse(http.client.HTTPResponse):
    """`fields` are the headers by their lower-case names; the last of equal names counts. Framing: RFC 9112, 6.3."""

    fields: dict[str, str]

    def __init__(self, answering: socket.socket, *, method: str) -> None:
        self._arriving = _Arriving(answering)
        self._requested = method
        super().__init__(self._arriving, method=method)  # type: ignore[arg-type]

    def report(self, on_bytes: Callable[[int], None]) -> None:
        """`on_bytes` gets the size of the rest of the body as it arrives. Some of it may be in the buffer already."""
        self._arriving.on_bytes = on_bytes

    def begin(self) -> None:
        """Raises HTTPException for anything but HTTP."""
        status = http.client.CONTINUE
        while status == http.client.CONTINUE:
            version, status, self.reason = self._read_status_line()
            self.fields = _fields_of(self._read_field_lines())
        self.code = self.status = status
        self.version = 10 if version == "HTTP/1.0" else 11
        self.headers = self.msg = http.client.HTTPMessage()  # unused: see `fields`
        self.chunked = self.fields.get("transfer-encoding", "").lower() == "chunked"
        self.chunk_left = None
        connection = self.fields.get("connection", "").lower()
        self.will_close = "close" in connection or (self.version == 10 and "keep-alive" not in connection)
        length = self.fields.get("content-length", "")
        is_number = length.isdecimal() and len(length) <= LONGEST_NUMBER
        self.length = int(length) if is_number and not self.chunked else None
        has_no_body = status in (http.client.NO_CONTENT, http.client.NOT_MODIFIED) or 100 <= status < 200
        if has_no_body or self._requested == "HEAD":
            self.length = 0
        if not self.will_close and not self.chunked and self.length is None:
            self.will_close = True

    def _read_status_line(self) -> tuple[str, int, str]:
        """Version, status and reason."""
        line = self.fp.readline(_MAX_HEAD)
        if not line:
            raise http.client.RemoteDisconnected("the connection ended without an answer")
        found = _STATUS_LINE.fullmatch(line.decode("iso-8859-1").rstrip())
        if found is None:
            raise http.client.BadStatusLine(repr(line[:200]))
        return found["version"], int(found["status"]), found["reason"].strip()

    def _read_field_lines(self) -> list[str]:
        """Mostly they have arrived together, and are taken together: line by line takes 20 µs longer."""
        arrived = self.fp.peek()
        end = arrived.find(b"\n\r\n")
        if end > 0 and not arrived.startswith((b"\r\n", b"\n")) and arrived.find(b"\n\n", 0, end + 1) < 0:
            return self.fp.read(end + 3).decode("iso-8859-1").split("\n")
        lines: list[str] = []
        most = _MAX_HEAD
        while (line := self.fp.readline(most)) not in (b"\r\n", b"\n"):
            most -= len(line)
            if most <= 0:
                raise http.client.LineTooLong("response headers")
            if not line.endswith(b"\n"):  # cut off: the length of the body may be missing
                raise http.client.IncompleteRead(line)
            lines.append(line.decode("iso-8859-1"))
        return lines


def _fields_of(lines: Iterable[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in lines:
        name, separator, value = line.partition(":")
        if separator:
            fields[name.strip().lower()] = value.strip()
    return fields


def unsent_bytes(sending: socket.socket) -> int:
    """What the other side has not confirmed yet, as far as the kernel tells: on a slow line these are megabytes."""
    try:
        if sys.platform == "linux":
            return int.from_bytes(fcntl.ioctl(sending.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        if sys.platform == "darwin":
            return sending.getsockopt(socket.SOL_SOCKET, _SO_NWRITE)
    except OSError:
        pass
    return 0


def response_to(
    answering: socket.socket,
    method: str,
    sent_bytes: int,
    on_silence: Callable[[float, float], None],
    on_wait: Callable[[], None],
) -> WireResponse:
    """The response to the last request, whose body had `sent_bytes`; to be closed. Raises OSError, HTTPException.

    Until the response arrives, `on_silence(waited_s, limit_s)` is called every few seconds, and `on_wait` several times
    a second after a large body.
    """
    meanwhile = on_wait if sent_bytes > _LARGE_BODY else None
    if not _is_readable(answering, meanwhile):
        limit_s = ANSWER_S if sent_bytes < _LARGE_BODY else _LARGE_BODY_ANSWER_S
        begun_s = time.monotonic() - _QUIET_S
        while (waited_s := time.monotonic() - begun_s) < limit_s:
            on_silence(waited_s, limit_s)
            if _is_readable(answering, meanwhile):
                break
        else:
            raise NoResponse(f"no answer within {limit_s:.0f} s")
    response = WireResponse(answering, method=method)
    try:
        response.begin()
    except BaseException:
        response.close()
        raise
    return response


def refusal_of_rest(answering: socket.socket, method: str) -> WireResponse | None:
    """For a request that was cut off: what a service answers that refuses a body before it has read all of it, and then
    closes the connection. To be closed. Without its own body, which is likely to be cut off as well."""
    response = WireResponse(answering, method=method)
    with suppress(OSError, http.client.HTTPException):
        response.begin()
        if response.status >= http.client.BAD_REQUEST:
            response.length, response.chunked, response.will_close = 0, False, True
            return response
    response.close()
    return None


def _is_readable(answering: socket.socket, meanwhile: Callable[[], None] | None) -> bool:
    """Whether a byte, or the end of the connection, arrives within `_QUIET_S`."""
    ready = select.poll()  # select.select fails for descriptors above 1023
    ready.register(answering, select.POLLIN)
    if meanwhile is None:
        return bool(ready.poll(_QUIET_S * 1000))
    for _ in range(_LOOKS):
        if ready.poll(_QUIET_S / _LOOKS * 1000):
            return True
        meanwhile()
    return False


class Headers(dict[str, str]):
    """Keys are lower-case; lookups ignore case."""

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name.lower())

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)


class MemoryResponse(HttpResponse):
    """A response whose body is in memory and whose connection is free again.

    Besides the documented interface of HttpResponse, azure-core reads `body()`, `internal_response` and `content_type`,
    and azure-storage-blob `location_mode`. A contract test checks that with the oldest and the newest supported SDK
    (`tests/contract/test_sdk_couplings.py`).

    `was_repeated`: an earlier attempt of the same request may have taken effect. `attempts` (`6 attempts in 12 s`) is
    set when retrying was given up.
    """

    request: Any = None
    status_code = 0
    reason = ""
    headers: Any = None
    content = b""
    encoding: str | None = None
    is_closed = True
    is_stream_consumed = True
    attempts = ""
    location_mode = "primary"

    def __init__(
        self, request: Any, status: int, reason: str, headers: Mapping[str, str], content: bytes, was_repeated: bool
    ) -> None:
        self.request = request
        self.status_code = status
        self.reason = reason
        self.headers = Headers(headers)
        self.content = content
        self.was_repeated = was_repeated
        self.context: Any = {}

    @property
    def url(self) -> str:
        return str(self.request.url)

    @property
    def content_type(self) -> str | None:
        found = self.headers.get("content-type")
        return None if found is None else str(found)

    @property
    def internal_response(self) -> MemoryResponse:
        return self

    def body(self) -> bytes:
        return self.content

    read = body

    def text(self, encoding: str | None = None) -> str:
        return self.content.decode(encoding or self.encoding or "utf-8-sig", errors="replace")

    def json(self) -> Any:
        return json.loads(self.text())

    def raise_for_status(self) -> None:
        if self.status_code >= 400:
            raise HttpResponseError(response=self)

    def iter_bytes(self, **_: Any) -> Iterator[bytes]:
        return iter((self.content,) if self.content else ())

    iter_raw = iter_bytes

    def close(self) -> None:
        """The connection is free already."""

    def __enter__(self) -> MemoryResponse:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def seconds_of(text: str) -> float | None:
    """Seconds since 1970 of an HTTP date; None for anything else."""
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
