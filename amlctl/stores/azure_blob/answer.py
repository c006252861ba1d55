"""Answers of the Blob service."""

from __future__ import annotations

import http.client
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from amlctl.azure_access.http import LONGEST_NUMBER, MemoryResponse, seconds_of
from amlctl.azure_access.retry import RETRIED_STATUSES
from amlctl.core.message import AGAIN, Message
from amlctl.errors import ServiceUnavailable

if TYPE_CHECKING:
    from xml.etree import ElementTree

DAMAGED_ON_THE_WAY = "Md5Mismatch"
"""The code (400) of a request whose body is not what its checksum says."""
_SIGNS = frozenset({"x-ms-request-id", "x-ms-version", "x-ms-error-code"})
"""Each answer of the service has one of these headers, or names the service; a login page of the network does not."""
_SERVERS = ("Windows-Azure-Blob/", "Azurite-Blob/")
_WORD = re.compile(r"[A-Z][a-z]*\d*|[a-z]+|\d+")
"""Of a code such as ServerBusy."""


@dataclass(frozen=True)
class BlobAnswer:
    """Headers have lower-case names; `was_repeated`: an earlier attempt may have taken effect; `attempts`
    (`6 attempts in 12 s`) is set if retries were used up.

    A missing or invalid part is a ServiceUnavailable that names the host.
    """

    url: str = field(repr=False)  # it may have a signature
    status: int
    headers: Mapping[str, str]
    data: bytes
    was_repeated: bool
    attempts: str = ""

    @classmethod
    def of(cls, response: MemoryResponse) -> BlobAnswer:
        headers, data = response.headers, response.content
        return cls(response.url, response.status_code, headers, data, response.was_repeated, response.attempts)

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def code(self) -> str:
        """The service's name of an error."""
        return self.headers.get("x-ms-error-code", "")

    @property
    def request(self) -> str:
        """For questions to the service's support."""
        found = self.headers.get("x-ms-request-id", "")
        return f"(request {found})" if found else ""

    @property
    def etag(self) -> str:
        return self._header("etag")

    @property
    def size_bytes(self) -> int:
        """Of the whole value, also in an answer with a range of it."""
        name = "content-range" if self.status == http.client.PARTIAL_CONTENT else "content-length"
        return self.number(self._header(name).rpartition("/")[2])

    @property
    def modified_at(self) -> float:
        return self.seconds(self._header("last-modified"))

    def document(self, root: str) -> ElementTree.Element:
        found = self._xml()
        if found is None or found.tag != root:
            raise not_blob_storage(self.host, f"no document {root}")
        return found

    def number(self, text: str) -> int:
        if not (text.isascii() and text.isdecimal() and len(text) <= LONGEST_NUMBER):
            raise not_blob_storage(self.host, f"{text!r} as a number")
        return int(text)

    def seconds(self, text: str) -> float:
        """Seconds since 1970 of a time in a header or document."""
        found = seconds_of(text)
        if found is None:
            raise not_blob_storage(self.host, f"{text!r} as a time")
        return found

    def message(self) -> str:
        """The service's words about an error, on one line."""
        root = self._xml()
        text = "" if root is None else root.findtext("Message") or ""
        return text.partition("\n")[0]

    def reason(self) -> str:
        """`503 server busy`: why a request is repeated."""
        words = _WORD.findall(self.code) or [http.client.responses.get(self.status, "")]
        return f"{self.status} {' '.join(words)}".strip().lower()

    def _xml(self) -> ElementTree.Element | None:
        from xml.etree import ElementTree  # only errors and lists have XML

        try:
            return ElementTree.fromstring(self.data)
        except (ElementTree.ParseError, LookupError, ValueError):  # the latter two: an unknown encoding
            return None

    def _header(self, name: str) -> str:
        if name not in self.headers:
            raise not_blob_storage(self.host, f"no header {name}")
        return self.headers[name]


def not_blob_storage(host: str, what: str) -> ServiceUnavailable:
    """`what` the host answered instead."""
    return ServiceUnavailable(
        f"the answer of {host} is not one of Blob Storage ({what})",
        hint=Message(
            "check the store's URL, and log in to the network or its proxy (open any page in a browser); then ", AGAIN
        ),
    )


def check_origin(host: str, status: int, headers: Mapping[str, str]) -> None:
    """Raises ServiceUnavailable for an answer of something else. Gateways may fail and proxies refuse."""
    is_named = headers.get("server", "").startswith(_SERVERS)
    if not (is_named or _SIGNS & headers.keys() or status in RETRIED_STATUSES or status == 407):
        raise not_blob_storage(host, f"{status}, {headers.get('content-type', 'of no content type')}")
