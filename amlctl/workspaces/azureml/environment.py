"""Environments by the hash of their content: `amlctl-env/versions/<id>`, made where they are missing."""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path
from typing import Any

from amlctl.config.python_version import check_runtime_python
from amlctl.core.asset import parse_asset
from amlctl.core.environment import DEFAULT_IMAGE, EnvironmentSpec
from amlctl.errors import SettingsError
from amlctl.workspaces.azureml.assets import environment_asset_id
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.azureml.exchange import answer_of_error
from amlctl.workspaces.contract import EnvironmentInfo

VERSION = "2023-04-01-preview"
NAME = "amlctl-env"
_MEMORY = "environments"


class Environments:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def find(self, spec: EnvironmentSpec) -> EnvironmentInfo:
        """Without making it. The interpreter's own packages count as ready: they are listed when a run needs them."""
        if spec.registered:
            return self._registered(spec)
        version = version_of(spec)
        is_there = self._connection.memory.has(_MEMORY, version) or self._exists(version)
        location = environment_id(self._connection, version) if is_there else ""
        return EnvironmentInfo(spec.id, is_there or spec.is_current, location, "azureml")

    def ensure(self, spec: EnvironmentSpec, context_uri: str = "") -> EnvironmentInfo:
        """Make it unless it is there: one call where this machine does not know, none where it does.

        `context_uri` is the folder with what the run's code snapshot has for building an image.
        """
        if spec.registered:
            return self._registered(spec)
        version = version_of(spec)
        if not self._connection.memory.has(_MEMORY, version):
            if not self._exists(version):
                self._make(spec, version, context_uri)
            self._connection.memory.add(_MEMORY, version)
        return EnvironmentInfo(spec.id, True, environment_id(self._connection, version), "azureml")

    def _registered(self, spec: EnvironmentSpec) -> EnvironmentInfo:
        """What a job file names was looked for before; one of a registry is named as it is."""
        asset = parse_asset(spec.registered)
        location = spec.registered if asset is None else environment_asset_id(self._connection, asset)
        return EnvironmentInfo(spec.id, True, location, "azureml")

    def _exists(self, version: str) -> bool:
        answer = self._connection.workspace("GET", _path(version), VERSION, accept=(404,))
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
                client.environments.create_or_update(Environment(name=NAME, version=version, **content))
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
    wanted = spec.normalised()
    python = str(wanted["python"])
    # A version alone means any of its patches; what has operators of its own is taken as written.
    shown = f"python={python}" if python[:1].isdigit() else f"python{python}"
    return {
        "name": NAME,
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
    return f"/environments/{NAME}/versions/{version}"
