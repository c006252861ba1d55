"""Network errors in words, and which of them pass."""

from __future__ import annotations

import http.client
import socket
import ssl

from amlctl.core.message import AGAIN, Message
from amlctl.errors import AmlctlError, ServiceUnavailable
from amlctl.localfs.disk_errors import limit_error


class NoResponse(TimeoutError):
    """The request was sent and not a byte came back."""


class ProxyUnreachable(OSError):
    """`proxy` is its host and port; the message is the reason."""

    def __init__(self, proxy: str, error: OSError) -> None:
        super().__init__("its host is not known" if isinstance(error, socket.gaierror) else str(error))
        self.proxy = proxy


def unreachable(host: str, error: Exception, source: str, attempts: str = "") -> AmlctlError:
    """`source` is where the host's name comes from; `attempts`: `6 attempts in 12 s`."""
    if (limit := limit_error(error, f"cannot connect to {host}")) is not None:
        return limit
    if isinstance(error, ProxyUnreachable):
        return ServiceUnavailable(
            f"the proxy {error.proxy} for {host} does not answer: {error}",
            hint=Message("check HTTPS_PROXY, or add the host to NO_PROXY; then ", AGAIN),
        )
    if isinstance(error, socket.gaierror):
        return ServiceUnavailable(
            f"the host {host} is not known", hint=f"check the name of the {source}, and the network"
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return ServiceUnavailable(
            f"the certificate of {host} is not trusted: {error.verify_message}",
            hint="behind a proxy that opens TLS: REQUESTS_CA_BUNDLE=/path/to/its.pem",
        )
    reason = reason_of(error)
    if "Tunnel connection failed" in reason:
        return refused_by_proxy(host, reason.removeprefix("Tunnel connection failed: "))
    return ServiceUnavailable(
        f"{host} does not answer: {reason}" + (f" ({attempts})" if attempts else ""),
        hint=Message("check the network, then ", AGAIN, "; nothing is lost"),
    )


def refused_by_proxy(host: str, why: str) -> ServiceUnavailable:
    return ServiceUnavailable(
        f"the proxy refuses the connection to {host}: {why}",
        hint="check HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT, or add the host to NO_PROXY",
    )


def reason_of(error: Exception) -> str:
    """Why a request failed, in a few words."""
    if isinstance(error, ProxyUnreachable):
        return f"no connection to the proxy {error.proxy}: {error}"
    if isinstance(error, socket.gaierror):
        return "the host is not known"
    if isinstance(error, http.client.InvalidURL):
        return "the address is not valid"  # its message has the whole address, which may hold a signature
    if isinstance(error, TimeoutError) and not isinstance(error, NoResponse):
        return "timed out"
    if isinstance(error, (http.client.RemoteDisconnected, ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return "the connection ended without an answer"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection ended in the middle of an answer"
    if isinstance(error, OSError) and error.strerror and not isinstance(error, ssl.SSLError):
        return error.strerror[:1].lower() + error.strerror[1:]
    return str(error) or type(error).__name__


def is_silence(error: Exception) -> bool:
    """Whether the service, or a proxy, sent nothing until the time limit."""
    return isinstance(error.__cause__ if isinstance(error, ProxyUnreachable) else error, TimeoutError)


def is_lasting(error: Exception) -> bool:
    """Whether waiting does not help: an untrusted certificate, a proxy that requires another login."""
    return isinstance(error, ssl.SSLCertVerificationError) or " 407 " in str(error)
