"""Documents about runs, as types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NotRequired, Optional, TypedDict

from amlctl.core.job import DISTRIBUTIONS
from amlctl.core.run import RunRecord, RunSpec
from amlctl.core.run_schema import RULES
from amlctl.core.run_state import RunState
from amlctl.operations.compare import Counts, FileChanges
from amlctl.operations.fetch import FetchResult
from amlctl.workspaces.contract import EnvironmentInfo
from docs.document_types import hints_of, like, typed


def of_run(*names: str) -> dict[str, Any]:
    """Fields of a run's record."""
    return {name: _RUN_HINTS[name] for name in names}


class RunError(TypedDict):
    kind: NotRequired[str]
    message: str
    hint: NotRequired[str]


class PhaseOfRun(TypedDict):
    name: str
    at: str
    note: NotRequired[str]


class RunResources(TypedDict):
    """While its script ran; `processors` (1.0 is one of them) and `gpu` (parts of 1) on average."""

    processors: NotRequired[float]
    peak_memory_bytes: NotRequired[int]
    gpu: NotRequired[float]
    peak_gpu_memory_bytes: NotRequired[int]


_RUN_HINTS: dict[str, Any] = {
    **hints_of(RunSpec),
    **hints_of(RunRecord),
    "status": RunState,
    "distribution": Optional[Literal[DISTRIBUTIONS]],
    "phases": list[PhaseOfRun],
    "resources": RunResources,
    "error": Optional[RunError],
}


class SweepRun(TypedDict):
    """`seconds` of its script; one that was deleted has its values and its last status alone."""

    run: str
    values: dict[str, str]
    status: RunState
    seconds: float | None
    metrics: dict[str, Any]
    is_deleted: bool


class SweepResults(TypedDict):
    """`best` is a run; `metric` the one by which they are compared."""

    metric: str | None
    is_lower_better: bool | None
    best: str | None
    runs: list[SweepRun]


_OF_A_SWEEP = {"results": NotRequired[SweepResults]}
Run = typed("Run", "A run; a list of runs has it in the same form.", of_run(*RULES) | _OF_A_SWEEP)


class Runs(TypedDict):
    """Newest first, unless sorted. `metric` is the key metric, if any run has one."""

    runs: list[Run]  # type: ignore[valid-type]
    metric: NotRequired[str]


Fetched = like(FetchResult, status=RunState)
Submit = typed(
    "Submit",
    "How the run ended, or how far it is with `--detach`.",
    {
        **of_run("run", "status", "exit_code", "error", "outputs", "studio_url", "experiment", "workspace", "compute"),
        **of_run("environment", "code", "datasets", "published", "metrics"),
        **_OF_A_SWEEP,
        "registered": list[str],
        "fetched": Optional[Fetched],
        "fetch_error": Optional[str],
        "is_reused": bool,
        "seconds": float,
    },
)


class Code(TypedDict):
    id: str
    files: int
    bytes: int


SubmitPlan = typed(
    "SubmitPlan",
    "`sources` says where each value comes from; `datasets` has what a sync would do, or the snapshot that is used. "
    "`equal_run`: with `--needed`, the run that would be shown instead.",
    {
        "dry_run": Literal[True],
        "equal_run": Optional[str],
        **of_run("script", "config", "config_content", "workspace", "compute", "mode", "distribution", "processes"),
        **of_run("instances", "experiment", "produces", "variables"),
        "datasets": dict[str, dict[str, Any]],
        "code": Code,
        "environment": EnvironmentInfo,
        "command": list[str],
        "sources": dict[str, str],
        "combinations": NotRequired[list[dict[str, str]]],
    },
)


class Difference(TypedDict):
    """`values` in the order of the runs, null where a run has none."""

    field: str
    values: list[Any]


class ComparedMetric(TypedDict):
    """NaN and infinity are text. `deltas` are against the first run."""

    name: str
    values: list[float | str | None]
    deltas: list[float | None]


class Comparison(TypedDict):
    """Of `code`, `environment` and `data` there is one item for each run, null for the first one, for one that has the
    same as it, and where the store no longer has it. `patch`: with `--patch`."""

    runs: list[str]
    differences: list[Difference]
    metrics: list[ComparedMetric]
    code: list[FileChanges | None]
    environment: list[FileChanges | None]
    data: dict[str, list[Counts | None]]
    patch: NotRequired[str]


class Curve(TypedDict):
    """`points` are pairs of step and value; NaN and infinity are text."""

    run: str
    points: list[tuple[float, float | str]]


class Plot(TypedDict):
    """`missing` are runs without a series of the metric."""

    metric: str
    runs: list[Curve]
    missing: list[str]


class Plots(TypedDict):
    """Of several metrics."""

    plots: list[Plot]


class Report(TypedDict):
    runs: list[str]
    file: str
    bytes: int


class Revoked(TypedDict):
    """`revoked` counts links."""

    run: str
    revoked: int


class Opened(TypedDict):
    """`place` is the page in Studio, or a folder."""

    run: str
    place: str


class Deleted(TypedDict):
    """`kept`: what of a run could not be deleted, and why."""

    deleted: list[str]
    kept: NotRequired[dict[str, list[str]]]


class Waited(TypedDict):
    run: str
    status: RunState
    exit_code: int | None
    error: RunError | None


class Wait(TypedDict):
    runs: list[Waited]


class Log(TypedDict):
    run: str
    log: str


FIELDS: Mapping[str, Mapping[str, str]] = {
    "Run": {
        "run": "Its id",
        "script": "Below the project",
        "waits_for": "Why it is Queued, if known",
        "config": "Path of the config file",
        "config_content": "The config as read: a document or text",
        "config_file": "The config's bytes, where config_content is not enough",
        "is_config_positional": "The script gets the config's path alone",
        "command": "Of a job file",
        "job_type": "Of a job file that Azure ML takes as it is, and sweep",
        "sweep": "Of the parent of a sweep: runs at a time, metric to compare them by, number of runs",
        "parent": "The sweep that it belongs to",
        "combination": "Its values in the sweep",
        "children": "Runs of a sweep or pipeline",
        "services": "Addresses by name",
        "code": "Id of the code snapshot",
        "datasets": "Snapshot of each dataset that it reads",
        "manifests": "Key of each one's manifest in the store",
        "produces": "Datasets",
        "published": "New snapshot of each dataset that it has produced",
        "metrics": "Last value of each, by name",
        "sync": "How produced datasets are sent",
        "environment": "Id, or current",
        "variables": "Null: secret, not recorded",
        "processes": "On each instance",
        "git": "Commit, branch and state of the project",
        "command_line": "As typed, secrets masked; empty from Python",
        "from_run": "The run that it repeats",
        "created_at": "ISO 8601",
        "times": "When each state was first reached",
        "error": "Why the run failed",
        "outputs": "Folder of the fetched outputs",
    },
    "Submit": {
        "registered": "With --register: azureml:NAME:VERSION, once the run has Completed",
        "fetched": "Null if nothing was fetched",
        "fetch_error": "Why the outputs are not here",
        "is_reused": "With --needed: an equal run of before",
        "seconds": "Of the command",
    },
    "FetchResult": {
        "to": "Folder, relative to the project if it is inside",
        "kept": "Files that were changed here",
    },
}
"""What fields mean, by type and field."""
