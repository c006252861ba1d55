"""What the Blob service has answered, and what can be read from it."""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit
from xml.etree import ElementTree

from amlctl.azure_access.http import moment_of, refused_by_proxy
from amlctl.azure_access.retry import AGAIN
from amlctl.azure_access.transport import Answered
from amlctl.errors import AmlctlError, Conflict, LoginError, NotFound, RightsError, ServiceUnavailable
from amlctl.stores.azure_blob.address import BlobAddress
from amlctl.stores.azure_blob.credentials import Credential

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


_SKEW_S = 15 * 60
"""The service refuses a signed date that is further from its own clock than this."""
_WORD = re.compile(r"[A-Z][a-z]*|[a-z]+|\d+")
"""Of a code such as ServerBusy."""
_LOGIN_CODES = frozenset({"AuthenticationFailed", "InvalidAuthenticationInfo"})
_HELD = {
    "BlobArchived": (
        "is in the archive tier",
        "az storage blob set-tier --tier Hot; hours later the same command again",
    ),
    "BlobBeingRehydrated": ("is on its way out of the archive tier", "run the same command again in some hours"),
    "BlobImmutableDueToPolicy": ("is kept by a policy", "use a container without an immutability policy"),
    "LeaseIdMissing": ("is leased by another program", "az storage blob lease break, if nobody needs that lease"),
}
"""Refusals by 409 and 412 that nobody's change is the reason of, and that trying again does not help."""


def refusal(answer: Answer, key: str, address: BlobAddress, credential: Credential) -> AmlctlError:
    """Of a request for the value of `key`; an empty key: for the store itself."""
    thing = _thing(key, address)
    status, code = answer.status, answer.code
    if code == "ContainerBeingDeleted":
        return ServiceUnavailable(
            f"the container {address.container} of account {address.account} is being deleted",
            hint="try again in a minute",
        )
    if status == 404 and code == "ContainerNotFound":
        return NotFound(
            f"there is no container {address.container} in account {address.account}",
            hint="check the store's URL; the first sync makes the container",
        )
    if status == 404:
        return NotFound(f"{thing} is not there")
    if status in (409, 412):
        if code in _HELD:
            what, hint = _HELD[code]
            return Conflict(f"{thing} {what} ({code})", hint=hint)
        return Conflict(f"{thing} was changed by someone else ({code or status})", hint="run the command again")
    if status in (401, 403):
        return _no_right(answer, thing, credential)
    if status == 407:
        return refused_by_proxy(address.host, "407 Proxy Authentication Required")
    return ServiceUnavailable(
        f"the service refused {thing}: {status} {code} {answer.message} {answer.request}".strip(),
        hint="this is likely a fault of amlctl: report it with this line",
    )


def still_failing(answer: Answer, key: str, address: BlobAddress, attempts: str) -> ServiceUnavailable:
    """Of a request that was given up after `attempts`, such as `6 attempts in 12 s`."""
    failed = f"the service failed at {_thing(key, address)}: {answer.status} {answer.code} {answer.request}".rstrip()
    return ServiceUnavailable(f"{failed} ({attempts})", hint="run the same command again; nothing that arrived is lost")


def reason_of_refusal(answer: Answer) -> str:
    """`503 server busy`: why a request has to be repeated."""
    words = _WORD.findall(answer.code) or [http.client.responses.get(answer.status, "")]
    return f"{answer.status} {' '.join(words)}".strip().lower()


def _thing(key: str, address: BlobAddress) -> str:
    return f"{key} in {address.url}" if key else f"the store {address.url}"


def _no_right(answer: Answer, thing: str, credential: Credential) -> AmlctlError:
    skew_s = _clock_skew_s(answer)
    if abs(skew_s) > _SKEW_S / 3 and answer.code in _LOGIN_CODES:
        return LoginError(
            f"the service refused the request: this machine's clock is {abs(skew_s) / 60:.0f} minutes "
            f"{'behind' if skew_s > 0 else 'ahead'}",
            hint="set the clock (sudo timedatectl set-ntp true), then run it again",
        )
    why = credential.explain()
    if answer.status == 401 or answer.code in _LOGIN_CODES or credential.is_out_of_time():
        return LoginError(
            f"the service does not accept who asks for {thing}: {why}",
            hint=credential.remedy(),
        )
    return RightsError(
        f"no right to use {thing} ({answer.code or answer.status}): {why}",
        hint=credential.remedy(),
    )


def _clock_skew_s(answer: Answer) -> float:
    """The service's clock less ours."""
    theirs = moment_of(answer.headers.get("date", ""))
    return 0.0 if theirs is None else theirs - time.time()
