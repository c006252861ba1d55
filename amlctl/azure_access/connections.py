"""One pool of kept-alive HTTP/1.1 connections to one host, used by all threads of a store.

`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` choose the way, `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE` or
`SSL_CERT_FILE` the certificates, as for requests and curl.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import os
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from threading import Event, Lock
from urllib.parse import unquote, urlsplit

from amlctl.azure_access.http import ProxyUnreachable, Response
from amlctl.errors import Interrupted, SettingsError

_CONNECT_S = 15.0
"""For each step of connecting: TCP, the tunnel of a proxy, TLS."""
_TRANSFER_S = 60.0
"""For each read or write: not for a whole transfer."""
_WITH_PORT = re.compile(r"(?P<name>.+):(?P<port>\d{1,5})")


class Connections:
    """Thread-safe. Keeps what is given back; a connection belongs to one request at a time."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        is_https: bool,
        variables: Mapping[str, str],
        interrupts: Interrupts | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._is_https = is_https
        self._proxy = _proxy(host, port, is_https=is_https, variables=variables)
        self._certificates = certificates(variables) if is_https else None
        self._idle: list[http.client.HTTPConnection] = []
        self._interrupts = interrupts or Interrupts()
        self._lock = Lock()

    @property
    def target_prefix(self) -> str:
        """What stands before the path in a request line: a proxy for plain http wants the whole URL."""
        return f"http://{bracketed(self._host)}:{self._port}" if self._proxy and not self._is_https else ""

    @property
    def headers(self) -> Mapping[str, str]:
        """What each request tells a proxy for plain http; a tunnel is told once, when it is made."""
        return self._proxy[2] if self._proxy and not self._is_https else {}

    @contextmanager
    def borrow(self, *, fresh: bool, since: int | None = None) -> Iterator[tuple[http.client.HTTPConnection, bool]]:
        """A connection, and whether it was used before. It is kept only if the block ends without an error.

        Raises Interrupted, OSError, HTTPException.
        """
        since = self._interrupts.count if since is None else since
        self._interrupts.check(since)
        connection = None
        if not fresh:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
        is_used = connection is not None
        if connection is None:
            connection = self._connect(since)
        try:
            with self._interrupts.ending(connection.sock, since):
                yield connection, is_used
        except BaseException:
            connection.close()
            raise
        if connection.sock is not None:  # else the service, or the block, has closed it
            with self._lock:
                self._idle.append(connection)

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _connect(self, since: int) -> http.client.HTTPConnection:
        host, port = self._host, self._port
        headers: dict[str, str] = {}
        if self._proxy is not None:
            host, port, headers = self._proxy
        connection: http.client.HTTPConnection
        if self._is_https:
            assert self._certificates is not None
            connection = http.client.HTTPSConnection(host, port, timeout=_CONNECT_S, context=self._certificates)
            if self._proxy is not None:
                connection.set_tunnel(self._host, self._port, headers)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=_CONNECT_S)
        # Step by step: what http.client does in one cannot be interrupted.
        try:
            dialled = self._dial(since, host, port)
        except OSError as error:
            if self._proxy is None:
                raise
            raise ProxyUnreachable(f"{host}:{port}", error) from error
        connection._create_connection = lambda *_: dialled  # type: ignore[attr-defined]
        try:
            with self._interrupts.ending(dialled, since):
                http.client.HTTPConnection.connect(connection)  # with the tunnel, and without TLS
            if self._certificates is not None:
                connection.sock = self._secured(connection.sock, self._certificates, since)
            connection.sock.settimeout(_TRANSFER_S)
        except BaseException:
            connection.close()
            _let_go(dialled)
            raise
        connection.response_class = Response  # not before: an answer to CONNECT is read by http.client itself
        return connection

    def _dial(self, since: int, host: str, port: int) -> socket.socket:
        """A connection of TCP to the first address of the host that takes one."""
        failure = OSError(f"{host} has no address")
        for family, kind, protocol, _name, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            dialled = socket.socket(family, kind, protocol)
            try:
                dialled.settimeout(_CONNECT_S)
                with self._interrupts.ending(dialled, since):
                    dialled.connect(address)
            except BaseException as error:
                dialled.close()
                if not isinstance(error, OSError):
                    raise
                failure = error
            else:
                return dialled
        raise failure

    def _secured(self, plain: socket.socket, certificates: ssl.SSLContext, since: int) -> ssl.SSLSocket:
        secured = certificates.wrap_socket(plain, server_hostname=self._host, do_handshake_on_connect=False)
        try:
            with self._interrupts.ending(secured, since):
                secured.do_handshake()
        except BaseException:
            secured.close()
            raise
        return secured


def _let_go(dialled: socket.socket) -> None:
    """For good: older Pythons (3.11.2) leave the answer open by which a proxy has refused a tunnel, and with it the
    line."""
    descriptor = dialled.detach()
    if descriptor >= 0:
        os.close(descriptor)


def _proxy(
    host: str, port: int, *, is_https: bool, variables: Mapping[str, str]
) -> tuple[str, int, dict[str, str]] | None:
    """Host, port and the headers for it. Raises SettingsError."""
    kind = "https" if is_https else "http"
    # HTTP_PROXY in capitals is what a CGI client can set, but this is no CGI program.
    names = (f"{kind}_proxy", f"{kind.upper()}_PROXY", "all_proxy", "ALL_PROXY")
    name = next((name for name in names if variables.get(name)), "")
    if not name or _is_direct(host, port, variables.get("no_proxy") or variables.get("NO_PROXY") or ""):
        return None
    found = variables[name]
    hint = f"{kind.upper()}_PROXY=http://HOST:PORT, or name {host} in NO_PROXY"
    try:
        parts = urlsplit(found if "://" in found else f"http://{found}")
        proxy_host, proxy_port = parts.hostname or "", 80 if parts.port is None else parts.port
    except ValueError as error:
        raise SettingsError(f"{name} is no URL of a proxy", hint=hint) from error
    if parts.scheme != "http":
        raise SettingsError(f"{name} names a proxy of kind {parts.scheme!r}, which is not supported", hint=hint)
    if not is_host(proxy_host):
        raise SettingsError(f"{name} names no valid host", hint=hint)
    headers: dict[str, str] = {}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Proxy-Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
    return proxy_host, proxy_port, headers


def _is_direct(host: str, port: int, exceptions: str) -> bool:
    """Whether NO_PROXY names the host."""
    return any(_means(entry, host, port) for entry in re.split(r"[,\s]+", exceptions.lower()) if entry)


def _means(entry: str, host: str, port: int) -> bool:
    """An entry is `*`, an address, a network, or a domain with all that is in it; all but networks may have a port."""
    network = _network(entry.strip("[]"))
    if network is None and (found := _WITH_PORT.fullmatch(entry)):
        if int(found["port"]) != port:
            return False
        entry = found["name"]
        network = _network(entry.strip("[]"))
    if network is not None:
        return is_ip(host) and ipaddress.ip_address(host) in network
    domain = entry.removeprefix("*").removeprefix(".")
    return entry == "*" or host == domain or host.endswith(f".{domain}")


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def certificates(variables: Mapping[str, str]) -> ssl.SSLContext:
    """Those that the usual variables name, else certifi's. Raises SettingsError."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        bundle = variables.get(name, "")
        if not bundle:
            continue
        try:
            return _trusting(bundle)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"{name} names {bundle}, which cannot be read as certificates",
                hint=f"unset {name}, or name a PEM file",
            ) from error
    import certifi

    return _trusting(certifi.where())


@cache
def _trusting(bundle: str) -> ssl.SSLContext:
    """Made once for all hosts: to read the usual bundle takes a fiftieth of a second."""
    if os.path.isdir(bundle):
        return ssl.create_default_context(capath=bundle)
    return ssl.create_default_context(cafile=bundle)


_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?")


def is_host(name: str) -> bool:
    """Whether it can be asked for: what cannot is a ValueError of `socket`, not one of the network."""
    return bool(_HOST.fullmatch(name)) or is_ip(name)


def is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def bracketed(host: str) -> str:
    """As a URL has it."""
    return f"[{host}]" if ":" in host else host


class Interrupts:
    """Of all connections of one transport. Thread-safe."""

    def __init__(self) -> None:
        self._is_on = Event()
        self._count = 0
        self._in_use: set[socket.socket] = set()
        self._lock = Lock()

    @property
    def count(self) -> int:
        """How many interrupts there have been: a request belongs to the time before or after each of them."""
        return self._count

    def interrupt(self) -> None:
        """End what is under way; until `resume` nothing new begins."""
        with self._lock:
            self._count += 1
            self._is_on.set()
            for used in self._in_use:
                _shut(used)

    def resume(self) -> None:
        self._is_on.clear()

    def check(self, since: int) -> None:
        """Raises Interrupted between `interrupt` and `resume`, and for what began when the count was another one."""
        if self._is_on.is_set() or self._count != since:
            raise Interrupted("interrupted")

    def wait(self, seconds: float) -> None:
        """Until then, or until an interrupt."""
        self._is_on.wait(seconds)

    @contextmanager
    def ending(self, used: socket.socket, since: int) -> Iterator[None]:
        """An interrupt wakes a thread that waits for `used` inside. Raises Interrupted."""
        with self._lock:
            self.check(since)
            self._in_use.add(used)
        try:
            yield
        finally:
            with self._lock:
                self._in_use.discard(used)


def _shut(used: socket.socket) -> None:
    """The line alone: a TLS socket that another thread uses keeps what it needs to fail by itself."""
    with suppress(OSError):  # it has ended meanwhile
        socket.socket.shutdown(used, socket.SHUT_RDWR)
