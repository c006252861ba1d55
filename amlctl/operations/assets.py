"""What a job file names of Azure ML's own: registered environments and data, and places in its datastores.

They are looked for before anything is sent: the service takes a job without looking, which then fails on its node.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from amlctl.core.asset import AssetName, is_address, is_registry_environment, parse_asset
from amlctl.core.environment import EnvironmentSpec, is_of_others
from amlctl.core.job import JobCommand
from amlctl.errors import NotFound, SettingsError, UsageError
from amlctl.operations.job_request import told_at
from amlctl.operations.run_spec import RunSpec
from amlctl.workspaces.contract import KeepsAssets, PresentAsset, RegisteredAssets, Workspace

_DATASTORE = re.compile(r"azureml://(?:.*/)?datastores/([^/]+)/paths/.*")


def with_present_assets(spec: RunSpec, workspace: Workspace) -> RunSpec:
    """The same with the versions that are there now, as the record has to name them.

    Raises NotFound, UsageError (data of another type), SettingsError (a workspace that has no such things).
    """
    job = spec.job
    is_plain = not is_of_others(spec.environment.id)
    if is_plain and (job is None or not (job.assets or job.output_places)):
        return spec
    if not isinstance(workspace, KeepsAssets):
        raise _is_of_azure_ml(spec, workspace)
    assets, places = workspace.assets, spec.places
    name = spec.environment.registered
    if name and not is_registry_environment(name):  # a registry is asked by the service itself
        with told_at(places.get("environment", "")):
            found = _found("environment", name, assets.environment(_parsed(name)))
        spec = replace(spec, environment=EnvironmentSpec(registered=str(found.asset)))
    return spec if job is None else replace(spec, job=_present_job(job, assets, places))


def _present_job(job: JobCommand, assets: RegisteredAssets, places: Mapping[str, str]) -> JobCommand:
    inputs = {name: dict(one) for name, one in job.inputs.items()}
    for name, one in job.assets.items():
        if is_address(one["asset"]):
            continue  # the nodes go there
        with told_at(places.get(f"inputs.{name}", "")):
            found = _found("data", one["asset"], assets.data(_parsed(one["asset"])))
            if found.type and found.type != one["type"]:
                raise UsageError(f"the data {found.asset} is a {found.type}", hint=f"type: {found.type}")
        inputs[name]["asset"] = str(found.asset)
    for name, place in job.output_places.items():
        match = _DATASTORE.fullmatch(place["uri"])
        with told_at(places.get(f"outputs.{name}", "")):
            if match is None or not assets.has_datastore(match[1]):
                raise NotFound(
                    f"{place['uri']} is in no datastore of blobs of the workspace", hint="az ml datastore list"
                )
    return replace(job, inputs=inputs)


def _parsed(text: str) -> AssetName:
    asset = parse_asset(text)
    if asset is None:
        raise SettingsError(f"{text} is no name of something registered", hint="azureml:NAME:VERSION")
    return asset


def _found(kind: str, name: str, found: PresentAsset | None) -> PresentAsset:
    if found is None:
        raise NotFound(f"the workspace has no {kind} {name}", hint=f"az ml {kind} list -o table")
    return found


def _is_of_azure_ml(spec: RunSpec, workspace: Workspace) -> SettingsError:
    """The first of those things, with its line."""
    found: list[tuple[str, str, str]] = []
    if is_of_others(spec.environment.id):
        hint = "write environment with image and conda_file, or type --env-from current"
        name = spec.environment.registered
        what = f"the environment {name} is registered in Azure ML" if name else "an image alone is for Azure ML"
        found.append(("environment", what, hint))
    if spec.job is not None:
        for name, one in spec.job.assets.items():
            asset = one["asset"]
            what = (
                f"{asset} is brought by Azure ML"
                if is_address(asset)
                else f"the data {asset} is registered in Azure ML"
            )
            found.append((f"inputs.{name}", what, "name a folder or file below data_blobs/"))
        for name, one in spec.job.output_places.items():
            what = f"{one['uri']} is in Azure ML"
            found.append((f"outputs.{name}", what, "without path it is a folder of the run's outputs/"))
    key, what, hint = found[0]
    place = spec.places.get(key, "")
    told = f"{what}, and workspace {workspace.name} is not there"
    return SettingsError(f"{place}: {told}" if place else told, hint=hint)
