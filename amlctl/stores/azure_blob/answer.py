"""Answers of the Blob service, and its refusals in words.

Codes: https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes.
"""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from amlctl.azure_access.http import LONGEST_NUMBER, MemoryResponse, seconds_of
from amlctl.azure_access.network_errors import refused_by_proxy
from amlctl.azure_access.retry import RETRIED_STATUSES
from amlctl.core.message import Command, Message
from amlctl.errors import AmlctlError, Conflict, LoginError, NotFound, RightsError, ServiceUnavailable
from amlctl.stores.azure_blob.address import BlobAddress
from amlctl.stores.azure_blob.credentials import Credential

if TYPE_CHECKING:
    from xml.etree import ElementTree

_SIGNS = frozenset({"x-ms-request-id", "x-ms-version", "x-ms-error-code"})
"""Each answer of the service has one of these headers, or names the service; a login page of the network does not."""
_SERVERS = ("Windows-Azure-Blob/", "Azurite-Blob/")
_SKEW_S = 15 * 60
"""The service refuses a signed date that differs more than this from its own clock."""
_WORD = re.compile(r"[A-Z][a-z]*|[a-z]+|\d+")
"""Of a code such as ServerBusy."""
_LOGIN_CODES = frozenset({"AuthenticationFailed", "InvalidAuthenticationInfo"})
_LOCKED = {
    "BlobArchived": (
        "is in the archive tier",
        "az storage blob set-tier --tier Hot; run the same command again hours later",
    ),
    "BlobBeingRehydrated": ("is leaving the archive tier", "run the same command again in some hours"),
    "BlobImmutableDueToPolicy": ("is kept by a policy", "use a container without an immutability policy"),
    "LeaseIdMissing": ("is leased by another program", "az storage blob lease break, if the lease is not needed"),
}
"""409 and 412 that are not caused by another writer, so retrying does not help."""


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
        hint="check the store's URL, and log in to the network or its proxy (open any page in a browser); then run the "
        "same command again",
    )


def check_origin(host: str, status: int, headers: Mapping[str, str]) -> None:
    """Raises ServiceUnavailable for an answer of something else. Gateways may fail and proxies refuse."""
    is_named = headers.get("server", "").startswith(_SERVERS)
    if not (is_named or _SIGNS & headers.keys() or status in RETRIED_STATUSES or status == 407):
        raise not_blob_storage(host, f"{status}, {headers.get('content-type', 'of no content type')}")


def refusal(answer: BlobAnswer, key: str, address: BlobAddress, credential: Credential) -> AmlctlError:
    """The error of a request for the value of `key` (empty: for the store itself)."""
    thing = f"{key} in {address.url}" if key else f"the store {address.url}"
    status, code = answer.status, answer.code
    if status in RETRIED_STATUSES:
        failed = f"the service failed at {thing}: {status} {code} {answer.request}".rstrip()
        hint = "run the same command again; nothing that arrived is lost"
        return ServiceUnavailable(f"{failed} ({answer.attempts})", hint=hint)
    if code == "ContainerBeingDeleted":
        deleted = f"the container {address.container} of account {address.account} is being deleted"
        return ServiceUnavailable(deleted, hint="try again in a minute")
    if status == 404 and code == "ContainerNotFound":
        return NotFound(
            f"Container {address.container} not found in account {address.account}",
            hint="check the store's URL; the first sync creates the container",
        )
    if status == 404:
        return NotFound(f"{thing} not found", hint=Message(Command("store", "verify"), " lists what is missing"))
    if status in (409, 412):
        if code in _LOCKED:
            what, hint = _LOCKED[code]
            return Conflict(f"{thing} {what} ({code})", hint=hint)
        return Conflict(f"{thing} was changed by someone else ({code or status})", hint="run the command again")
    if status in (401, 403):
        return _denied(answer, thing, credential)
    if status == 407:
        return refused_by_proxy(answer.host, "407 Proxy Authentication Required")
    return ServiceUnavailable(
        f"the service refused {thing}: {status} {code} {answer.message()} {answer.request}".strip(),
        hint="this is likely an internal error of amlctl: report it with this line",
    )


def _denied(answer: BlobAnswer, thing: str, credential: Credential) -> AmlctlError:
    theirs = seconds_of(answer.headers.get("date", ""))
    skew_s = 0.0 if theirs is None else theirs - time.time()
    if abs(skew_s) > _SKEW_S / 3 and answer.code in _LOGIN_CODES:
        return LoginError(
            f"the service refused the request: this machine's clock is {abs(skew_s) / 60:.0f} minutes "
            f"{'behind' if skew_s > 0 else 'ahead'}",
            hint="set the clock (sudo timedatectl set-ntp true), then run it again",
        )
    why = credential.explain()
    if answer.status == 401 or answer.code in _LOGIN_CODES or credential.out_of_time():
        return LoginError(f"the service does not accept the credentials for {thing}: {why}", hint=credential.remedy())
    return RightsError(f"No right to use {thing} ({answer.code or answer.status}): {why}", hint=credential.remedy())
