"""What the Blob service has answered, and what can be read from it."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit
from xml.etree import ElementTree

from amlctl.azure_access.answered import Answered
from amlctl.azure_access.response import moment_of
from amlctl.azure_access.retry import AGAIN
from amlctl.errors import ServiceUnavailable

_SIGNS = frozenset({"x-ms-request-id", "x-ms-version", "x-ms-error-code"})
"""Each answer of the service has one of these headers; a login page of the network has none."""


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
    attempts: str = ""
    """`6 attempts in 12 s`, where the request was given up."""

    @classmethod
    def of(cls, answered: Answered) -> Answer:
        host = urlsplit(answered.url).hostname or ""
        data = answered.content
        return cls(host, answered.status_code, answered.headers, data, answered.was_repeated, answered.attempts)

    @property
    def code(self) -> str:
        """The service's own name of an error."""
        return self.headers.get("x-ms-error-code", "")

    @property
    def message(self) -> str:
        """The service's own words about an error; empty where it has none."""
        root = self._xml()
        text = "" if root is None else root.findtext("Message") or ""
        return text.partition("\n")[0]

    @property
    def request(self) -> str:
        """For who asks the service's people about it."""
        found = self.headers.get("x-ms-request-id", "")
        return f"(request {found})" if found else ""

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
        found = self._xml()
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

    def _xml(self) -> ElementTree.Element | None:
        try:
            return ElementTree.fromstring(self.data)
        except (ElementTree.ParseError, LookupError, ValueError):  # the latter two: an encoding that is none
            return None

    def _header(self, name: str) -> str:
        if name not in self.headers:
            raise not_blob_storage(self.host, f"no header {name}")
        return self.headers[name]


def not_blob_storage(host: str, what: str) -> ServiceUnavailable:
    """`what` the host has said instead."""
    return ServiceUnavailable(
        f"the answer of {host} is not one of Blob Storage ({what})",
        hint="check the store's URL, and log in to the network or its proxy (open any page in a browser); then run the "
        "same command again",
    )


def check_origin(host: str, status: int, headers: Mapping[str, str]) -> None:
    """Raises ServiceUnavailable where something else has answered. Gateways may fail and proxies refuse."""
    if not (_SIGNS & headers.keys() or status in AGAIN or status == 407):
        raise not_blob_storage(host, f"{status}, {headers.get('content-type', 'of no content type')}")
