"""Why a host cannot be reached, in words; also for those who speak to other hosts of Azure."""

from __future__ import annotations

import http.client
import socket
import ssl

from amlctl.azure_access.response import NoAnswer
from amlctl.errors import AmlctlError, ServiceUnavailable
from amlctl.localfs.disk_errors import limit_error


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
