"""Who asks: an account key, a SAS token, or a token of DefaultAzureCredential, found as the az CLI finds them.

Shared Key signatures follow https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key.
No credential is ever part of a message, a repr or a URL that is shown.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock
from typing import Protocol
from urllib.parse import parse_qs, parse_qsl, unquote

from amlctl.azure_access.login import Login
from amlctl.errors import SettingsError
from amlctl.stores.azure_blob.address import BlobAddress

_AUDIENCE = "https://storage.azure.com"
_RENEWED_S = 30.0
"""So long a token counts as new: of many requests that are refused at once, one asks for another."""
_SIGNED_HEADERS = (
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
)


class Credential(Protocol):
    """Makes a request one of ours."""

    def sign(self, verb: str, path: str, query: Mapping[str, str], headers: dict[str, str]) -> str:
        """Add what proves who asks to `headers` (lower-case names); returns what to append to the query.

        Raises LoginError.
        """
        ...

    def source_query(self) -> str:
        """What a copy's source URL needs in its query."""
        ...

    def renew(self) -> bool:
        """The service does not accept who asks any more: ask anew for the right to. False where nobody can be asked."""
        ...

    def explain(self) -> str:
        """In words, why the service may have refused us."""
        ...

    def remedy(self) -> str:
        """What to do about it: a command, where there is one."""
        ...

    def is_out_of_time(self) -> bool:
        """Whether nothing else can be the reason of a refusal."""
        ...


@dataclass(frozen=True)
class AccountKey:
    """Shared Key."""

    account: str
    key: bytes = field(repr=False)

    def sign(self, verb: str, path: str, query: Mapping[str, str], headers: dict[str, str]) -> str:
        lines = [verb]
        for name in _SIGNED_HEADERS:
            value = headers.get(name, "")
            lines.append("" if name == "content-length" and value == "0" else value)
        lines += [f"{name}:{headers[name]}" for name in sorted(headers) if name.startswith("x-ms-")]
        resource = f"/{self.account}{path}" + "".join(f"\n{name}:{query[name]}" for name in sorted(query))
        text = "\n".join([*lines, resource])
        signature = base64.b64encode(hmac.new(self.key, text.encode(), hashlib.sha256).digest()).decode()
        headers["authorization"] = f"SharedKey {self.account}:{signature}"
        return ""

    def source_query(self) -> str:
        return ""

    def renew(self) -> bool:
        return False

    def explain(self) -> str:
        return (
            f"the key in AZURE_STORAGE_KEY or the connection string is not one of account {self.account}, "
            "or the account's network rules keep this machine out"
        )

    def remedy(self) -> str:
        return f"az storage account keys list --account-name {self.account}; the portal's Networking page has the rules"

    def is_out_of_time(self) -> bool:
        return False


@dataclass(frozen=True)
class SasToken:
    """A shared access signature: the query string without `?`."""

    token: str = field(repr=False)

    def sign(self, verb: str, path: str, query: Mapping[str, str], headers: dict[str, str]) -> str:
        return self.token

    def source_query(self) -> str:
        return self.token

    def renew(self) -> bool:
        return False

    def explain(self) -> str:
        fields = dict(parse_qsl(self.token))
        allowed = f"what its policy {fields['si']!r} says" if "si" in fields else repr(fields.get("sp", "nothing"))
        return self._out_of_time() or f"the SAS token allows {allowed} (needed: r, w, c, l, d)"

    def remedy(self) -> str:
        return "az storage container generate-sas --permissions rwcld --expiry …, then set it as this one was set"

    def is_out_of_time(self) -> bool:
        return bool(self._out_of_time())

    def _out_of_time(self) -> str:
        fields = dict(parse_qsl(self.token))
        now = datetime.now(UTC)
        for name, text in (("se", "expired at"), ("st", "is not valid before")):
            moment = _moment(fields.get(name, ""))
            if moment is not None and (moment < now if name == "se" else moment > now):
                return f"the SAS token {text} {fields[name]}"
        return ""


class Token:
    """Bearer tokens of a login. Thread-safe."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._renewed_at_s = float("-inf")
        self._lock = Lock()

    def sign(self, verb: str, path: str, query: Mapping[str, str], headers: dict[str, str]) -> str:
        headers["authorization"] = f"Bearer {self._login.token(_AUDIENCE)}"
        return ""

    def source_query(self) -> str:
        return ""

    def renew(self) -> bool:
        with self._lock:
            if time.monotonic() - self._renewed_at_s > _RENEWED_S:
                self._login.token(_AUDIENCE, is_fresh=True)
                self._renewed_at_s = time.monotonic()
        return True

    def explain(self) -> str:
        return "whoever is logged in lacks the role Storage Blob Data Contributor on the container or account"

    def remedy(self) -> str:
        return (
            "az login as somebody who has it, or ask for that role; the portal's Networking page has the network rules"
        )

    def is_out_of_time(self) -> bool:
        return False


def find_credential(address: BlobAddress, sas_in_url: str, variables: Mapping[str, str]) -> Credential:
    """The first of: SAS in the URL, the connection string, the key, the SAS variable, DefaultAzureCredential.

    A variable that is empty counts as not set: that is how a shell or a CI job takes one away. Raises SettingsError
    for one that cannot be what it says.
    """
    if sas_in_url:
        return _sas(sas_in_url, "the store's URL")
    connection_string = variables.get("AZURE_STORAGE_CONNECTION_STRING", "")
    if connection_string:
        parts = dict(part.split("=", 1) for part in connection_string.split(";") if "=" in part)
        if parts.get("UseDevelopmentStorage", "").lower() == "true":
            parts = {"AccountName": "devstoreaccount1", "AccountKey": _DEVELOPMENT_KEY}
        account = parts.get("AccountName") or address.account
        if account == address.account:
            if key := parts.get("AccountKey"):
                return AccountKey(account, _decoded(key, "AZURE_STORAGE_CONNECTION_STRING"))
            if token := parts.get("SharedAccessSignature"):
                return _sas(token, "AZURE_STORAGE_CONNECTION_STRING")
            raise SettingsError(
                "AZURE_STORAGE_CONNECTION_STRING has neither AccountKey nor SharedAccessSignature",
                hint="copy it anew: az storage account show-connection-string --name ACCOUNT",
            )
    if (variables.get("AZURE_STORAGE_ACCOUNT") or address.account) == address.account:
        if key := variables.get("AZURE_STORAGE_KEY"):
            return AccountKey(address.account, _decoded(key, "AZURE_STORAGE_KEY"))
        if token := variables.get("AZURE_STORAGE_SAS_TOKEN"):
            return _sas(token, "AZURE_STORAGE_SAS_TOKEN")
    others = ", or set AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING"
    return Token(Login(otherwise=others))


_DEVELOPMENT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Published for every emulator; `UseDevelopmentStorage=true` stands for it."""


def _decoded(key: str, variable: str) -> bytes:
    try:
        return base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SettingsError(
            f"{variable} holds no account key (it is not base64)",
            hint="az storage account keys list --account-name ACCOUNT",
        ) from error


def _sas(token: str, variable: str) -> SasToken:
    token = token.strip().lstrip("?")
    if "sig" not in parse_qs(token):
        raise SettingsError(f"{variable} holds no SAS token (it has no sig=)", hint="it looks like sv=…&se=…&sig=…")
    if not all("!" <= character <= "~" for character in token):
        # http.client would refuse it, and show the whole of it.
        raise SettingsError(
            f"{variable} holds a SAS token with a character that none has (a blank, perhaps)", hint="copy it anew"
        )
    return SasToken(token)


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(unquote(text).replace("Z", "+00:00"))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
