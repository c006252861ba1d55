"""Kept-alive HTTP/1.1 connections to one host, shared by all threads; Ctrl-C ends requests that are under way.

`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` select a proxy, `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE` or
`SSL_CERT_FILE` the certificates, as in requests and curl.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import os
import re
import select
import socket
import ssl
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import cache
from threading import Event, Lock, Thread
from typing import Any
from urllib.parse import unquote, urlsplit

from amlctl.azure_access.network_errors import ProxyUnreachable
from amlctl.errors import Interrupted, SettingsError

_CONNECT_S = 15.0
"""For each step of connecting: TCP, the tunnel of a proxy, TLS."""
_LOOKUP_POLL_S = 0.05
_TRANSFER_S = 60.0
"""For each read or write, not for a whole transfer."""
_WITH_PORT = re.compile(r"(?P<name>.+):(?P<port>\d{1,5})")
_NOT_IN_TARGET = re.compile(r"[\x00-\x20\x7f]")
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?")


def is_host(name: str) -> bool:
    """Whether it can be looked up: other names are a ValueError of `socket`."""
    return bool(_HOST.fullmatch(name)) or is_ip(name)


def is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def bracketed(host: str) -> str:
    """As it is written in a URL."""
    return f"[{host}]" if ":" in host else host


class Interrupts:
    """Ctrl-C for threads that wait for the network, for all connections of a transport. Thread-safe."""

    def __init__(self) -> None:
        self._is_on = Event()
        self.count = 0
        """Interrupts so far; a request that began at another count has been interrupted."""
        self._in_use: set[socket.socket] = set()
        self._lock = Lock()

    def interrupt(self) -> None:
        """End requests under way; no new one begins until `resume`."""
        with self._lock:
            self.count += 1
            self._is_on.set()
            for used in self._in_use:
                # Only the connection: a TLS socket that another thread uses needs the rest to fail by itself.
                with suppress(OSError):  # it has just ended
                    socket.socket.shutdown(used, socket.SHUT_RDWR)

    def resume(self) -> None:
        self._is_on.clear()

    def check(self, since: int) -> None:
        """Raises Interrupted between `interrupt` and `resume`, and for a request that began at another count."""
        if self._is_on.is_set() or self.count != since:
            raise Interrupted("interrupted")

    def wait(self, seconds: float) -> None:
        """Ends early on an interrupt."""
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


class Connections:
    """Thread-safe. A connection belongs to one request at a time."""

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
        self._host_header = bracketed(host) if port == (443 if is_https else 80) else f"{bracketed(host)}:{port}"
        self._proxy = _proxy(host, port, is_https=is_https, variables=variables)
        self._certificates = _certificates(variables) if is_https else None
        self._idle: list[http.client.HTTPConnection] = []
        self._interrupts = interrupts or Interrupts()
        self._lock = Lock()

    def request_head(self, method: str, target: str, headers: Mapping[str, str]) -> bytes:
        """A request up to its body (RFC 9112, 3). `headers` by lower-case names; the host and what a proxy for plain
        http requires are added (a tunnel gets it once, when it is opened). Thousands of small requests pay for each
        header, so this does it all at once: `http.client` takes 50 µs longer.

        Raises InvalidURL, and ValueError for a header with a line break.
        """
        if not target.isascii() or _NOT_IN_TARGET.search(target):
            raise http.client.InvalidURL("the path has a character that must be quoted")
        added = {"host": self._host_header}
        if method == "GET":
            added["accept-encoding"] = "identity"
        if self._proxy and not self._is_https:
            target = f"http://{bracketed(self._host)}:{self._port}{target}"
            headers = {**headers, **self._proxy[2]}
        lines = [f"{name}: {value}" for name, value in {**added, **headers}.items()]
        text = "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""])
        if not text.count("\r") == text.count("\n") == len(lines) + 2:
            raise ValueError("a header with a line break")
        return text.encode("iso-8859-1")

    @contextmanager
    def borrow(self, *, fresh: bool, since: int | None = None) -> Iterator[tuple[http.client.HTTPConnection, bool]]:
        """A connection, and whether it was used before. It is kept only if the block ends without an error.

        Raises Interrupted, OSError, HTTPException.
        """
        since = self._interrupts.count if since is None else since
        self._interrupts.check(since)
        connection = None if fresh else self._idle_connection()
        is_used = connection is not None
        if connection is None:
            connection = self._connect(since)
        try:
            with self._interrupts.ending(connection.sock, since):
                yield connection, is_used
        except BaseException:
            connection.close()
            raise
        if connection.sock is not None:  # not closed by the service or the block
            with self._lock:
                self._idle.append(connection)

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _idle_connection(self) -> http.client.HTTPConnection | None:
        """One that nothing has arrived on: the end of the connection, or a second answer to an earlier request, which
        would be taken for that to the next one."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            arrived = select.poll()
            arrived.register(connection.sock, select.POLLIN)
            decrypted = connection.sock.pending() if isinstance(connection.sock, ssl.SSLSocket) else 0
            if not (decrypted or arrived.poll(0)):
                return connection
            connection.close()

    def _connect(self, since: int) -> http.client.HTTPConnection:
        host, port, headers = self._proxy or (self._host, self._port, {})
        connection: http.client.HTTPConnection
        if self._is_https:
            assert self._certificates is not None
            connection = http.client.HTTPSConnection(host, port, timeout=_CONNECT_S, context=self._certificates)
            if self._proxy is not None:
                connection.set_tunnel(self._host, self._port, headers)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=_CONNECT_S)
        # Step by step, so that each step can be interrupted.
        try:
            dialed = self._dial(since, host, port)
        except OSError as error:
            if self._proxy is None:
                raise
            raise ProxyUnreachable(f"{host}:{port}", error) from error
        connection._create_connection = lambda *_: dialed  # type: ignore[attr-defined]
        try:
            with self._interrupts.ending(dialed, since):
                http.client.HTTPConnection.connect(connection)  # with the tunnel, without TLS
            if self._certificates is not None:
                connection.sock = self._secured(connection.sock, self._certificates, since)
            connection.sock.settimeout(_TRANSFER_S)
        except BaseException:
            connection.close()
            # Python 3.11.2 keeps the response of a proxy that refuses a tunnel open, and with it the socket.
            if (descriptor := dialed.detach()) >= 0:
                os.close(descriptor)
            raise
        return connection

    def _dial(self, since: int, host: str, port: int) -> socket.socket:
        """A TCP connection to the first address of the host that accepts one."""
        failure = OSError(f"{host} has no address")
        for family, kind, protocol, _name, address in self._addresses(since, host, port):
            dialed = socket.socket(family, kind, protocol)
            try:
                dialed.settimeout(_CONNECT_S)
                with self._interrupts.ending(dialed, since):
                    dialed.connect(address)
            except BaseException as error:
                dialed.close()
                if not isinstance(error, OSError):
                    raise
                failure = error
            else:
                return dialed
        raise failure

    def _addresses(self, since: int, host: str, port: int) -> list[tuple[Any, ...]]:
        """In a thread of its own: the system's lookup cannot be interrupted, and takes up to half a minute."""
        looked_up, ended = Future[list[tuple[Any, ...]]](), Event()
        looked_up.add_done_callback(lambda _: ended.set())

        def look_up() -> None:
            try:
                looked_up.set_result(list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
            except Exception as error:  # noqa: BLE001 - `result` raises it
                looked_up.set_exception(error)

        Thread(target=look_up, name="amlctl-lookup", daemon=True).start()
        while not ended.wait(_LOOKUP_POLL_S):
            self._interrupts.check(since)
        return looked_up.result()

    def _secured(self, plain: socket.socket, certificates: ssl.SSLContext, since: int) -> ssl.SSLSocket:
        secured = certificates.wrap_socket(plain, server_hostname=self._host, do_handshake_on_connect=False)
        try:
            with self._interrupts.ending(secured, since):
                secured.do_handshake()
        except BaseException:
            secured.close()
            raise
        return secured


def _proxy(
    host: str, port: int, *, is_https: bool, variables: Mapping[str, str]
) -> tuple[str, int, dict[str, str]] | None:
    """Host, port and headers. Raises SettingsError."""
    kind = "https" if is_https else "http"
    # A CGI client could set HTTP_PROXY in capitals; amlctl is not a CGI program.
    names = (f"{kind}_proxy", f"{kind.upper()}_PROXY", "all_proxy", "ALL_PROXY")
    name = next((name for name in names if variables.get(name)), "")
    exceptions = variables.get("no_proxy") or variables.get("NO_PROXY") or ""
    if not name or any(_matches(one, host, port) for one in re.split(r"[,\s]+", exceptions.lower()) if one):
        return None
    found = variables[name]
    hint = f"{kind.upper()}_PROXY=http://HOST:PORT, or add {host} to NO_PROXY"
    try:
        parts = urlsplit(found if "://" in found else f"http://{found}")
        proxy_host, proxy_port = parts.hostname or "", 80 if parts.port is None else parts.port
    except ValueError as error:
        raise SettingsError(f"{name} is not the URL of a proxy", hint=hint) from error
    if parts.scheme != "http":
        raise SettingsError(f"{name}: proxies of kind {parts.scheme!r} are not supported", hint=hint)
    if not is_host(proxy_host):
        raise SettingsError(f"{name} has an invalid host", hint=hint)
    headers: dict[str, str] = {}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Proxy-Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
    return proxy_host, proxy_port, headers


def _matches(entry: str, host: str, port: int) -> bool:
    """An entry of NO_PROXY is `*`, an address, a network, or a domain with its subdomains; all but networks may have a
    port."""
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


def _certificates(variables: Mapping[str, str]) -> ssl.SSLContext:
    """From the usual variables, else certifi's. Raises SettingsError."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        bundle = variables.get(name, "")
        if not bundle:
            continue
        try:
            return _trusting(bundle)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"{name}: {bundle} cannot be read as certificates", hint=f"unset {name}, or set it to a PEM file"
            ) from error
    import certifi

    return _trusting(certifi.where())


@cache
def _trusting(bundle: str) -> ssl.SSLContext:
    """Once for all hosts: reading the usual bundle takes 20 ms."""
    if os.path.isdir(bundle):
        return ssl.create_default_context(capath=bundle)
    return ssl.create_default_context(cafile=bundle)
