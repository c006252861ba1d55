"""Where data lies that a job file names, so that this machine can read it: a container, and a path in it."""

from __future__ import annotations

import re

from amlctl.core.asset import parse_asset
from amlctl.errors import NotFound, SettingsError
from amlctl.workspaces.azureml.assets import Assets
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.azureml.datastore import named_datastore

_IN_DATASTORE = re.compile(r"azureml://(?:(?P<workspace>.*)/)?datastores/(?P<datastore>[^/]+)/paths/(?P<path>.*)")


def data_address(connection: Connection, name: str) -> tuple[str, str]:
    """URL of the container, and the path in it, of registered data or a path in a datastore.

    Raises NotFound, SettingsError.
    """
    asset = parse_asset(name)
    if asset is not None:
        found = Assets(connection).data(asset)
        if found is None:
            raise NotFound(f"the workspace has no data {name}", hint="az ml data list -o table")
        name = found.uri
    match = _IN_DATASTORE.fullmatch(name)
    if match is None:
        raise SettingsError(f"{name} is not in a datastore of blobs", hint="name a file or folder of this project")
    place = connection.place
    wanted = (match["workspace"] or "").rpartition("/")[2]
    if wanted and wanted.lower() != place.workspace_name.lower():
        raise SettingsError(f"{name} is in workspace {wanted}, not in {place.shown}", hint="add it to .amlctl.toml")
    return named_datastore(connection, match["datastore"]).container_url, match["path"]
