"""Code versions: a folder of blobs under a name; places to upload to for the stock client."""

from __future__ import annotations

import threading
import uuid
from typing import Any

from .place import Place, now
from .replies import Handler, Reply, Request, not_found, user_error
from .storage import Storage


class Codes:
    def __init__(self, place: Place, storage: Storage) -> None:
        self._place = place
        self._storage = storage
        self._lock = threading.Lock()
        self._versions: dict[tuple[str, str], dict[str, Any]] = {}

    def routes(self) -> list[tuple[str, str, Handler]]:
        one = "{ws}/codes/(?P<name>[^/]+)/versions"
        return [
            ("GET", one, self._by_hash),
            ("POST", f"{one}/(?P<version>[^/]+)/startPendingUpload", self._pending_upload),
            ("GET", f"{one}/(?P<version>[^/]+)", self._get),
            ("PUT", f"{one}/(?P<version>[^/]+)", self._put),
        ]

    def uri(self, name: str, version: str) -> str | None:
        """The folder of a registered version."""
        document = self._versions.get((name.lower(), version))
        return None if document is None else document["properties"]["codeUri"]

    def _by_hash(self, request: Request) -> Reply:
        """With a hash, versions of every name are looked through: the stock client asks under a name of chance."""
        wanted = request.query.get("hash")
        name = request.names["name"].lower()
        with self._lock:
            found = [
                one
                for (owner, _), one in self._versions.items()
                if (owner == name if wanted is None else one["properties"]["properties"].get("hash_sha256") == wanted)
            ]
        return Reply(200, {"value": found})

    def _pending_upload(self, request: Request) -> Reply:
        container = f"86530095-7-{uuid.uuid4()}"
        self._storage.make_container(container)
        url = f"{self._storage.azurite.url}/{container}"
        account = self._storage.azurite.account
        reference = {
            "blobUri": url,
            "storageAccountArmId": (
                f"/subscriptions/{self._place.subscription_id}/resourceGroups/{self._place.resource_group}"
                f"/providers/Microsoft.Storage/storageAccounts/{account}"
            ),
            "credential": {
                "credentialType": "SAS",
                "sasUri": f"{url}?{self._storage.container_sas(container, 'rcwl')}",
            },
        }
        body = {
            "blobReferenceForConsumption": reference,
            "pendingUploadId": str(uuid.uuid4()),
            "pendingUploadType": "None",
        }
        return Reply(200, body)

    def _get(self, request: Request) -> Reply:
        name, version = request.names["name"], request.names["version"]
        document = self._versions.get((name.lower(), version))
        if document is None:
            raise not_found(f"Code {name} with version {version} is not found.")
        return Reply(200, document)

    def _put(self, request: Request) -> Reply:
        name, version = request.names["name"], request.names["version"]
        asked = request.body.get("properties") or {}
        if not str(asked.get("codeUri", "")).startswith(("https://", "http://")):
            raise user_error(400, "A code asset needs the codeUri of a blob folder.", "BadArgument")
        properties = {
            "description": asked.get("description"),
            "tags": asked.get("tags") or {},
            "properties": asked.get("properties") or {},
            "isArchived": bool(asked.get("isArchived")),
            "isAnonymous": bool(asked.get("isAnonymous")),
            "codeUri": asked["codeUri"],
            "provisioningState": "Succeeded",
        }
        with self._lock:
            present = self._versions.get((name.lower(), version))
            if present is not None and present["properties"]["codeUri"] != asked["codeUri"]:
                raise user_error(
                    400,
                    f"A code asset {name}:{version} is already registered: its asset path is already linked to "
                    f"{present['properties']['codeUri']}.",
                    "ImmutablePropertyModified",
                )
            created = now() if present is None else present["systemData"]["createdAt"]
            document = self._place.resource(f"codes/{name}/versions", version, properties, created, now())
            self._versions[name.lower(), version] = document
        if present is not None:
            return Reply(200, document)
        location = f"{self._place.endpoint}{document['id']}?api-version={request.api_version}"
        return Reply(201, document, {"Location": location})
