"""Environments, data and datastores that others have registered in the workspace; nothing of them is made here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amlctl.core.asset import AssetName
from amlctl.errors import NotFound
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.azureml.datastore import named_datastore
from amlctl.workspaces.contract import PresentAsset

_VERSION = "2023-04-01-preview"
_ENVIRONMENTS, _DATA = "environments", "data"


class Assets:
    """Satisfies `RegisteredAssets`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def environment(self, asset: AssetName) -> PresentAsset | None:
        return self._find(_ENVIRONMENTS, asset)

    def data(self, asset: AssetName) -> PresentAsset | None:
        return self._find(_DATA, asset)

    def has_datastore(self, name: str) -> bool:
        try:
            named_datastore(self._connection, name)
        except NotFound:
            return False
        return True

    def _find(self, kind: str, asset: AssetName) -> PresentAsset | None:
        version = asset.version
        if not version:
            version = str(self._properties(f"/{kind}/{asset.name}").get("latestVersion") or "")
        properties = self._properties(f"/{kind}/{asset.name}/versions/{version}") if version else {}
        return (
            PresentAsset(AssetName(asset.name, version), str(properties.get("dataType") or "")) if properties else None
        )

    def _properties(self, path: str) -> Mapping[str, Any]:
        """Empty where nothing is there."""
        answer = self._connection.workspace("GET", path, _VERSION, accept=(404,))
        return {} if answer.status == 404 else (answer.document or {}).get("properties") or {}


def environment_asset_id(connection: Connection, asset: AssetName) -> str:
    return _id(connection, _ENVIRONMENTS, asset)


def data_asset_id(connection: Connection, asset: AssetName) -> str:
    return _id(connection, _DATA, asset)


def _id(connection: Connection, kind: str, asset: AssetName) -> str:
    return f"{connection.place.id}/{kind}/{asset.name}/versions/{asset.version}"
