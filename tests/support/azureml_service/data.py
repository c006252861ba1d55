"""Data versions: a name and a version for an address in storage, in the shapes of environments."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from .place import Place, now
from .replies import Handler, Reply, Request, not_found, user_error

_TYPES = ("uri_file", "uri_folder", "mltable")


class Data:
    """Thread-safe."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._versions: dict[str, dict[str, dict[str, Any]]] = {}

    def routes(self) -> list[tuple[str, str, Handler]]:
        one = "{ws}/data/(?P<name>[^/]+)"
        return [
            ("GET", one, self._container),
            ("GET", f"{one}/versions/(?P<version>[^/]+)", self._get),
            ("PUT", f"{one}/versions/(?P<version>[^/]+)", self._put),
        ]

    def uri(self, name: str, version: str) -> str | None:
        """The address of a registered version."""
        document = self._versions.get(name.lower(), {}).get(version)
        return None if document is None else document["properties"]["dataUri"]

    def add_output(self, output: Mapping[str, Any], uri: str) -> None:
        """Of a job that has completed, and whose outputs have a name; without a version it gets the next number."""
        name = str(output["assetName"])
        with self._lock:
            versions = self._versions.setdefault(name.lower(), {})
            version = output.get("assetVersion") or str(len(versions) + 1)
            properties = {"dataType": output.get("jobOutputType") or "uri_folder", "dataUri": uri}
            versions[version] = self._place.resource(f"data/{name}/versions", version, properties, now(), now())

    def _put(self, request: Request) -> Reply:
        name, version = request.names["name"], request.names["version"]
        asked = request.body.get("properties") or {}
        if asked.get("dataType") not in _TYPES or not asked.get("dataUri"):
            raise user_error(400, "A data asset needs a dataType and a dataUri.", "BadArgument")
        properties = {
            "description": asked.get("description"),
            "tags": asked.get("tags") or {},
            "properties": asked.get("properties") or {},
            "isArchived": bool(asked.get("isArchived")),
            "isAnonymous": bool(asked.get("isAnonymous")),
            "dataUri": asked["dataUri"],
            "dataType": asked["dataType"],
        }
        with self._lock:
            versions = self._versions.setdefault(name.lower(), {})
            present = versions.get(version)
            if present is not None and present["properties"]["dataUri"] != asked["dataUri"]:
                raise user_error(409, f"Data {name}:{version} is already registered.", "Conflict")
            created = now() if present is None else present["systemData"]["createdAt"]
            document = self._place.resource(f"data/{name}/versions", version, properties, created, now())
            versions[version] = document
        return Reply(201 if present is None else 200, document)

    def _get(self, request: Request) -> Reply:
        name, version = request.names["name"], request.names["version"]
        document = self._versions.get(name.lower(), {}).get(version)
        if document is None:
            raise not_found(f"Data version {name}:{version} (dataContainerName:version) not found.")
        return Reply(200, document)

    def _container(self, request: Request) -> Reply:
        name = request.names["name"]
        versions = self._versions.get(name.lower())
        if not versions:
            raise not_found(f"Data container {name} was not found.")
        last = list(versions.values())[-1]
        properties = {
            "description": None,
            "tags": {},
            "properties": {},
            "isArchived": False,
            "latestVersion": last["name"],
            "nextVersion": None,
            "dataType": last["properties"]["dataType"],
        }
        times = last["systemData"]
        return Reply(200, self._place.resource("data", name, properties, times["createdAt"], times["lastModifiedAt"]))
