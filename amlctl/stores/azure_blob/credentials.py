"""Account key, SAS token, or a token of DefaultAzureCredential, found like the az CLI finds them.

The SDKs sign. No credential is ever part of a message, a repr or a URL that is shown.
"""

from __future__ import annotations

import base64
import binascii
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote

from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import BearerTokenCredentialPolicy, HTTPPolicy, SansIOHTTPPolicy

from amlctl.azure_access.login import Login, TokenCache
from amlctl.errors import SettingsError
from amlctl.stores.azure_blob.address import BlobAddress

_AUDIENCE = "https://storage.azure.com"
_SAS_LASTS_S = 24 * 3600.0
_SAS_IS_RENEWED_BEFORE_S = 3600.0


class Credential:
    """Authorizes requests; this one sends nothing along, for data that is public."""

    @property
    def for_sdk(self) -> Any:
        """The `credential` for a client of azure-storage-blob; another object after a change."""
        return None

    @cached_property
    def policy(self) -> Any:
        """The authorization in an azure-core pipeline, within the container; another object after a change."""
        return SansIOHTTPPolicy[Any, Any]()

    def current(self) -> Credential:
        """The credential to use now, for one that is looked up."""
        return self

    def for_links(self) -> Credential:
        """The credential that signs links to single blobs."""
        return self.current()

    def source_query(self) -> str:
        """The query that the source URL of a copy needs."""
        return ""

    def renew(self) -> bool:
        """After a refusal: get new rights. False if that is not possible."""
        return False

    def explain(self) -> str:
        """Why the service may have refused a request."""
        return "it is not public"

    def remedy(self) -> str:
        """What to do about it: a command, if there is one."""
        return "az login"

    def out_of_time(self) -> str:
        """Why it cannot be used now, which must be the reason of a refusal; empty otherwise."""
        return ""


@dataclass(frozen=True)
class AccountKey(Credential):
    """Shared Key. `source`: where the key was found."""

    account: str
    container: str
    key: str = field(repr=False)
    source: str

    @cached_property
    def for_sdk(self) -> Any:
        return AzureNamedKeyCredential(self.account, self.key)

    @cached_property
    def policy(self) -> Any:
        return _SasOfKey(self)

    def explain(self) -> str:
        return f"the key from {self.source} is not one of account {self.account}"

    def remedy(self) -> str:
        return f"az storage account keys list --account-name {self.account}"


@dataclass(frozen=True)
class SasToken(Credential):
    """A shared access signature: the query string without `?`."""

    token: str = field(repr=False)

    @cached_property
    def for_sdk(self) -> Any:
        return AzureSasCredential(self.token)

    @cached_property
    def policy(self) -> Any:
        return _Signed(self.token)

    def source_query(self) -> str:
        return self.token

    def explain(self) -> str:
        fields = dict(parse_qsl(self.token))
        allowed = f"what its policy {fields['si']!r} says" if "si" in fields else repr(fields.get("sp", "nothing"))
        return self.out_of_time() or f"the SAS token allows {allowed} (needed: r, w, c, l, d)"

    def remedy(self) -> str:
        return "az storage container generate-sas --permissions rwcld --expiry …, then set it in the same way"

    def out_of_time(self) -> str:
        fields = dict(parse_qsl(self.token))
        now = datetime.now(UTC)
        for name, text in (("se", "expired at"), ("st", "is not valid before")):
            at = _time(fields.get(name, ""))
            if at is not None and (at < now if name == "se" else at > now):
                return f"the SAS token {text} {fields[name]}"
        return ""


class Token(Credential):
    """Bearer tokens of a login. Thread-safe."""

    def __init__(self, login: Login) -> None:
        self._login = login

    @property
    def for_sdk(self) -> Any:
        return self._login

    @cached_property
    def policy(self) -> Any:
        return BearerTokenCredentialPolicy(self._login, f"{_AUDIENCE}/.default")

    def renew(self) -> bool:
        self._login.token(_AUDIENCE, is_fresh=True)
        return True

    def explain(self) -> str:
        return "the login lacks the role Storage Blob Data Contributor on the container or account"

    def remedy(self) -> str:
        return "az login as a user with that role, or ask for it; a new role takes up to ten minutes to be valid"


class _Signed(HTTPPolicy[Any, Any]):
    """Adds a SAS token to the query. The SDK's policy takes the whole URL apart for it: a tenth of a small request."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self._token = token

    def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        url = request.http_request.url
        if self._token not in url:  # an earlier attempt has added it
            request.http_request.url = f"{url}{'&' if '?' in url else '?'}{self._token}"
        return self.next.send(request)


class _SasOfKey(_Signed):
    """Signs with a SAS token that the SDK makes from the account key: once a day instead of once a request. It is kept
    with the tokens of a login: importing the SDK doubles the processor time of a sync without changes."""

    def __init__(self, key: AccountKey) -> None:
        super().__init__("")
        self._key = key
        self._renew_at_s = 0.0
        self._lock = Lock()

    def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        with self._lock:
            if time.time() > self._renew_at_s:
                self._renew()
        return super().send(request)

    def _renew(self) -> None:
        key = self._key
        cache, name = TokenCache(os.environ), f"sas {key.account} {key.container} {key.key}"
        token, expires_at_s = cache.get(name) or ("", 0.0)
        if time.time() > expires_at_s - _SAS_IS_RENEWED_BEFORE_S:
            from azure.storage.blob import ContainerSasPermissions, generate_container_sas

            expires_at_s = time.time() + _SAS_LASTS_S
            token = generate_container_sas(
                key.account,
                key.container,
                key.key,
                permission=ContainerSasPermissions(read=True, write=True, delete=True, list=True, create=True),
                expiry=datetime.fromtimestamp(expires_at_s, UTC),
            )
            cache.keep(name, token, expires_at_s)
        self._renew_at_s = expires_at_s - _SAS_IS_RENEWED_BEFORE_S
        self._token = token


def find_credential(address: BlobAddress, sas_in_url: str, variables: Mapping[str, str]) -> Credential:
    """The first of: SAS in the URL, connection string, key, SAS variable, DefaultAzureCredential.

    An empty variable counts as not set, as shells and CI jobs unset them. Raises SettingsError for an invalid one.
    """
    if sas_in_url:
        return _sas(sas_in_url, "the store's URL")
    connection_string = variables.get("AZURE_STORAGE_CONNECTION_STRING", "")
    if connection_string:
        pairs = (part.partition("=") for part in connection_string.split(";"))
        parts = {name.strip().lower(): value for name, _, value in pairs}
        if parts.get("usedevelopmentstorage", "").lower() == "true":
            parts = {"accountname": "devstoreaccount1", "accountkey": _DEVELOPMENT_KEY}
        account = parts.get("accountname") or address.account
        if account == address.account:
            if key := parts.get("accountkey"):
                return _account_key(address, key, "AZURE_STORAGE_CONNECTION_STRING")
            if token := parts.get("sharedaccesssignature"):
                return _sas(token, "AZURE_STORAGE_CONNECTION_STRING")
            raise SettingsError(
                "AZURE_STORAGE_CONNECTION_STRING has neither AccountKey nor SharedAccessSignature",
                hint="copy it again: az storage account show-connection-string --name ACCOUNT",
            )
    if (variables.get("AZURE_STORAGE_ACCOUNT") or address.account) == address.account:
        if key := variables.get("AZURE_STORAGE_KEY"):
            return _account_key(address, key, "AZURE_STORAGE_KEY")
        if token := variables.get("AZURE_STORAGE_SAS_TOKEN"):
            return _sas(token, "AZURE_STORAGE_SAS_TOKEN")
    others = ", or set AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING"
    return Token(Login(alternatives=others))


_DEVELOPMENT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Published for every emulator; `UseDevelopmentStorage=true` stands for it."""


def is_account_key(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _account_key(address: BlobAddress, key: str, variable: str) -> AccountKey:
    if not is_account_key(key):
        raise SettingsError(
            f"{variable} is not an account key (it is not base64)",
            hint="az storage account keys list --account-name ACCOUNT",
        )
    return AccountKey(address.account, address.container, key, variable)


def _sas(token: str, variable: str) -> SasToken:
    token = token.strip().lstrip("?")
    if "sig" not in parse_qs(token):
        raise SettingsError(f"{variable} is not a SAS token (it has no sig=)", hint="it looks like sv=…&se=…&sig=…")
    if not all("!" <= character <= "~" for character in token):
        # It could not be sent, and an error about the whole request would show it.
        raise SettingsError(
            f"{variable} has a SAS token with an invalid character (a blank, perhaps)", hint="copy it again"
        )
    return SasToken(token)


def _time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(unquote(text).replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
