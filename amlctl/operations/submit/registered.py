"""`--register`: what a run produces becomes a data asset, as an output of its job, so that Azure ML shows where it came
from. Azure ML registers it when the job completes; its version is the run's id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from amlctl.core.job import input_names
from amlctl.core.run import RunRecord, RunSpec
from amlctl.core.run_state import RunState
from amlctl.errors import UsageError
from amlctl.operations.context import Context
from amlctl.operations.sync.sync import registration


def with_registered(context: Context, spec: RunSpec, name: str) -> RunSpec:
    """Raises UsageError, before anything is sent, for a workspace or a name that cannot be used."""
    registration(context.workspace, name)
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
