"""Datastores of a workspace: the default one as the store, its credential, and how a job names a store.

The credential is asked for with the first request to the blobs: the variables of the az CLI win, then listSecrets
(AccountKey or Sas), then, where there is none or nobody may read it, a token of the login.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from threading import Lock
from typing import Any
from urllib.parse import parse_qs

from amlctl.errors import NotFound, RightsError, ServiceUnavailable, SettingsError
from amlctl.stores.azure_blob.address import DEFAULT_PREFIX, BlobAddress, parse_address
from amlctl.stores.azure_blob.credentials import AccountKey, Credential, SasToken, Token, find_credential
from amlctl.workspaces.azureml.connection import WORKSPACE_VERSION, Connection

_RENEW_BEFORE_S = 300
_FOREVER = float("inf")


@dataclass(frozen=True)
class Datastore:
    """A blob container that the workspace knows by a name. `account_url` has no slash at the end."""

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
        """The store's."""
        return f"{self.account_url}/{self.container}/{DEFAULT_PREFIX}".rstrip("/")

    def uri(self, path: str) -> str:
        """What a job calls a path in the container."""
        return f"azureml://datastores/{self.name}/paths/{path}"

    def holds(self, address: BlobAddress) -> bool:
        return (self.account, self.container) == (address.account, address.container)


def default_datastore(connection: Connection) -> Datastore:
    """The workspace's own one; asked for once, then remembered. Raises SettingsError where it holds no blobs."""
    known = connection.memory.get("datastore")
    with suppress(TypeError):
        return Datastore(**known)
    suffix = connection.place.cloud.storage_suffix
    query = {"isDefault": "true", "count": "30", "orderByAsc": "false"}
    for document in connection.values("/datastores", WORKSPACE_VERSION, query):
        found = _blob_datastore(document, suffix)
        if found is not None and (document.get("properties") or {}).get("isDefault"):
            connection.memory.set(datastore=asdict(found))
            return found
    raise SettingsError(
        f"the default datastore of {connection.place.shown} is no blob container",
        hint=f"name a container: store = … in [workspaces.{connection.place.name}]",
    )


def named_datastore(connection: Connection, name: str) -> Datastore:
    """Raises NotFound where it is not there, or holds no blobs."""
    known = connection.memory.value("named_datastores", name)
    with suppress(TypeError):
        return Datastore(**known)
    document = connection.workspace("GET", f"/datastores/{name}", WORKSPACE_VERSION).document or {}
    found = _blob_datastore(document, connection.place.cloud.storage_suffix)
    if found is None:
        raise NotFound(f"the datastore {name} of {connection.place.shown} holds no blobs")
    connection.memory.add("named_datastores", name, asdict(found))
    # So that it is found again by its address, which is how its credential is looked for.
    connection.memory.add("datastores", f"{found.account}/{found.container}", asdict(found))
    return found


def datastore_of(connection: Connection, address: BlobAddress) -> Datastore | None:
    """The datastore that a container belongs to, so that nodes may mount it; None where there is none."""
    default = default_datastore(connection)
    if default.holds(address):
        return default
    key = f"{address.account}/{address.container}"
    known = connection.memory.value("datastores", key)
    with suppress(TypeError):
        return Datastore(**known)
    if key in connection.strangers:
        return None
    for document in connection.values("/datastores", WORKSPACE_VERSION):
        found = _blob_datastore(document, connection.place.cloud.storage_suffix)
        if found is not None and found.holds(address):
            connection.memory.add("datastores", key, asdict(found))
            return found
    connection.strangers.add(key)
    return None


def _blob_datastore(document: Any, storage_suffix: str) -> Datastore | None:
    properties = document.get("properties") or {}
    kind = str(properties.get("datastoreType") or "")
    if kind.lower() != "azureblob" or not properties.get("containerName"):
        return None
    account = str(properties.get("accountName") or "")
    endpoint = str(properties.get("endpoint") or storage_suffix)
    protocol = str(properties.get("protocol") or "https")
    credentials = str((properties.get("credentials") or {}).get("credentialsType") or "None")
    return Datastore(
        str(document.get("name") or ""),
        account,
        str(properties["containerName"]),
        f"{protocol}://{account}.blob.{endpoint}",
        credentials == "None",
    )


def store_address(connection: Connection, url: str) -> tuple[str, BlobAddress]:
    """How a job names the store's root (ends with a slash), and its address.

    Raises SettingsError for a store that no node can mount.
    """
    if not url.startswith(("http://", "https://")):
        raise SettingsError(
            f"the store {url} is a folder of this machine, which the nodes of {connection.place.shown} cannot mount",
            hint=f"leave store out of [workspaces.{connection.place.name}], or name a blob container",
        )
    address, _ = parse_address(url)
    datastore = datastore_of(connection, address)
    if datastore is not None:
        return datastore.uri(address.prefix), address
    return f"{address.account_url}/{address.container}/{address.prefix}", address


def datastore_credential(connection: Connection, datastore: Datastore, variables: Mapping[str, str]) -> Credential:
    """Raises SettingsError for a variable that cannot be what it says. Nothing is asked for yet."""
    found = find_credential(parse_address(datastore.url)[0], "", variables)
    return DatastoreCredential(connection, datastore) if isinstance(found, Token) else found


def credential_for(connection: Connection, url: str, variables: Mapping[str, str]) -> Credential:
    """Of a container, be it a datastore's or not. Raises SettingsError, and what the connection raises."""
    address, sas = parse_address(url)
    datastore = None if sas else datastore_of(connection, address)
    if datastore is not None:
        return datastore_credential(connection, datastore, variables)
    found = find_credential(address, sas, variables)
    return Token(connection.login) if isinstance(found, Token) else found  # of the same cloud and tenant


class DatastoreCredential:
    """Satisfies `Credential`: what listSecrets gives, renewed in time, else the login. Thread-safe."""

    def __init__(self, connection: Connection, datastore: Datastore) -> None:
        self._connection = connection
        self._datastore = datastore
        self._current: Credential | None = None
        self._renew_at_s = 0.0
        self._keeps_its_key = False
        """Whether nobody with this login gets to see it."""
        self._lock = Lock()

    @property
    def for_sdk(self) -> Any:
        return self._credential().for_sdk

    @property
    def policy(self) -> Any:
        return self._credential().policy

    def source_query(self) -> str:
        return self._credential().source_query()

    def renew(self) -> bool:
        with self._lock:
            self._renew_at_s = 0.0  # a key that was changed since is asked for, too
        return self._credential().renew()

    def explain(self) -> str:
        why = f"{self._credential().explain()}, which is datastore {self._datastore.name} of the workspace"
        return f"{why}, and may not read that one's key" if self._keeps_its_key else why

    def remedy(self) -> str:
        return self._credential().remedy()

    def is_out_of_time(self) -> bool:
        return self._credential().is_out_of_time()

    def _credential(self) -> Credential:
        with self._lock:
            if self._current is None or time.time() >= self._renew_at_s:
                self._current, self._renew_at_s = self._ask()
            return self._current

    def _ask(self) -> tuple[Credential, float]:
        login = Token(self._connection.login)
        if self._datastore.is_identity_based:
            return login, _FOREVER
        try:
            secrets = self._connection.workspace(
                "POST",
                f"/datastores/{self._datastore.name}/listSecrets",
                WORKSPACE_VERSION,
                {"expirableSecret": True, "expireAfterHours": 1},
            ).document
        except RightsError:  # a role without that right may still read and write the blobs
            self._keeps_its_key = True
            return login, _FOREVER
        kind = (secrets or {}).get("secretsType")
        if kind == "AccountKey":
            return AccountKey(
                self._datastore.account, self._datastore.container, _checked(str(secrets.get("key") or ""))
            ), _FOREVER
        if kind == "Sas":
            token = str(secrets.get("sasToken") or "").lstrip("?")
            return SasToken(token), _end_of(token) - _RENEW_BEFORE_S
        return login, _FOREVER


def _checked(key: str) -> str:
    try:
        base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ServiceUnavailable(
            "the workspace gives a key of its datastore that is none", hint="az login with another role, or try again"
        ) from error
    return key


def _end_of(token: str) -> float:
    """Seconds since 1970; far away where the token does not say."""
    try:
        return datetime.fromisoformat(parse_qs(token)["se"][0]).timestamp()
    except (KeyError, ValueError):
        return _FOREVER
