"""Environment versions: image and conda text, which never change under a version."""

from __future__ import annotations

import datetime
import json
import threading
from collections.abc import Mapping
from typing import Any

import yaml

from .place import Place, now
from .replies import Handler, Reply, Request, not_found, user_error

_FIXED = ("image", "condaFile", "build")


class Environments:
    """Thread-safe. `built` has the ids whose image was built for some job."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._versions: dict[str, dict[str, dict[str, Any]]] = {}
        self.built: set[str] = set()

    def routes(self) -> list[tuple[str, str, Handler]]:
        one = "{ws}/environments/(?P<name>[^/]+)"
        return [
            ("GET", one, self._container),
            ("GET", f"{one}/versions", self._list),
            ("GET", f"{one}/versions/(?P<version>[^/]+)", self._get),
            ("PUT", f"{one}/versions/(?P<version>[^/]+)", self._put),
        ]

    def document(self, name: str, version: str) -> dict[str, Any] | None:
        return self._versions.get(name.lower(), {}).get(version)

    def _put(self, request: Request) -> Reply:
        name, version = request.names["name"], request.names["version"]
        asked = request.body.get("properties") or {}
        if not asked.get("image") and not asked.get("build"):
            raise user_error(400, "An environment needs an image or a build context.", "BadArgument")
        properties = {
            "description": asked.get("description"),
            "tags": asked.get("tags") or {},
            "properties": asked.get("properties") or {},
            "isArchived": bool(asked.get("isArchived")),
            "isAnonymous": bool(asked.get("isAnonymous")),
            "environmentType": "UserCreated",
            **{key: asked[key] for key in ("image", "build") if asked.get(key)},
            "osType": asked.get("osType") or "Linux",
        }
        if asked.get("condaFile"):
            properties["condaFile"] = _rewritten(str(asked["condaFile"]))
        with self._lock:
            versions = self._versions.setdefault(name.lower(), {})
            present = versions.get(version)
            if present is not None and _fixed(present["properties"]) != _fixed(properties):
                raise user_error(
                    409,
                    f"Environment {name}, version {version} is already registered and cannot be changed.",
                    "Conflict",
                )
            created = now() if present is None else present["systemData"]["createdAt"]
            document = self._place.resource(f"environments/{name}/versions", version, properties, created, now())
            versions[version] = document
        if present is not None:
            return Reply(200, document)
        location = f"{self._place.endpoint}{document['id']}?api-version={request.api_version}"
        return Reply(201, document, {"Location": location})

    def _get(self, request: Request) -> Reply:
        name, version = request.names["name"], request.names["version"]
        document = self.document(name, version)
        if document is None:
            raise not_found(f"No environment exists for name: {name}, version: {version}, label: ")
        return Reply(200, document)

    def _list(self, request: Request) -> Reply:
        versions = list(reversed(self._versions.get(request.names["name"].lower(), {}).values()))
        top = request.query.get("$top")
        return Reply(200, {"value": versions[: int(top)] if top else versions})

    def _container(self, request: Request) -> Reply:
        name = request.names["name"]
        versions = self._versions.get(name.lower())
        if not versions:
            raise not_found(f"No environment exists for name: {name}, version: , label: ")
        first, *_ = versions.values()
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d-%H-%M-%S-%f0")
        properties = {
            "description": "",
            "tags": {},
            "properties": {},
            "isArchived": False,
            "latestVersion": list(versions)[-1],
            "nextVersion": stamp,
        }
        times = first["systemData"]
        return Reply(
            200,
            self._place.resource("environments", name, properties, times["createdAt"], times["lastModifiedAt"]),
        )


def _fixed(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {key: properties.get(key) for key in _FIXED}


def _rewritten(text: str) -> str:
    """As the service gives it back: JSON, indented."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise user_error(400, f"The conda file cannot be read: {error}", "BadArgument") from error
    return json.dumps(document, indent=2)
