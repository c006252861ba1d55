"""The verbs of the Blob service (REST, version 2021-12-02), with retries and with errors in words.

Source: https://learn.microsoft.com/rest/api/storageservices/blob-service-rest-api. All retries of the blob store
happen here and nowhere else, and none after an interrupt. A verb may be sent twice when an answer is lost; the
callers' conditions make that safe.
"""

from __future__ import annotations

import base64
import email.utils
import hashlib
import http.client
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote
from xml.etree import ElementTree

from amlctl.errors import AmlctlError, Conflict, LoginError, NotFound, RightsError, ServiceUnavailable
from amlctl.stores.azure_blob.address import BlobAddress
from amlctl.stores.azure_blob.connections import Connections
from amlctl.stores.azure_blob.credentials import Credential
from amlctl.stores.azure_blob.network_errors import is_lasting, not_blob_storage, refused_by_proxy, unreachable
from amlctl.stores.azure_blob.response import answer_of, moment_of, retry_after_s
from amlctl.stores.contract import Buffer, Traffic, always
from amlctl.stores.pace import Pace

VERSION = "2021-12-02"
_TRIES = 6
_FIRST_WAIT_S = 0.4
_LONGEST_WAIT_S = 30.0
_LONGEST_ASKED_S = 120.0
"""Of what Retry-After may ask for: a value without sense must not hold a command for a day."""
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_SIGNS = frozenset({"x-ms-request-id", "x-ms-version", "x-ms-error-code"})
"""Each answer of the service has one of these headers; a login page of the network has none."""
_CHUNK = 1 << 18
_AT_ONCE = 1 << 20
"""Bytes that go to the network in one call; a process that is stopped in it finishes it when it wakes."""
_PACED_BYTES = 64 << 10
"""What goes at once where the bandwidth is limited: the rate is kept inside a request, too."""
_SKEW_S = 15 * 60
"""The service refuses a signed date that is further from its own clock than this."""


class Body:
    """Parts that follow each other; small ones travel together. `may_go_on` is asked before each stretch is sent: a
    request that breaks off leaves nothing."""

    def __init__(self, parts: Sequence[Buffer], may_go_on: Callable[[], None] = always) -> None:
        self.parts = parts
        self._may_go_on = may_go_on
        self.size_bytes = sum(memoryview(part).nbytes for part in parts)

    def md5(self) -> bytes:
        digest = hashlib.md5(usedforsecurity=False)
        for part in self.parts:
            digest.update(part)
        return digest.digest()

    def chunks(self) -> Iterator[bytes | memoryview]:
        for chunk in self._together():
            for at in range(0, len(chunk), _AT_ONCE):
                self._may_go_on()
                yield chunk[at : at + _AT_ONCE]

    def _together(self) -> Iterator[bytes | memoryview]:
        waiting: list[Buffer] = []
        size = 0
        for part in self.parts:
            if memoryview(part).nbytes >= _CHUNK:
                if waiting:
                    yield b"".join(waiting)
                    waiting, size = [], 0
                yield memoryview(part).cast("B")
                continue
            waiting.append(part)
            size += len(part)
            if size >= _CHUNK:
                yield b"".join(waiting)
                waiting, size = [], 0
        if waiting:
            yield b"".join(waiting)


_NO_BODY = Body(())


@dataclass(frozen=True)
class Answer:
    """Status, headers (lower-case names) and the body's bytes; `was_repeated`: an earlier try may have acted.

    What a caller needs and the answer does not have is a ServiceUnavailable that names the host.
    """

    host: str
    status: int
    headers: Mapping[str, str]
    data: bytes
    was_repeated: bool

    @property
    def code(self) -> str:
        """The service's own name of an error."""
        return self.headers.get("x-ms-error-code", "")

    @property
    def etag(self) -> str:
        return self._header("etag")

    @property
    def size_bytes(self) -> int:
        """Of the whole value, also where the answer is a range of it."""
        name = "content-range" if self.status == http.client.PARTIAL_CONTENT else "content-length"
        return self.number(self._header(name).rpartition("/")[2])

    @property
    def modified_at(self) -> float:
        return self.moment(self._header("last-modified"))

    def document(self, root: str) -> ElementTree.Element:
        found = _xml(self.data)
        if found is None or found.tag != root:
            raise not_blob_storage(self.host, f"no document {root}")
        return found

    def number(self, text: str) -> int:
        """A header or a text of the document as what it must be; likewise `moment`."""
        if not (text.isascii() and text.isdecimal()):
            raise not_blob_storage(self.host, f"{text!r} as a number")
        return int(text)

    def moment(self, text: str) -> float:
        found = moment_of(text)
        if found is None:
            raise not_blob_storage(self.host, f"{text!r} as a time")
        return found

    def _header(self, name: str) -> str:
        if name not in self.headers:
            raise not_blob_storage(self.host, f"no header {name}")
        return self.headers[name]


Read = Callable[[int], bytes]
"""The next bytes of an answer's body, so many at most; empty at its end."""
Sink = Callable[[Read], int]
"""Takes the body of a good answer; returns its bytes. May be called again after a broken transfer."""


class BlobService:
    """Thread-safe."""

    def __init__(
        self,
        address: BlobAddress,
        credential: Credential,
        connections: Connections,
        traffic: Traffic,
        pace: Pace | None = None,
        *,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self._address = address
        self._credential = credential
        self._connections = connections
        self._traffic = traffic
        self._pace = pace
        self._sleep = sleep or connections.wait

    def blob_url(self, key: str) -> str:
        """URL of a value as a copy's source, credential included: never to be shown."""
        url = self._address.account_url
        if self._address.is_path_style:
            url = url.removesuffix(f"/{self._address.account}")
        query = self._credential.source_query()
        return f"{url}{self._address.blob_path(key)}" + (f"?{query}" if query else "")

    def blob(
        self,
        verb: str,
        key: str,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body = _NO_BODY,
        *,
        accept: Iterable[int] = (),
        sink: Sink | None = None,
    ) -> Answer:
        """One request about one value. Statuses of 400 and above are errors unless `accept` names them."""
        return self._request(verb, self._address.blob_path(key), key, query, headers, body, accept, sink)

    def container(self, verb: str, query: Mapping[str, str], *, accept: Iterable[int] = ()) -> Answer:
        return self._request(
            verb, self._address.container_path, "", {"restype": "container", **query}, None, _NO_BODY, accept, None
        )

    def create_container(self) -> None:
        """Raises RightsError where it may not be made."""
        try:
            self.container("PUT", {}, accept=(409,))
        except (RightsError, NotFound) as error:
            raise RightsError(
                f"the container {self._address.container} of account {self._address.account} does not exist, and it "
                "may not be made with these rights",
                hint=f"az storage container create --account-name {self._address.account} "
                f"--name {self._address.container} --auth-mode login",
            ) from error

    def list_page(self, prefix: str, marker: str) -> tuple[list[tuple[str, int, float]], str]:
        """Names below the store's prefix with sizes and times, and the marker of the next page (empty: none)."""
        query = {"comp": "list", "prefix": self._address.prefix + prefix, "maxresults": "5000"}
        if marker:
            query["marker"] = marker
        answer = self.container("GET", query, accept=(404,))
        if answer.status == 404:
            return [], ""
        root = answer.document("EnumerationResults")
        found = []
        for blob in root.iter("Blob"):
            name = blob.findtext("Name", "")
            size = answer.number(blob.findtext("Properties/Content-Length", "0"))
            modified_at = answer.moment(blob.findtext("Properties/Last-Modified", ""))
            found.append((name[len(self._address.prefix) :], size, modified_at))
        return found, root.findtext("NextMarker", "")

    def _request(
        self,
        verb: str,
        path: str,
        key: str,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        body: Body,
        accept: Iterable[int],
        sink: Sink | None,
    ) -> Answer:
        failure: AmlctlError
        was_repeated = is_renewed = False
        begun = self._connections.interrupts
        for attempt in range(_TRIES):
            wait_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**attempt) * random.uniform(0.5, 1.0)
            try:
                answer = self._once(verb, path, query or {}, headers or {}, body, sink, was_repeated, begun)
            except (OSError, http.client.HTTPException) as error:
                self._connections.check(begun)
                failure = unreachable(self._address.host, error, "storage account in the store's URL")
                if is_lasting(error):
                    raise failure from error
            else:
                if answer.status < 400 or answer.status in accept:
                    return answer
                if answer.status == 401 and not is_renewed and self._credential.renew():
                    is_renewed = True
                    continue
                failure = self.error(answer, key)
                if answer.status not in _AGAIN:
                    raise failure
                wait_s = max(wait_s, min(_LONGEST_ASKED_S, retry_after_s(answer.headers)))
            was_repeated = True
            if attempt < _TRIES - 1:
                self._sleep(wait_s)
        raise failure

    def _once(
        self,
        verb: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: Body,
        sink: Sink | None,
        was_repeated: bool,
        begun: int,
    ) -> Answer:
        """Raises OSError, HTTPException. A kept connection that the service has closed meanwhile is no failure."""
        fresh = False
        while True:
            sent = dict(headers)
            sent["x-ms-version"] = VERSION
            sent["x-ms-date"] = email.utils.formatdate(usegmt=True)
            if verb == "PUT":
                sent["content-length"] = str(body.size_bytes)
            appended = self._credential.sign(verb, path, query, sent)
            text = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
            text = "&".join(part for part in (text, appended) if part)
            target = self._connections.target_prefix + path + (f"?{text}" if text else "")
            with self._connections.borrow(fresh=fresh, since=begun) as (connection, is_used):
                try:
                    self._traffic.add()
                    parts = self._paced(body.chunks()) if body.size_bytes else None
                    # Whoever sends thousands of small requests pays for each header: only an answer with a body that
                    # is looked at needs the one about its encoding.
                    connection.putrequest(verb, target, skip_accept_encoding=verb != "GET")
                    for name, value in {**sent, **self._connections.headers}.items():
                        connection.putheader(name, value)
                    connection.endheaders(parts)
                    response = answer_of(connection)
                except (ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected):
                    if not is_used:
                        raise
                    fresh = was_repeated = True
                    connection.close()
                    continue
                self._traffic.add(requests=0, sent_bytes=body.size_bytes)
                found = response.fields
                # Before a byte of it gets anywhere. A gateway may fail, and a proxy refuse, on its own.
                if not (_SIGNS & found.keys() or response.status in _AGAIN or response.status == 407):
                    what = f"{response.status}, {found.get('content-type', 'of no content type')}"
                    raise not_blob_storage(self._address.host, what)
                read = self._paced_read(response)
                if sink is not None and response.status < 300:
                    received, data = sink(read), b""
                else:
                    data = _all_of(read)
                    received = len(data)
                if verb == "GET":
                    self._traffic.add(requests=0, received_bytes=received)
                    if response.length:
                        raise http.client.IncompleteRead(b"", response.length)
                if response.will_close:
                    connection.close()
            return Answer(self._address.host, response.status, found, data, was_repeated)

    def _paced(self, chunks: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        if self._pace is None:
            yield from chunks
            return
        for chunk in chunks:
            for at in range(0, len(chunk), _PACED_BYTES):
                part = chunk[at : at + _PACED_BYTES]
                self._pace.take(len(part))
                yield part

    def _paced_read(self, response: http.client.HTTPResponse) -> Read:
        pace = self._pace
        if pace is None:
            return response.read

        def read(most: int) -> bytes:
            data = response.read(min(most, _PACED_BYTES))
            pace.take(len(data))
            return data

        return read

    def error(self, answer: Answer, key: str) -> AmlctlError:
        """An answer that is no success, in words."""
        thing = f"{key} in {self._address.url}" if key else f"the store {self._address.url}"
        status, code = answer.status, answer.code
        if status == 404 and code in ("ContainerNotFound", "ContainerBeingDeleted"):
            return NotFound(
                f"there is no container {self._address.container} in account {self._address.account}",
                hint="check the store's URL; the first sync makes the container",
            )
        if status == 404:
            return NotFound(f"{thing} is not there")
        if status in (409, 412):
            return Conflict(f"{thing} was changed by someone else ({code or status})", hint="run the command again")
        if status in (401, 403):
            return self._refused(answer, thing)
        if status == 400 and code == "ContainerBeingDeleted":
            return ServiceUnavailable(f"{thing} is being deleted", hint="try again in a minute")
        if status == 407:
            return refused_by_proxy(self._address.host, "407 Proxy Authentication Required")
        if status in _AGAIN:
            return ServiceUnavailable(
                f"the service failed {_TRIES} times at {thing}: {status} {code} {_request_id(answer)}".rstrip(),
                hint="run the same command again; nothing that arrived is lost",
            )
        return ServiceUnavailable(
            f"the service refused {thing}: {status} {code} {_message(answer)} {_request_id(answer)}".strip(),
            hint="this is likely a fault of amlctl: report it with this line",
        )

    def _refused(self, answer: Answer, thing: str) -> AmlctlError:
        skew_s = _clock_skew_s(answer)
        if abs(skew_s) > _SKEW_S / 3 and answer.code in ("AuthenticationFailed", "InvalidAuthenticationInfo"):
            return LoginError(
                f"the service refused the request: this machine's clock is {abs(skew_s) / 60:.0f} minutes "
                f"{'behind' if skew_s > 0 else 'ahead'}",
                hint="set the clock (sudo timedatectl set-ntp true), then run it again",
            )
        why = self._credential.explain()
        is_login = answer.status == 401 or answer.code in ("AuthenticationFailed", "InvalidAuthenticationInfo")
        if is_login or self._credential.is_out_of_time():
            return LoginError(
                f"the service does not accept who asks for {thing}: {why}",
                hint="a fresh SAS token, the right key, or az login; amlctl doctor tells which one is used",
            )
        return RightsError(
            f"no right to use {thing} ({answer.code or answer.status}): {why}",
            hint="ask for the role Storage Blob Data Contributor, and check the account's network rules",
        )


def _all_of(read: Read) -> bytes:
    return b"".join(iter(lambda: read(_CHUNK), b""))


def _clock_skew_s(answer: Answer) -> float:
    """The service's clock less ours."""
    theirs = moment_of(answer.headers.get("date", ""))
    return 0.0 if theirs is None else theirs - time.time()


def _message(answer: Answer) -> str:
    root = _xml(answer.data)
    text = "" if root is None else root.findtext("Message") or ""
    return text.partition("\n")[0]


def _xml(data: bytes) -> ElementTree.Element | None:
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, LookupError, ValueError):  # the latter two: an encoding that is none
        return None


def _request_id(answer: Answer) -> str:
    found = answer.headers.get("x-ms-request-id", "")
    return f"(request {found})" if found else ""


def md5_header(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
