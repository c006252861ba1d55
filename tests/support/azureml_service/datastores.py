"""Datastores: the four that every workspace has, further ones of a test, and their secrets."""

from __future__ import annotations

from typing import Any

from .faults import Faults
from .place import Place, now
from .replies import Handler, Reply, Request, arm_error, not_found
from .storage import ARTIFACTS, Storage

_KINDS = {"containerName": "AzureBlob", "filesystem": "AzureDataLakeGen2", "fileShareName": "AzureFile"}
"""By what names the place."""


class Datastores:
    def __init__(self, place: Place, storage: Storage, faults: Faults) -> None:
        self._place = place
        self._storage = storage
        self._faults = faults
        self._created = now()
        shares = {"fileShareName": f"code-{place.workspace_id}"}
        self._targets: dict[str, dict[str, str]] = {
            "workspaceblobstore": {"containerName": storage.default_container},
            "workspaceworkingdirectory": shares,
            "workspaceartifactstore": {"containerName": ARTIFACTS},
            "workspacefilestore": {"fileShareName": f"azureml-filestore-{place.workspace_id}"},
        }

        self.endpoint: str | None = "core.windows.net"
        """What the documents tell; None: nothing, as of a datastore that was made without one."""

    def add(self, name: str, container: str, *, is_lake: bool = False) -> None:
        """One more datastore of blobs, or of a data lake; the container is made."""
        self._targets[name] = {"filesystem" if is_lake else "containerName": container}
        self._storage.add_datastore(name, container)

    def routes(self) -> list[tuple[str, str, Handler]]:
        return [
            ("GET", "{ws}/datastores", self._list),
            ("GET", "{ws}/datastores/(?P<name>[^/]+)", self._get),
            ("POST", "{ws}/datastores/(?P<name>[^/]+)/listSecrets", self._secrets),
        ]

    def _list(self, request: Request) -> Reply:
        only_default = request.query.get("isDefault", "").lower() == "true"
        names = [name for name in self._targets if not only_default or name == self._storage.default_datastore]
        return Reply(200, {"value": [self._document(name) for name in names]})

    def _get(self, request: Request) -> Reply:
        return Reply(200, self._document(self._name(request)))

    def _secrets(self, request: Request) -> Reply:
        name = self._name(request)
        target = self._targets[name]
        if self._faults.secrets == "denied" or self._faults.has_identity_datastores:
            raise arm_error(
                403,
                "AuthorizationFailed",
                "The client 'test' with object id '00000000-0000-0000-0000-000000000001' does not have authorization "
                "to perform action 'Microsoft.MachineLearningServices/workspaces/datastores/listsecrets/action' over "
                f"scope '{self._place.id}/datastores/{name}' or the scope is invalid.",
            )
        if "filesystem" in target:
            return Reply(200, {"secretsType": "ServicePrincipal", "clientSecret": "not for blobs"})
        if self._faults.secrets == "sas" and "containerName" in target:
            token = self._storage.container_sas(target["containerName"], "racwdl", 3600.0)
            return Reply(200, {"secretsType": "Sas", "sasToken": token})
        key = "bm90IHRoZSBrZXk=" if self._faults.secrets == "rotated" else self._storage.azurite.key
        return Reply(200, {"secretsType": "AccountKey", "key": key})

    def _name(self, request: Request) -> str:
        for name in self._targets:
            if name.lower() == request.names["name"].lower():
                return name
        raise not_found(f"Could not find datastore: {request.names['name']}.")

    def _document(self, name: str) -> dict[str, Any]:
        target = self._targets[name]
        credentials = "None" if self._faults.has_identity_datastores else "AccountKey"
        properties = {
            "description": None,
            "tags": None,
            "properties": None,
            "isDefault": name == self._storage.default_datastore,
            "credentials": {"credentialsType": credentials},
            "datastoreType": _KINDS[next(iter(target))],
            "accountName": self._storage.azurite.account,
            **target,
            "endpoint": self.endpoint,
            "protocol": "https",
            "serviceDataAccessAuthIdentity": "None",
        }
        return self._place.resource("datastores", name, properties, self._created, self._created)
