"""The verbs of the Blob service (REST, version 2021-12-02), with retries.

Source: https://learn.microsoft.com/rest/api/storageservices/blob-service-rest-api. All retries of the blob store
happen here and nowhere else, and none after an interrupt. A verb may be sent twice when an answer is lost; the
callers' conditions make that safe.
"""

from __future__ import annotations

import base64
import email.utils
import hashlib
import http.client
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import BoundedSemaphore, local
from urllib.parse import quote

from amlctl.azure_access.connections import Connections
from amlctl.azure_access.network_errors import is_lasting, is_silence, reason_of, unreachable
from amlctl.azure_access.response import answer_of, retry_after_s
from amlctl.azure_access.retries import Retries
from amlctl.core.events import EventSink, Unanswered, null_sink
from amlctl.errors import AmlctlError, NotFound, RightsError
from amlctl.stores.azure_blob.address import BlobAddress
from amlctl.stores.azure_blob.answer import Answer, not_blob_storage
from amlctl.stores.azure_blob.credentials import Credential
from amlctl.stores.azure_blob.refusals import reason_of_refusal, refusal, still_failing
from amlctl.stores.contract import Buffer, Traffic, always
from amlctl.stores.pace import Pace

VERSION = "2021-12-02"
_NAME = "blob store"
_TRIES = 6
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_SIGNS = frozenset({"x-ms-request-id", "x-ms-version", "x-ms-error-code"})
"""Each answer of the service has one of these headers; a login page of the network has none."""
_CHUNK = 1 << 18
_WHOLE = 64 << 20
"""An answer of up to this is read in one piece; whatever it claims, no more memory is taken for it beforehand."""
_AT_ONCE = 1 << 20
"""Bytes that go to the network in one call; a process that is stopped in it finishes it when it wakes."""
_PACED_BYTES = 64 << 10
"""What goes at once where the bandwidth is limited: the rate is kept inside a request, too."""


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


Read = Callable[[int], bytes]
"""The next bytes of an answer's body, so many at most; empty at its end."""
Sink = Callable[[Read], int]
"""Takes the body of a good answer; returns its bytes. May be called again after a broken transfer."""


class _OfThread(local):
    is_urgent = False


class BlobService:
    """Thread-safe. At most `at_once` requests are under way, but for urgent ones: who holds a lease has to renew it,
    also in the middle of another request."""

    def __init__(
        self,
        address: BlobAddress,
        credential: Credential,
        connections: Connections,
        traffic: Traffic,
        pace: Pace | None = None,
        *,
        at_once: int | None = None,
        sleep: Callable[[float], object] | None = None,
        tell: EventSink = null_sink,
    ) -> None:
        """`tell` gets an event for each repeated request, from any thread."""
        self._address = address
        self._credential = credential
        self._connections = connections
        self._traffic = traffic
        self._pace = pace
        self._turns: AbstractContextManager[object] = nullcontext() if at_once is None else BoundedSemaphore(at_once)
        self._own = _OfThread()
        self._tell = tell
        self._retries = Retries(_NAME, _TRIES, sleep or connections.wait, tell)

    @contextmanager
    def urgently(self) -> Iterator[None]:
        """What this thread asks within does not wait for its turn."""
        self._own.is_urgent = True
        try:
            yield
        finally:
            self._own.is_urgent = False

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
        query = {"restype": "container", **query}
        return self._request(verb, self._address.container_path, "", query, None, _NO_BODY, accept, None)

    def create_container(self) -> None:
        """Raises RightsError where it may not be made."""
        try:
            answer = self.container("PUT", {}, accept=(409,))
        except (RightsError, NotFound) as error:
            raise RightsError(
                f"the container {self._address.container} of account {self._address.account} does not exist, and it "
                "may not be made with these rights",
                hint=f"az storage container create --account-name {self._address.account} "
                f"--name {self._address.container} --auth-mode login",
            ) from error
        if answer.code == "ContainerBeingDeleted":
            raise self.error(answer, "")

    def list_page(self, prefix: str, marker: str, metadata: str = "") -> tuple[list[tuple[str, int, float, str]], str]:
        """Names below the store's prefix with sizes, times and the value of one name of `metadata`; and the marker of
        the next page (empty: none)."""
        query = {"comp": "list", "prefix": self._address.prefix + prefix, "maxresults": "5000"}
        if metadata:
            query["include"] = "metadata"
        if marker:
            query["marker"] = marker
        answer = self.container("GET", query, accept=(404,))
        if answer.status == 404:
            return [], ""
        root = answer.document("EnumerationResults")
        found = []
        for blob in root.iter("Blob"):
            if blob.findtext("Properties/ResourceType") == "directory":  # an account with a hierarchical namespace
                continue
            name = blob.findtext("Name", "")
            size = answer.number(blob.findtext("Properties/Content-Length", "0"))
            modified_at = answer.moment(blob.findtext("Properties/Last-Modified", ""))
            said = blob.findtext(f"Metadata/{metadata}", "") if metadata else ""
            found.append((name[len(self._address.prefix) :], size, modified_at, said))
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
        turns = nullcontext() if self._own.is_urgent else self._turns
        was_repeated = is_renewed = False
        begun = self._connections.interrupts
        attempts = self._retries.begin()
        while True:
            try:
                with turns:
                    answer = self._once(verb, path, query or {}, headers or {}, body, sink, was_repeated, begun)
            except (OSError, http.client.HTTPException) as error:
                self._connections.check(begun)
                if is_lasting(error) or not attempts.again(reason_of(error), is_silent=is_silence(error)):
                    named_by = "storage account in the store's URL"
                    raise unreachable(self._address.host, error, named_by, attempts.so_far()) from error
            else:
                attempts.answered()
                if answer.status < 400 or answer.status in accept:
                    return answer
                if answer.status == 401 and not is_renewed and self._credential.renew():
                    is_renewed = True
                    continue
                if answer.status not in _AGAIN:
                    raise self.error(answer, key)
                if not attempts.again(reason_of_refusal(answer), asked_s=retry_after_s(answer.headers)):
                    raise still_failing(answer, key, self._address, attempts.so_far())
            was_repeated = True

    def _on_silence(self, waited_s: float, limit_s: float) -> None:
        self._tell(Unanswered(_NAME, waited_s, limit_s))

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
                    response = answer_of(connection, body.size_bytes, self._on_silence)
                except (ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected):
                    if not is_used:
                        raise
                    fresh = was_repeated = True
                    connection.close()
                    continue
                with response:  # one that is the last of its connection holds it alone
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
                        data = _all_of(read, response.length)
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
        return refusal(answer, key, self._address, self._credential)


def _all_of(read: Read, size_bytes: int | None) -> bytes:
    """In one piece where the size is known: pieces take twice the memory while they are joined."""
    at_once = max(_CHUNK, min(size_bytes or 0, _WHOLE))
    return b"".join(iter(lambda: read(at_once), b""))


def md5_header(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
