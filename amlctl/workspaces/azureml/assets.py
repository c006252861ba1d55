"""What is registered in the workspace: environments, data, models and datastores are looked up, data is registered."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amlctl.config.environment_file import check_runtime_python
from amlctl.core.environment import DEFAULT_IMAGE, EnvironmentSpec
from amlctl.core.job import AssetName, parse_asset
from amlctl.core.store_keys import code_prefix
from amlctl.errors import NotFound, SettingsError
from amlctl.stores.azure_blob.address import BlobAddress
from amlctl.workspaces.azureml.clients import answer_of_error
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.azureml.datastores import named_datastore, store_address
from amlctl.workspaces.contract import EnvironmentInfo, PresentAsset

_VERSION = "2023-04-01-preview"
_CODE_VERSION = "2023-04-01"
_CODE_NAME = "amlctl"
ENVIRONMENT_NAME = "amlctl-env"
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


def ensure_code(connection: Connection, code: str, root: BlobAddress) -> str:
    """The resource id of the snapshot, which lies below `root`: one call, or none where this machine has made it.

    A version cannot be given another folder: should the datastore have become another one, it gets one more version.
    """
    uri = f"{root.account_url}/{root.container}/{root.prefix}{code_prefix(code)}".rstrip("/")
    known = connection.memory.value("codes", uri)
    if known is None:
        known = code
        if not _register(connection, known, code, uri):
            known = f"{code}-{hashlib.sha256(uri.encode()).hexdigest()[:8]}"
            _register(connection, known, code, uri, must=True)
        connection.memory.add("codes", uri, known)
    return f"{connection.place.id}/codes/{_CODE_NAME}/versions/{known}"


def _register(connection: Connection, version: str, code: str, uri: str, *, must: bool = False) -> bool:
    """False where the version has another folder."""
    body = {"properties": {"codeUri": uri, "isAnonymous": False, "properties": {"amlctl.tree": code}}}
    path = f"/codes/{_CODE_NAME}/versions/{version}"
    answer = connection.workspace("PUT", path, _CODE_VERSION, body, accept=() if must else (400, 409))
    return answer.status < 400


class Environments:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def find(self, spec: EnvironmentSpec) -> EnvironmentInfo:
        """Without making it. The interpreter's own packages count as ready: they are listed when a run needs them."""
        if spec.registered:
            return self._registered(spec)
        version = version_of(spec)
        is_there = self._connection.memory.has(_ENVIRONMENTS, version) or self._exists(version)
        location = environment_id(self._connection, version) if is_there else ""
        return EnvironmentInfo(spec.id, is_there or spec.is_current, location, "azureml")

    def ensure(self, spec: EnvironmentSpec, context_uri: str = "") -> EnvironmentInfo:
        """Make it unless it is there: one call where this machine does not know, none where it does.

        `context_uri` is the folder with what the run's code snapshot has for building an image.
        """
        if spec.registered:
            return self._registered(spec)
        version = version_of(spec)
        if not self._connection.memory.has(_ENVIRONMENTS, version):
            if not self._exists(version):
                self._make(spec, version, context_uri)
            self._connection.memory.add(_ENVIRONMENTS, version)
        return EnvironmentInfo(spec.id, True, environment_id(self._connection, version), "azureml")

    def _registered(self, spec: EnvironmentSpec) -> EnvironmentInfo:
        """What a job file names was looked for before; one of a registry is named as it is."""
        asset = parse_asset(spec.registered)
        location = spec.registered if asset is None else environment_asset_id(self._connection, asset)
        return EnvironmentInfo(spec.id, True, location, "azureml")

    def _exists(self, version: str) -> bool:
        answer = self._connection.workspace("GET", _path(version), _VERSION, accept=(404,))
        return answer.status != 404

    def _make(self, spec: EnvironmentSpec, version: str, context_uri: str) -> None:
        from azure.core.exceptions import HttpResponseError

        try:
            with self._connection.sdk.client() as client:
                from azure.ai.ml.entities import BuildContext, Environment

                content: dict[str, Any] = {"image": spec.image}
                if spec.build:
                    where, _, dockerfile = spec.build.rpartition("#")
                    where = where if "://" in where else context_uri
                    content = {"build": BuildContext(path=where, dockerfile_path=dockerfile)}
                elif not spec.is_bare:
                    content["conda_file"] = conda_document(spec)
                client.environments.create_or_update(Environment(name=ENVIRONMENT_NAME, version=version, **content))
        except HttpResponseError as error:
            answer = answer_of_error(error)
            if answer.status != 409:  # another machine was faster, with the same content
                raise self._connection.error(answer, "PUT", environment_id(self._connection, version)) from error


def check_environment(spec: EnvironmentSpec) -> None:
    """Raises SettingsError for what is certain to fail: Azure ML makes the environment from its conda file alone."""
    check_runtime_python(spec)
    for line in spec.pip:
        if any(Path(path).as_uri() in line for path in spec.local_files):
            raise _not_taken(
                spec, line, "names a file of this machine", hint="put it into a package index, or name a URL"
            )
    for line in spec.constraints:
        raise _not_taken(spec, line, "is a constraint (-c)", hint="write the versions into the list itself")
    hashed = next((line for line in spec.pip if " --hash" in line or line == "--require-hashes"), "")
    if hashed and not any(line.startswith("xxhash==") for line in spec.pip):
        hint = "add xxhash, which amlctl's runtime needs, with its version and hashes"
        raise _not_taken(spec, hashed, "makes pip ask for the hash of every package", hint=hint)


def _not_taken(spec: EnvironmentSpec, line: str, why: str, *, hint: str) -> SettingsError:
    place = spec.places.get(line, "")
    told = f"{line!r} {why}, which Azure ML cannot use when it makes the environment"
    return SettingsError(f"{place}: {told}" if place else told, hint=hint)


def environment_id(connection: Connection, version: str) -> str:
    return f"{connection.place.id}{_path(version)}"


def version_of(spec: EnvironmentSpec) -> str:
    """32 hex digits of the content."""
    if spec.is_bare or spec.build:
        return hashlib.sha256(spec.id.encode()).hexdigest()[:32]
    if not spec.is_current:
        return spec.id
    text = json.dumps([DEFAULT_IMAGE, conda_document(spec)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def conda_document(spec: EnvironmentSpec) -> dict[str, Any]:
    """A conda file that stands for the specification; JSON is YAML too."""
    if spec.is_current:
        major, minor, _ = platform.python_version_tuple()
        spec = EnvironmentSpec(python=f"{major}.{minor}", pip=installed_packages())
    wanted = spec.normalized()
    python = str(wanted["python"])
    # A version alone means any of its patches; what has operators of its own is taken as written.
    shown = f"python={python}" if python[:1].isdigit() else f"python{python}"
    return {
        "name": ENVIRONMENT_NAME,
        "channels": list(wanted["channels"]) or ["conda-forge"],
        "dependencies": [shown, "pip", *(one for one in wanted["conda"] if one != "pip"), {"pip": list(wanted["pip"])}],
    }


def installed_packages() -> tuple[str, ...]:
    """Those of this interpreter that come from an index, at their versions."""
    import importlib.metadata

    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        # What was installed from a folder, a file or a repository is in no index.
        if name and distribution.read_text("direct_url.json") is None:
            found.setdefault(name.lower().replace("_", "-"), f"{name}=={distribution.version}")
    return tuple(found[name] for name in sorted(found))


def _path(version: str) -> str:
    return f"/environments/{ENVIRONMENT_NAME}/versions/{version}"


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
