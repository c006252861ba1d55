"""Datastores of a workspace: the default one as the store, credentials, and how a job names a store.

The credential is looked up with the first request for blobs: the variables of the az CLI, then listSecrets (AccountKey
or Sas), then a token of the login if the secret is missing or secret from this login.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from threading import Lock
from typing import Any
from urllib.parse import parse_qs

from amlctl.errors import NotFound, RightsError, ServiceUnavailable, SettingsError
from amlctl.stores.azure_blob.address import DEFAULT_PREFIX, BlobAddress, parse_address
from amlctl.stores.azure_blob.credentials import (
    AccountKey,
    Credential,
    SasToken,
    Token,
    find_credential,
    is_account_key,
)
from amlctl.workspaces.azureml.connection import WORKSPACE_VERSION, Connection
from amlctl.workspaces.azureml.documents import invalid_answer

_RENEW_BEFORE_S = 300
_KEY_LASTS_S = 600
"""Keys may be rotated while a command watches a run for days."""
_FOREVER = float("inf")
_OF_BLOBS = ("azureblob", "azuredatalakegen2")
"""The best first, since its secret may be a key. What a data lake calls a file system is a container of its account."""
REMEMBERED = "datastores"
"""By name, in the memory of the connection."""


@dataclass(frozen=True)
class Datastore:
    """A blob container with a name in the workspace. `account_url` has no slash at the end."""

    name: str
    account: str
    container: str
    account_url: str
    is_identity_based: bool

    @property
    def container_url(self) -> str:
        return f"{self.account_url}/{self.container}"

    @property
    def url(self) -> str:
        """Of the store in it."""
        return f"{self.container_url}/{DEFAULT_PREFIX}".rstrip("/")

    def uri(self, path: str) -> str:
        """The name of a path in jobs."""
        return f"azureml://datastores/{self.name}/paths/{path}"

    def holds(self, address: BlobAddress) -> bool:
        return (self.account, self.container) == (address.account, address.container)


def default_datastore(connection: Connection) -> Datastore:
    """The workspace's own; requested once, then remembered. Raises SettingsError if it is not a blob container."""
    with suppress(TypeError):
        return Datastore(**connection.memory.get("datastore"))
    query = {"isDefault": "true", "count": "30", "orderByAsc": "false"}
    for document in connection.values("/datastores", WORKSPACE_VERSION, query):
        found = _blob_datastore(connection, document)
        if found is not None and (document.get("properties") or {}).get("isDefault"):
            connection.memory.set("datastore", asdict(found))
            return found
    raise SettingsError(
        f"the default datastore of {connection.address.shown} is not a blob container",
        hint=f"set store in [workspaces.{connection.address.name}] to a container",
    )


def named_datastore(connection: Connection, name: str) -> Datastore:
    """Raises NotFound if it does not exist, or is not a blob container."""
    with suppress(TypeError):
        return Datastore(**connection.memory.value(REMEMBERED, name))
    document = connection.workspace("GET", f"/datastores/{name}", WORKSPACE_VERSION).document
    found = _blob_datastore(connection, document)
    if found is None:
        raise NotFound(f"the datastore {name} of {connection.address.shown} is not a blob container")
    connection.memory.add(REMEMBERED, name, asdict(found))
    return found


def datastore_of(connection: Connection, address: BlobAddress) -> Datastore | None:
    """The datastore of a container, so that nodes can mount it; None without one."""
    if (found := _first_of(address, _known(connection))) is not None:
        return found
    if (container := (address.account, address.container)) in connection.other_containers:
        return None
    documents = sorted(connection.values("/datastores", WORKSPACE_VERSION), key=lambda one: _kind(one) != _OF_BLOBS[0])
    listed = (_blob_datastore(connection, one) for one in documents)
    if (found := _first_of(address, listed)) is None:
        connection.other_containers.add(container)
    else:
        connection.memory.add(REMEMBERED, found.name, asdict(found))
    return found


def _known(connection: Connection) -> Iterator[Datastore]:
    yield default_datastore(connection)
    for facts in connection.memory.get(REMEMBERED).values():
        with suppress(TypeError):
            yield Datastore(**facts)


def _first_of(address: BlobAddress, datastores: Iterable[Datastore | None]) -> Datastore | None:
    return next((one for one in datastores if one is not None and one.holds(address)), None)


def _blob_datastore(connection: Connection, document: Any) -> Datastore | None:
    """None for another kind. Raises ServiceUnavailable for a reply that does not say which kind it is."""
    properties = document.get("properties") or {}
    kind = _kind(document)
    container = str(properties.get("containerName") or properties.get("filesystem") or "")
    if not kind:
        raise invalid_answer(f"datastore {document.get('name') or ''}".rstrip(), "it does not say which kind it is")
    if kind not in _OF_BLOBS or not container:
        return None
    account = str(properties.get("accountName") or "")
    endpoint = str(properties.get("endpoint") or connection.address.cloud.storage_suffix)
    account_url = f"{properties.get('protocol') or 'https'}://{account}.blob.{endpoint}"
    credentials = (properties.get("credentials") or {}).get("credentialsType") or "None"
    return Datastore(str(document.get("name") or ""), account, container, account_url, credentials == "None")


def _kind(document: Any) -> str:
    return str((document.get("properties") or {}).get("datastoreType") or "").lower()


def store_address(connection: Connection, url: str) -> tuple[str, BlobAddress]:
    """The name of the store's root in jobs (ends with a slash), and its address.

    Raises SettingsError for a store that nodes cannot mount.
    """
    if not url.startswith(("http://", "https://")):
        shown = connection.address.shown
        raise SettingsError(
            f"the store {url} is a folder of this machine, which the nodes of {shown} cannot mount",
            hint=f"remove store from [workspaces.{connection.address.name}], or set it to a blob container",
        )
    address, _ = parse_address(url)
    datastore = datastore_of(connection, address)
    if datastore is not None:
        return datastore.uri(address.prefix), address
    return f"{address.account_url}/{address.container}/{address.prefix}", address


def credential_for(connection: Connection, url: str, variables: Mapping[str, str]) -> Credential:
    """For a container, with or without a datastore. Raises SettingsError, and what the connection raises."""
    address, sas = parse_address(url)
    found = find_credential(address, sas, variables)
    if not isinstance(found, Token):
        return found
    datastore = datastore_of(connection, address)
    if datastore is None:
        return Token(connection.login)  # of the workspace's cloud and tenant
    # One for all stores in it, such as the two folders of a run's artifacts.
    return connection.credentials.setdefault(datastore.name, DatastoreCredential(connection, datastore))


class DatastoreCredential(Credential):
    """The result of listSecrets, renewed in time, else the login. Thread-safe."""

    def __init__(self, connection: Connection, datastore: Datastore) -> None:
        self._connection = connection
        self._datastore = datastore
        self._current: Credential | None = None
        self._renew_at_s = 0.0
        self._is_key_secret = False
        """Whether the login may not read the datastore's key."""
        self._lock = Lock()

    def current(self) -> Credential:
        with self._lock:
            if self._current is None or time.time() >= self._renew_at_s:
                self._current, self._renew_at_s = self._ask()
            return self._current

    def for_links(self) -> Credential:
        found = self.current()
        if isinstance(found, SasToken):  # it signs nothing: the service may give the key
            found, _ = self._ask(is_expirable=False)
        return Token(self._connection.login) if isinstance(found, SasToken) else found

    def renew(self) -> bool:
        with self._lock:
            self._renew_at_s = 0.0  # the key may have changed
        return self.current().renew()

    def explain(self) -> str:
        found = self.current()
        if isinstance(found, AccountKey):
            return found.explain()
        why = f"{found.explain()}, which is datastore {self._datastore.name} of the workspace"
        return f"{why}, and may not read that datastore's key" if self._is_key_secret else why

    def remedy(self) -> str:
        found, address = self.current(), self._connection.address
        if isinstance(found, AccountKey):
            return (
                f"az ml workspace sync-keys --name {address.workspace_name} --resource-group {address.resource_group}"
            )
        return found.remedy()

    def out_of_time(self) -> str:
        return self.current().out_of_time()

    def _ask(self, *, is_expirable: bool = True) -> tuple[Credential, float]:
        """A credential, and when to ask again (seconds since 1970)."""
        datastore, login = self._datastore, Token(self._connection.login)
        if datastore.is_identity_based:
            return login, _FOREVER
        body = {"expirableSecret": True, "expireAfterHours": 1} if is_expirable else {"expirableSecret": False}
        path = f"/datastores/{datastore.name}/listSecrets"
        try:
            secrets = self._connection.workspace("POST", path, WORKSPACE_VERSION, body).document
        except RightsError:  # such a role may still read and write the blobs
            self._is_key_secret = True
            return login, _FOREVER
        if not secrets.get("secretsType"):
            raise invalid_answer(f"the secrets of datastore {datastore.name}", "it does not say which kind they are")
        if secrets.get("secretsType") == "AccountKey":
            key = str(secrets.get("key") or "")
            if not is_account_key(key):
                raise ServiceUnavailable(
                    "the workspace returned an invalid key of its datastore",
                    hint="az login with another role, or try again",
                )
            source = f"datastore {datastore.name} of the workspace"
            return AccountKey(datastore.account, datastore.container, key, source), time.time() + _KEY_LASTS_S
        if secrets.get("secretsType") == "Sas":
            token = str(secrets.get("sasToken") or "").lstrip("?")
            ends_at_s = _FOREVER
            with suppress(KeyError, ValueError):
                ends_at_s = datetime.fromisoformat(parse_qs(token)["se"][0]).timestamp()
            return SasToken(token), ends_at_s - _RENEW_BEFORE_S
        return login, _FOREVER
