"""Assets of the workspace: registered environments, data and models are looked up; data, code snapshots and
environments are registered, the latter two under the hash of their content."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from amlctl.config.environment_file import check_runtime_python
from amlctl.core.environment import DEFAULT_IMAGE, EnvironmentSpec
from amlctl.core.job import AssetName, parse_asset
from amlctl.core.package_names import may_bring
from amlctl.core.store_keys import code_prefix
from amlctl.errors import NotFound, SettingsError
from amlctl.localfs.tool_variables import answer_of
from amlctl.stores.azure_blob.address import BlobAddress
from amlctl.workspaces.azureml.clients import answer_of_error
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.azureml.datastores import REMEMBERED, named_datastore, store_address
from amlctl.workspaces.contract import EnvironmentInfo, PresentAsset

ENVIRONMENT_NAME = "amlctl-env"
_VERSION = "2023-04-01-preview"
_CODE_VERSION = "2023-04-01"
_CODES = "/codes/amlctl/versions"
_IN_DATASTORE = re.compile(r"azureml://(?:(?P<workspace>.*)/)?datastores/(?P<datastore>[^/]+)/paths/(?P<path>.*)")


class Assets:
    """Satisfies `RegisteredAssets`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def environment(self, asset: AssetName) -> PresentAsset | None:
        return self._find("environments", asset)

    def data(self, asset: AssetName) -> PresentAsset | None:
        return self._find("data", asset)

    def model(self, asset: AssetName) -> PresentAsset | None:
        return self._find("models", asset)

    def register_mirror(self, name: str, store_url: str, dataset: str, snapshot: str, *, is_file: bool) -> AssetName:
        from azure.core.exceptions import HttpResponseError

        connection = self._connection
        root, _ = store_address(connection, store_url)
        try:
            with connection.sdk.client() as client:
                from azure.ai.ml.entities import Data

                data = Data(
                    name=name,
                    version=snapshot,
                    path=f"{root}mirror/{dataset}" + ("" if is_file else "/"),
                    type="uri_file" if is_file else "uri_folder",
                    tags={"amlctl.dataset": dataset, "amlctl.snapshot": snapshot},
                )
                data.description = f"mirrored dataset {dataset}"
                client.data.create_or_update(data)
        except HttpResponseError as error:
            path = f"{connection.address.path}/data/{name}/versions/{snapshot}"
            raise connection.error(answer_of_error(error), "PUT", path) from error
        return AssetName(name, snapshot)

    def has_datastore(self, name: str) -> bool:
        connection = self._connection
        if connection.memory.value(REMEMBERED, name) is not None:
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
        """Empty if it does not exist."""
        answer = self._connection.workspace("GET", path, _VERSION, accept=(404,))
        return {} if answer.status == 404 else answer.document.get("properties") or {}


def data_address(connection: Connection, name: str) -> tuple[str, str]:
    """URL of the container, and the path in it, of registered data or a path in a datastore.

    Raises NotFound, SettingsError.
    """
    asset = parse_asset(name)
    if asset is not None:
        found = Assets(connection).data(asset)
        if found is None:
            raise NotFound(f"data {name} not found in the workspace", hint="az ml data list -o table")
        name = found.uri
    match = _IN_DATASTORE.fullmatch(name)
    if match is None:
        raise SettingsError(f"{name} is not in a datastore of blobs", hint="use a file or folder of this project")
    address = connection.address
    wanted = (match["workspace"] or "").rpartition("/")[2]
    if wanted and wanted.lower() != address.workspace_name.lower():
        raise SettingsError(f"{name} is in workspace {wanted}, not in {address.shown}", hint="add it to the settings")
    return named_datastore(connection, match["datastore"]).container_url, match["path"]


def ensure_code(connection: Connection, code: str, root: BlobAddress) -> str:
    """The resource id of the code snapshot below `root`, which is registered unless this machine has done so.

    The folder of a version cannot change: if the datastore has changed, another version is registered.
    """
    uri = f"{root.account_url}/{root.container}/{root.prefix}{code_prefix(code)}".rstrip("/")
    known = connection.memory.value("codes", uri)
    if known is None:
        body = {"properties": {"codeUri": uri, "isAnonymous": False, "properties": {"amlctl.tree": code}}}
        known = code
        if connection.workspace("PUT", f"{_CODES}/{known}", _CODE_VERSION, body, accept=(400, 409)).status >= 400:
            known = f"{code}-{hashlib.sha256(uri.encode()).hexdigest()[:8]}"
            connection.workspace("PUT", f"{_CODES}/{known}", _CODE_VERSION, body)
        connection.memory.add("codes", uri, known)
    return f"{connection.address.id}{_CODES}/{known}"


def find_environment(connection: Connection, spec: EnvironmentSpec) -> EnvironmentInfo:
    """Without making it. The interpreter's own packages count as ready: they are listed when a run needs them."""
    if spec.registered:  # it was looked up when the job file was read; one of a registry keeps its name
        asset, location = parse_asset(spec.registered), spec.registered
        if asset is not None:
            location = f"{connection.address.id}/environments/{asset.name}/versions/{asset.version}"
        return EnvironmentInfo(spec.id, True, location, "azureml")
    version = version_of(spec)
    if not connection.memory.value("environments", version):
        if connection.workspace("GET", _path(version), _VERSION, accept=(404,)).status == 404:
            return EnvironmentInfo(spec.id, spec.is_current, "", "azureml")
        connection.memory.add("environments", version)
    return _made(connection, spec, version)


def ensure_environment(connection: Connection, spec: EnvironmentSpec, context_uri: str = "") -> EnvironmentInfo:
    """Register it unless it exists: one request, or none if this machine knows it.

    `context_uri` is the folder of the code snapshot with the files for building an image.
    """
    found = find_environment(connection, spec)
    if found.location:
        return found
    version = version_of(spec)
    _make_environment(connection, spec, version, context_uri)
    connection.memory.add("environments", version)
    return _made(connection, spec, version)


def _made(connection: Connection, spec: EnvironmentSpec, version: str) -> EnvironmentInfo:
    return EnvironmentInfo(spec.id, True, f"{connection.address.id}{_path(version)}", "azureml")


def _make_environment(connection: Connection, spec: EnvironmentSpec, version: str, context_uri: str) -> None:
    from azure.core.exceptions import HttpResponseError

    try:
        with connection.sdk.client() as client:
            from azure.ai.ml.entities import BuildContext, Environment

            content: dict[str, Any] = {"image": spec.image}
            if spec.build:
                folder, _, dockerfile = spec.build.rpartition("#")
                folder = folder if "://" in folder else context_uri
                content = {"build": BuildContext(path=folder, dockerfile_path=dockerfile)}
            elif not spec.is_bare:
                content["conda_file"] = conda_document(spec)
            client.environments.create_or_update(Environment(name=ENVIRONMENT_NAME, version=version, **content))
    except HttpResponseError as error:
        answer = answer_of_error(error)
        if answer.status != 409:  # another machine was faster, with the same content
            raise connection.error(answer, "PUT", f"{connection.address.path}{_path(version)}") from error


def check_environment(spec: EnvironmentSpec) -> None:
    """Raises SettingsError for what certainly fails: Azure ML makes the environment from its conda file alone."""
    check_runtime_python(spec)
    for line in spec.pip:
        if any(Path(path).as_uri() in line for path in spec.local_files):
            hint = "put it into a package index, or use a URL"
            raise _unsupported(spec, line, "names a file of this machine", hint=hint)
    for line in spec.constraints:
        raise _unsupported(spec, line, "is a constraint (-c)", hint="write the versions into the list itself")
    hashed = next((line for line in spec.pip if " --hash" in line or line == "--require-hashes"), "")
    if hashed and not any(line.startswith("xxhash==") for line in spec.pip):
        hint = "add xxhash, which amlctl's runtime requires, with its version and hashes"
        raise _unsupported(spec, hashed, "makes pip require the hash of every package", hint=hint)


def _unsupported(spec: EnvironmentSpec, line: str, why: str, *, hint: str) -> SettingsError:
    source_line = spec.places.get(line, "")
    message = f"{line!r} {why}, which Azure ML cannot use when it makes the environment"
    return SettingsError(f"{source_line}: {message}" if source_line else message, hint=hint)


def version_of(spec: EnvironmentSpec) -> str:
    """32 hex digits of the content."""
    if spec.is_bare or spec.build:
        return hashlib.sha256(spec.id.encode()).hexdigest()[:32]
    if not spec.is_current:
        return spec.id
    text = json.dumps([DEFAULT_IMAGE, conda_document(spec)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def conda_document(spec: EnvironmentSpec) -> dict[str, Any]:
    """A conda file for the specification, as JSON, which is YAML too."""
    if spec.is_current:
        python, packages = installed_in(spec.interpreter)
        spec = EnvironmentSpec(python=python, pip=tuple(line for line in packages.values() if line))
    wanted = spec.normalized()
    conda = [one for one in wanted["conda"] if one != "pip"]
    return {
        "name": ENVIRONMENT_NAME,
        "channels": list(wanted["channels"]) or ["conda-forge"],
        "dependencies": [spec.conda_python, "pip", *conda, {"pip": list(wanted["pip"])}],
    }


def sends_module(packages: Mapping[str, str], spec: EnvironmentSpec, module: str) -> bool | None:
    """Whether a job in an environment like that of `spec` has it; `packages` are those of `installed_in`. None where it
    is not known."""
    if not spec.interpreter and find_spec(module) is None:
        return False
    lines = [line for name, line in packages.items() if may_bring(name, module)]
    return any(lines) if lines else None


_LIMIT_S = 60.0


def installed_in(interpreter: str) -> tuple[str, Mapping[str, str]]:
    """Version and packages of an interpreter, or of this one: each with its line for pip. Raises SettingsError."""
    if not interpreter:
        major, minor, _ = platform.python_version_tuple()
        return f"{major}.{minor}", _installed_packages()
    source = f"{inspect.getsource(_installed_packages)}\nimport json, sys\n"
    program = f"{source}print(json.dumps(['%d.%d' % sys.version_info[:2], installed_packages()]))"
    program = program.replace("_installed_packages", "installed_packages")
    try:
        command = [interpreter, "-I", "-c", f"from __future__ import annotations\n{program}"]
        done = answer_of(command, _LIMIT_S, variables=os.environ)
        done.check_returncode()
        version, packages = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise SettingsError(
            f"cannot list the packages of {interpreter}: {error}", hint="use another --env-from"
        ) from error
    return str(version), dict(packages)


def _installed_packages() -> dict[str, str]:
    """Those of this interpreter, each with its line for pip; empty for what was installed from a folder, a file or a
    repository, and is in no index. Nor is a build such as `+cu118`: there the release has no such name."""
    import importlib.metadata

    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name, version = distribution.metadata["Name"], distribution.version.partition("+")[0]
        if name:
            is_in_index = distribution.read_text("direct_url.json") is None
            found.setdefault(name.lower().replace("_", "-"), f"{name}=={version}" if is_in_index else "")
    return {name: found[name] for name in sorted(found)}


def _path(version: str) -> str:
    return f"/environments/{ENVIRONMENT_NAME}/versions/{version}"
