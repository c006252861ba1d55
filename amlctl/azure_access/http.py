"""An HTTP/1.1 answer whose headers are read into a plain dict.

`http.client` reads them with the parser of e-mails: a good part of the processor time that a small request costs
(measured: a Put Blob of 20 kB 0.53 ms with it and 0.43 ms with this, a Get Blob 0.96 and 0.52 ms). Framing is that
of RFC 9112, 6.3.
"""

from __future__ import annotations

import email.utils
import http.client
import select
import socket
import ssl
import time
from collections.abc import Callable, Mapping

from amlctl.errors import AmlctlError, ServiceUnavailable
from amlctl.localfs.disk_errors import limit_error

ANSWER_S = 30.0
"""Longest wait for the first byte of an answer."""
_LARGE_BODY_ANSWER_S = 60.0
"""The same after a body that may still be on its way: the kernel buffers megabytes, which take long on a slow line."""
_LARGE_BODY = 256 << 10
_QUIET_S = 5.0
"""A wait is reported each time that this has passed."""
_MOST_LINES = 200
_LONGEST_LINE = 65_536


class Response(http.client.HTTPResponse):
    """`fields` are the headers by their lower-case names; of several alike the last counts."""

    fields: dict[str, str]

    def begin(self) -> None:
        """Raises HTTPException where it is no answer of HTTP."""
        if self.headers is not None:
            return
        while True:
            version, status, reason = self._read_status()
            self.fields = self._read_fields()
            if status != http.client.CONTINUE:
                break
        self.code = self.status = status
        self.reason = reason.strip()
        self.version = 10 if version in ("HTTP/1.0", "HTTP/0.9") else 11
        self.headers = self.msg = http.client.HTTPMessage()  # nobody asks: see `fields`
        self.chunked = self.fields.get("transfer-encoding", "").lower() == "chunked"
        self.chunk_left = None
        connection = self.fields.get("connection", "").lower()
        self.will_close = "close" in connection or (self.version == 10 and "keep-alive" not in connection)
        length = self.fields.get("content-length", "")
        self.length = int(length) if length.isdecimal() and not self.chunked else None
        if (
            status in (http.client.NO_CONTENT, http.client.NOT_MODIFIED)
            or 100 <= status < 200
            or self._method == "HEAD"
        ):
            self.length = 0
        if not self.will_close and not self.chunked and self.length is None:
            self.will_close = True

    def _read_fields(self) -> dict[str, str]:
        fields: dict[str, str] = {}
        for _ in range(_MOST_LINES):
            line = self.fp.readline(_LONGEST_LINE + 1)
            if len(line) > _LONGEST_LINE:
                raise http.client.LineTooLong("header line")
            if not line.endswith(
                b"\n"
            ):  # a connection that ended here has lost the rest, perhaps the length of the body
                raise http.client.IncompleteRead(line)
            if line in (b"\r\n", b"\n"):
                return fields
            name, separator, value = line.decode("iso-8859-1").partition(":")
            if separator:
                fields[name.strip().lower()] = value.strip()
        raise http.client.HTTPException(f"more than {_MOST_LINES} headers")


def answer_of(
    connection: http.client.HTTPConnection, sent_bytes: int, on_silence: Callable[[float, float], None]
) -> Response:
    """The answer to the request that was sent last, whose body had `sent_bytes`. Raises OSError, HTTPException.

    `on_silence(waited_s, limit_s)` is called every few seconds while no answer comes.
    """
    if not _is_readable(connection.sock):
        limit_s = ANSWER_S if sent_bytes < _LARGE_BODY else _LARGE_BODY_ANSWER_S
        begun_s = time.monotonic() - _QUIET_S
        while (waited_s := time.monotonic() - begun_s) < limit_s:
            on_silence(waited_s, limit_s)
            if _is_readable(connection.sock):
                break
        else:
            raise NoAnswer(limit_s)
    response = connection.getresponse()
    assert isinstance(response, Response)
    return response


class NoAnswer(TimeoutError):
    """Sent, and no byte came back."""

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"no answer within {limit_s:.0f} s")


def _is_readable(answering: socket.socket) -> bool:
    """Whether there is a byte, or the end of the connection, within `_QUIET_S`."""
    ready = select.poll()  # not select.select, which fails for descriptors above 1023
    ready.register(answering, select.POLLIN)
    return bool(ready.poll(_QUIET_S * 1000))


def retry_after_s(fields: Mapping[str, str]) -> float:
    """What the service asks for; 0 where it says nothing."""
    text = fields.get("retry-after", "")
    milliseconds = fields.get("x-ms-retry-after-ms", fields.get("retry-after-ms", ""))
    try:
        if milliseconds:
            return float(milliseconds) / 1000
        if text.isdecimal():
            return float(text)
    except ValueError:
        return 0.0
    moment_s = moment_of(text)
    return 0.0 if moment_s is None else max(0.0, moment_s - time.time())


def moment_of(text: str) -> float | None:
    """Seconds since the epoch; None where the text is no date of HTTP."""
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None


class ProxyUnreachable(OSError):
    """`proxy` is its host and port; the message says why."""

    def __init__(self, proxy: str, error: OSError) -> None:
        super().__init__("its host is not known" if isinstance(error, socket.gaierror) else str(error))
        self.proxy = proxy


def unreachable(host: str, error: Exception, named_by: str, attempts: str = "") -> AmlctlError:
    """`named_by` is what the host's name comes from, for who has mistyped it; `attempts`: `6 attempts in 12 s`."""
    if (ours := limit_error(error, f"cannot connect to {host}")) is not None:
        return ours
    if isinstance(error, ProxyUnreachable):
        return ServiceUnavailable(
            f"the proxy {error.proxy} on the way to {host} does not answer: {error}",
            hint="check HTTPS_PROXY, or name the host in NO_PROXY; then run the same command again",
        )
    if isinstance(error, socket.gaierror):
        return ServiceUnavailable(
            f"the host {host} is not known", hint=f"check the name of the {named_by}, and the network"
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return ServiceUnavailable(
            f"the certificate of {host} is not trusted: {error.verify_message}",
            hint="behind a proxy that opens TLS: REQUESTS_CA_BUNDLE=/path/to/its.pem",
        )
    what = _what(error)
    if "Tunnel connection failed" in what:
        return refused_by_proxy(host, what.removeprefix("Tunnel connection failed: "))
    return ServiceUnavailable(
        f"{host} does not answer: {what}" + (f" ({attempts})" if attempts else ""),
        hint="check the network, then run the same command again; nothing is lost",
    )


def reason_of(error: Exception) -> str:
    """Why a request has to be repeated, in a few words."""
    if isinstance(error, ProxyUnreachable):
        return f"no connection to the proxy {error.proxy}: {error}"
    if isinstance(error, socket.gaierror):
        return "the host is not known"
    return _what(error)


def is_silence(error: Exception) -> bool:
    """Whether the other side, or a proxy on the way to it, has said nothing for as long as it may take."""
    return isinstance(error.__cause__ if isinstance(error, ProxyUnreachable) else error, TimeoutError)


def _what(error: Exception) -> str:
    if isinstance(error, TimeoutError) and not isinstance(error, NoAnswer):
        return "timed out"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the connection ended without an answer"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection ended in the middle of an answer"
    if isinstance(error, OSError) and error.strerror and not isinstance(error, ssl.SSLError):
        return error.strerror[:1].lower() + error.strerror[1:]
    return str(error) or type(error).__name__


def refused_by_proxy(host: str, why: str) -> ServiceUnavailable:
    return ServiceUnavailable(
        f"the proxy does not let us through to {host}: {why}",
        hint="check HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT, or name the host in NO_PROXY",
    )


def is_lasting(error: Exception) -> bool:
    """Whether it does not pass by waiting: a certificate that nobody trusts, a proxy that wants another login."""
    return isinstance(error, ssl.SSLCertVerificationError) or " 407 " in str(error)
