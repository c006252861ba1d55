"""Who asks: an account key, a SAS token, or a token of DefaultAzureCredential, found as the az CLI finds them.

The SDKs sign. No credential is ever part of a message, a repr or a URL that is shown.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from threading import Lock
from typing import Any, Protocol
from urllib.parse import parse_qs, parse_qsl, unquote

from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.core.pipeline import PipelineRequest
from azure.core.pipeline.policies import AzureSasCredentialPolicy, BearerTokenCredentialPolicy, SansIOHTTPPolicy

from amlctl.azure_access.login import Login, LoginCredential
from amlctl.errors import SettingsError
from amlctl.stores.azure_blob.address import BlobAddress

_AUDIENCE = "https://storage.azure.com"
_RENEWED_S = 30.0
"""So long a token counts as new: of many requests that are refused at once, one asks for another."""
_SAS_LASTS = timedelta(days=1)
_SAS_IS_RENEWED_BEFORE = timedelta(hours=1)


class Credential(Protocol):
    """Makes a request one of ours."""

    @property
    def for_sdk(self) -> Any:
        """What a client of azure-storage-blob takes as its `credential`; another object once another one is needed."""
        ...

    @property
    def policy(self) -> Any:
        """What proves who asks in a pipeline of azure-core, within the container; likewise."""
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
    container: str
    key: str = field(repr=False)

    @cached_property
    def for_sdk(self) -> Any:
        return AzureNamedKeyCredential(self.account, self.key)

    @cached_property
    def policy(self) -> Any:
        return _SasOfKey(self)

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

    @cached_property
    def for_sdk(self) -> Any:
        return AzureSasCredential(self.token)

    @cached_property
    def policy(self) -> Any:
        return AzureSasCredentialPolicy(AzureSasCredential(self.token))

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

    @cached_property
    def for_sdk(self) -> Any:
        return LoginCredential(self._login)

    @cached_property
    def policy(self) -> Any:
        return BearerTokenCredentialPolicy(LoginCredential(self._login), f"{_AUDIENCE}/.default")

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


class Anonymous:
    """For what is open to everyone."""

    for_sdk = None

    @cached_property
    def policy(self) -> Any:
        return SansIOHTTPPolicy[Any, Any]()

    def source_query(self) -> str:
        return ""

    def renew(self) -> bool:
        return False

    def explain(self) -> str:
        return "it is not open to everyone"

    def remedy(self) -> str:
        return "az login"

    def is_out_of_time(self) -> bool:
        return False


class _SasOfKey(SansIOHTTPPolicy[Any, Any]):
    """Signs with a SAS token that the SDK has made from the account key: once a day instead of once a request."""

    def __init__(self, key: AccountKey) -> None:
        self._key = key
        self._renew_at = datetime.min.replace(tzinfo=UTC)
        self._credential = AzureSasCredential("none yet")
        self._policy = AzureSasCredentialPolicy[Any, Any](self._credential)
        self._lock = Lock()

    def on_request(self, request: PipelineRequest[Any]) -> None:
        with self._lock:
            if datetime.now(UTC) > self._renew_at:
                self._renew()
        self._policy.on_request(request)

    def _renew(self) -> None:
        from azure.storage.blob import ContainerSasPermissions, generate_container_sas

        expires_at = datetime.now(UTC) + _SAS_LASTS
        self._renew_at = expires_at - _SAS_IS_RENEWED_BEFORE
        token = generate_container_sas(
            self._key.account,
            self._key.container,
            self._key.key,
            permission=ContainerSasPermissions(read=True, write=True, delete=True, list=True, create=True),
            expiry=expires_at,
        )
        self._credential.update(token)


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
                return AccountKey(account, address.container, _checked(key, "AZURE_STORAGE_CONNECTION_STRING"))
            if token := parts.get("SharedAccessSignature"):
                return _sas(token, "AZURE_STORAGE_CONNECTION_STRING")
            raise SettingsError(
                "AZURE_STORAGE_CONNECTION_STRING has neither AccountKey nor SharedAccessSignature",
                hint="copy it anew: az storage account show-connection-string --name ACCOUNT",
            )
    if (variables.get("AZURE_STORAGE_ACCOUNT") or address.account) == address.account:
        if key := variables.get("AZURE_STORAGE_KEY"):
            return AccountKey(address.account, address.container, _checked(key, "AZURE_STORAGE_KEY"))
        if token := variables.get("AZURE_STORAGE_SAS_TOKEN"):
            return _sas(token, "AZURE_STORAGE_SAS_TOKEN")
    others = ", or set AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING"
    return Token(Login(otherwise=others))


_DEVELOPMENT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Published for every emulator; `UseDevelopmentStorage=true` stands for it."""


def _checked(key: str, variable: str) -> str:
    try:
        base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SettingsError(
            f"{variable} holds no account key (it is not base64)",
            hint="az storage account keys list --account-name ACCOUNT",
        ) from error
    return key


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
