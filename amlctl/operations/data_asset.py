"""`--register`: a mirrored dataset becomes a data asset of Azure ML.

Of a sync the version is the snapshot. What a run produces is registered as an output of its job, so that Azure ML shows
where it came from, when the job completes; then the version is the run's id.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from amlctl.core.job import AssetName, input_names
from amlctl.core.message import Command, below_data_blobs
from amlctl.core.run import RunRecord, RunSpec
from amlctl.core.run_state import RunState
from amlctl.errors import UsageError
from amlctl.operations.context import Context
from amlctl.operations.sync.result import SyncResult
from amlctl.workspaces.contract import RegisteredAssets, Workspace

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")


def assets_for(workspace: Workspace, name: str) -> RegisteredAssets:
    """Raises UsageError, before anything is sent, where the workspace or the name cannot be used."""
    if workspace.service is None:
        raise UsageError(
            f"workspace {workspace.name} keeps no data assets", hint="use --workspace with one that is in Azure ML"
        )
    if _NAME.fullmatch(name) is None:
        raise UsageError(
            f"Invalid name of a data asset {name!r}: letters, digits, '-', '_' and '.', and 255 of them at most",
            hint="use another name with --register",
        )
    return workspace.service.assets


def register_synced(context: Context, assets: RegisteredAssets, name: str, done: SyncResult) -> AssetName:
    """Raises UsageError (packed), Conflict (that version is something else)."""
    if done.layout != "mirror":
        raise UsageError(
            f"dataset {done.dataset} is packed in the store, and a data asset needs plain files",
            hint=Command("sync", below_data_blobs(done.dataset), "--layout", "mirror", "--register", name),
        )
    is_file = context.project.dataset_path(done.dataset).is_file()
    return assets.register_mirror(name, context.store.url, done.dataset, done.snapshot, is_file=is_file)


def with_registered(context: Context, spec: RunSpec, name: str) -> RunSpec:
    """Raises UsageError, before anything is sent, for a workspace or a name that cannot be used."""
    assets_for(context.workspace, name)
    if len(spec.produces) != 1:
        produced = "no dataset" if not spec.produces else f"{len(spec.produces)} datasets"
        raise UsageError(
            f"--register {name} is the name of one data asset, and the run produces {produced}",
            hint=f"--produces DATASET --register {name}",
        )
    (dataset,) = spec.produces
    taken: dict[str, Mapping[str, str]] = {one: {} for one in ("saves", "default", *spec.named_outputs)}
    output = input_names([dataset], taken)[dataset]
    place = {"mode": "upload", "dataset": dataset, "name": name}
    return replace(spec, output_places={**spec.output_places, output: place})


def registered_as(record: RunRecord) -> list[str]:
    """`azureml:NAME:VERSION` of the data assets of a run that Completed."""
    if record.status != RunState.COMPLETED:
        return []
    return [
        f"azureml:{place['name']}:{record.run}" for place in record.spec.output_places.values() if "dataset" in place
    ]
