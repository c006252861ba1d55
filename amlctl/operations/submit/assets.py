"""What a job file names of Azure ML's own: registered environments and data, and places in its datastores.

They are looked for before anything is sent: the service takes a job without looking, which then fails on its node.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from urllib.parse import unquote, urlsplit

from amlctl.core.asset import AssetName, parse_asset
from amlctl.core.environment import EnvironmentSpec, is_of_others
from amlctl.core.hidden_values import VARIABLE_PREFIX, filled
from amlctl.core.job import JobCommand
from amlctl.core.secret_names import masked
from amlctl.errors import NotFound, SettingsError, UsageError
from amlctl.localfs.project import INPUTS
from amlctl.operations.submit.inputs import Address
from amlctl.operations.submit.job_request import told_at
from amlctl.operations.submit.run_spec import RunSpec
from amlctl.workspaces.contract import KeepsAssets, PresentAsset, RegisteredAssets, Workspace

_DATASTORE = re.compile(r"azureml://datastores/([^/]+)/paths/")
_MODELS = ("custom_model", "mlflow_model", "triton_model")
_DOWNLOADED = re.compile(r"(?:https?|wasbs?|abfss?)://|azureml://(?:.*/)?datastores/[^/]+/paths/")
_PLAIN_NAME = re.compile(r"[\w-][\w. -]{0,99}")


def with_present_assets(spec: RunSpec, workspace: Workspace) -> RunSpec:
    """The same with the versions that are there now, as the record has to name them.

    Raises NotFound, UsageError (data of another type), SettingsError (a workspace that has no such things).
    """
    job = spec.job
    if not isinstance(workspace, KeepsAssets):
        return spec if job is None or not job.assets else _with_downloads(spec, job)
    is_plain = not is_of_others(spec.environment.id)
    if is_plain and (job is None or not (job.assets or job.output_places)):
        return spec
    assets, places = workspace.assets, spec.places
    name = spec.environment.registered
    if name and "/" not in name:  # a registry, or a resource id, is asked by the service itself
        with told_at(places.get("environment", "")):
            found = _found("environment", name, assets.environment)
        spec = replace(spec, environment=EnvironmentSpec(registered=str(found.asset)))
    return spec if job is None else replace(spec, job=_present_job(job, assets, places))


def _present_job(job: JobCommand, assets: RegisteredAssets, places: Mapping[str, str]) -> JobCommand:
    inputs = {name: dict(one) for name, one in job.inputs.items()}
    for name, one in job.assets.items():
        with told_at(places.get(f"inputs.{name}", "")):
            if parse_asset(one["asset"]) is None:  # the nodes go there
                _check_datastore(one["asset"], assets)
                continue
            kind, find = ("model", assets.model) if one["type"] in _MODELS else ("data", assets.data)
            found = _found(kind, one["asset"], find)
            if found.type and found.type != one["type"]:
                raise UsageError(f"the data {found.asset} is a {found.type}", hint=f"type: {found.type}")
        inputs[name]["asset"] = str(found.asset)
    for name, place in job.output_places.items():
        with told_at(places.get(f"outputs.{name}", "")):
            _check_datastore(place.get("uri", ""), assets)
    return replace(job, inputs=inputs)


def _check_datastore(uri: str, assets: RegisteredAssets) -> None:
    """Raises NotFound for a datastore of the workspace that is not there. The long form may name another workspace."""
    match = _DATASTORE.match(uri)
    if match is not None and not assets.has_datastore(match[1]):
        raise NotFound(f"{uri} is not in a datastore of the workspace", hint="az ml datastore list")


def _found(kind: str, name: str, find: Callable[[AssetName], PresentAsset | None]) -> PresentAsset:
    asset = parse_asset(name)
    if asset is None:
        raise SettingsError(f"{name} is not the name of a registered {kind}", hint="azureml:NAME:VERSION")
    found = find(asset)
    if found is None:
        raise NotFound(f"the workspace has no {kind} {name}", hint=f"az ml {kind} list -o table")
    return found


def _with_downloads(spec: RunSpec, job: JobCommand) -> RunSpec:
    """On this machine such inputs are datasets that a submit downloads. Raises SettingsError for what it cannot."""
    inputs, addresses = {name: dict(one) for name, one in job.inputs.items()}, dict(spec.addresses)
    for name, one in job.assets.items():
        address = filled(one["asset"], spec.secrets)
        if parse_asset(address) is None and not _DOWNLOADED.match(address):
            where = spec.places.get(f"inputs.{name}", "")
            raise SettingsError(
                f"{where}: {masked(address)} can be read on Azure ML's nodes only",
                hint="submit it in a cloud workspace, or name a file or folder of this project",
            )
        last = unquote(urlsplit(address).path.rstrip("/").rpartition("/")[2])
        file_name = last if _PLAIN_NAME.fullmatch(last) and "://" in address else "data"
        key = hashlib.sha256(f"{one['type']} {address}".encode()).hexdigest()[:16]
        dataset = f"{INPUTS}/{key}/{file_name}"
        inputs[name] = {"dataset": dataset, "type": one["type"], "from": masked(address)}
        addresses[dataset] = Address(
            address, is_file=one["type"] == "uri_file", place=spec.places.get(f"inputs.{name}", "")
        )
    kept = {name for name in spec.variables if not name.startswith(f"{VARIABLE_PREFIX}INPUT_")}
    return replace(
        spec,
        job=replace(job, inputs=inputs),
        addresses=addresses,
        variables={name: value for name, value in spec.variables.items() if name in kept},
        secrets={name: value for name, value in spec.secrets.items() if name in kept},
    )
