"""What is registered in the workspace: environments, data, models and datastores are looked up, data is registered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amlctl.core.asset import AssetName
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.azureml.datastore import store_address
from amlctl.workspaces.azureml.exchange import answer_of_error
from amlctl.workspaces.contract import PresentAsset

_VERSION = "2023-04-01-preview"
_ENVIRONMENTS, _DATA, _MODELS = "environments", "data", "models"


class Assets:
    """Satisfies `RegisteredAssets`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def environment(self, asset: AssetName) -> PresentAsset | None:
        return self._find(_ENVIRONMENTS, asset)

    def data(self, asset: AssetName) -> PresentAsset | None:
        return self._find(_DATA, asset)

    def model(self, asset: AssetName) -> PresentAsset | None:
        return self._find(_MODELS, asset)

    def register_data(
        self,
        name: str,
        version: str,
        uri: str,
        *,
        kind: str = "uri_folder",
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Give the data at `uri` a name and a version. Raises Conflict where that version is something else."""
        from azure.core.exceptions import HttpResponseError

        connection = self._connection
        try:
            with connection.sdk.client() as client:
                from azure.ai.ml.entities import Data

                client.data.create_or_update(
                    Data(
                        name=name,
                        version=version,
                        path=uri,
                        type=kind,
                        description=description or None,
                        tags=dict(tags or {}),
                    )
                )
        except HttpResponseError as error:
            path = f"{connection.place.path}/{_DATA}/{name}/versions/{version}"
            raise connection.error(answer_of_error(error), "PUT", path) from error

    def register_mirror(self, name: str, store_url: str, dataset: str, snapshot: str, *, is_file: bool) -> AssetName:
        uri, _ = store_address(self._connection, store_url)
        self.register_data(
            name,
            snapshot,
            f"{uri}mirror/{dataset}" + ("" if is_file else "/"),
            kind="uri_file" if is_file else "uri_folder",
            description=f"mirrored dataset {dataset}",
            tags={"amlctl.dataset": dataset, "amlctl.snapshot": snapshot},
        )
        return AssetName(name, snapshot)

    def has_datastore(self, name: str) -> bool:
        connection = self._connection
        if connection.memory.value("named_datastores", name) is not None:
            return True
        return connection.workspace("GET", f"/datastores/{name}", _VERSION, accept=(404,)).status != 404

    def _find(self, kind: str, asset: AssetName) -> PresentAsset | None:
        version = asset.version
        if not version:
            version = str(self._properties(f"/{kind}/{asset.name}").get("latestVersion") or "")
        properties = self._properties(f"/{kind}/{asset.name}/versions/{version}") if version else {}
        if not properties:
            return None
        kind_of_data, uri = (str(properties.get(name) or "") for name in ("dataType", "dataUri"))
        return PresentAsset(AssetName(asset.name, version), kind_of_data, uri)

    def _properties(self, path: str) -> Mapping[str, Any]:
        """Empty where nothing is there."""
        answer = self._connection.workspace("GET", path, _VERSION, accept=(404,))
        return {} if answer.status == 404 else (answer.document or {}).get("properties") or {}


def environment_asset_id(connection: Connection, asset: AssetName) -> str:
    return f"{connection.place.id}/{_ENVIRONMENTS}/{asset.name}/versions/{asset.version}"
