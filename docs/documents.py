"""The documents that commands print with `--json`, as types: `docs/reference.py` writes schemas of them.

A result that is printed field by field is its own type; what a command composes is a TypedDict here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, NotRequired, Optional, TypedDict

from amlctl import errors
from amlctl.config.settings import Setting
from amlctl.core.compute import FieldDifference
from amlctl.core.run_state import RunState
from amlctl.localfs.disk_use import DiskItem
from amlctl.operations.dataset.listing import DatasetDetails, DatasetList, StoredDataset, StoreStats
from amlctl.operations.dataset.removal import RemovalResult
from amlctl.operations.init import Outdated
from amlctl.operations.probe import ProbeStep
from amlctl.operations.runs import CancelResult
from amlctl.operations.share import ShareResult, ZipResult
from amlctl.operations.status import DatasetStatus
from amlctl.operations.store.verify import VerifyResult
from amlctl.operations.sync.result import SyncResult
from amlctl.operations.why import Why
from amlctl.workspaces.contract import Check, KeptEnvironment
from docs import documents_of_runs
from docs.document_types import like, typed
from docs.documents_of_runs import (
    Comparison,
    Deleted,
    Fetched,
    Log,
    Opened,
    Plot,
    Plots,
    Report,
    Revoked,
    Run,
    Runs,
    Submit,
    SubmitPlan,
    Wait,
)


def kinds(root: type[errors.AmlctlError] = errors.AmlctlError) -> Iterator[type[errors.AmlctlError]]:
    """Every kind of error, with its parent before it."""
    for one in root.__subclasses__():
        if one.__module__ == errors.__name__:
            yield one
        yield from kinds(one)


def kinds_explained() -> Iterator[tuple[type[errors.AmlctlError], str]]:
    """Each kind with its line in the tree of `amlctl.errors`."""
    tree = str(errors.__doc__)
    for one in kinds():
        line = next(line for line in tree.splitlines() if f" {one.__name__} " in line)
        yield one, line.partition(f" {one.__name__} ")[2].split(maxsplit=1)[1]


ErrorKind = Literal[*(one.kind for one in kinds()), "internal"]  # type: ignore[valid-type]


class Error(TypedDict):
    """`hint` says what to do now, and may be empty; `next` are its commands, ready to type."""

    kind: ErrorKind  # type: ignore[valid-type]
    message: str
    hint: str
    next: list[str]
    details: NotRequired[list[str]]


class ErrorDocument(TypedDict):
    error: Error


class Failures(TypedDict):
    """`not_tried` are those after an error that would have hit them as well."""

    errors: NotRequired[list[Error]]
    not_tried: NotRequired[list[str]]


class Init(TypedDict):
    """Paths relative to the folder; folders end with `/`. `outdated`: what no longer works in Azure ML."""

    created: list[str]
    kept: list[str]
    outdated: NotRequired[list[Outdated]]


DiskEntry = like(
    DiskItem,
    about="`name` is a run, an environment, or a path below `.amlctl/`; `kept`: why it is not freed, or empty.",
    path=str,
    used_at=Optional[str],
)


class Clean(TypedDict):
    """`freed` are those of `items` that were freed, or would be."""

    items: list[DiskEntry]  # type: ignore[valid-type]
    freed: list[DiskEntry]  # type: ignore[valid-type]
    freed_bytes: int
    dry_run: bool


class Config(TypedDict):
    settings: list[Setting]


class Skill(TypedDict):
    """A page in Markdown."""

    skill: str


class Doctor(TypedDict):
    checks: list[Check]


class Probe(TypedDict):
    ok: bool
    versions: dict[str, str]
    probe: list[ProbeStep]


Synced = like(SyncResult, without=["manifest_key"], optional=["dry_run"], registered=NotRequired[str])


class SyncOfSeveral(Failures):
    datasets: list[Synced]  # type: ignore[valid-type]


class Status(Failures):
    datasets: list[DatasetStatus]


Datasets = like(DatasetList, without=["here"], datasets=list[like(StoredDataset, here=bool)])  # type: ignore[misc]


class DatasetsRemoved(Failures):
    removed: list[RemovalResult]


class DatasetRestored(TypedDict):
    restored: RemovalResult


class Environment(TypedDict):
    """`location` is empty before it is made; passwords in `pip` and `channels` are masked."""

    id: str
    tool: str
    is_ready: bool
    location: str
    source: str
    python: str
    channels: list[str]
    conda: list[str]
    pip: list[str]


Kept = like(
    KeptEnvironment,
    about="`lists` are the packages that were asked for; `is_in_use`: a run has it now; `is_whole`: it was finished.",
    used_at=str,
)


class Environments(TypedDict):
    """Last used first."""

    environments: list[Kept]  # type: ignore[valid-type]


class EnvironmentsRemoved(TypedDict):
    """`kept` has those that were to be removed, and why they were not."""

    removed: list[str]
    bytes: int
    kept: dict[str, str]


Target = typed("Target", "Also has the fields of its file.", dict.fromkeys(("name", "type", "state", "note"), str))
Target.__closed__ = False  # as PEP 728 has it


class Targets(TypedDict):
    compute: list[Target]  # type: ignore[valid-type]


class TargetCreated(TypedDict):
    """`is_reused`: an equal target existed. `changes` are the differences before an update."""

    name: str
    is_reused: bool
    changes: list[FieldDifference]


class TargetState(TypedDict):
    name: str
    state: str


class Garbage(TypedDict):
    """`keys` of the store that nothing needs; `deleted`: with `--yes`."""

    keys: list[str]
    bytes: int
    deleted: bool


class Version(TypedDict):
    version: str


class Document(NamedTuple):
    """What the commands print; `name` is that of its schema."""

    name: str
    commands: Sequence[str]
    kinds: Sequence[Any]


DOCUMENTS = [
    Document("error", [], [ErrorDocument]),
    Document("version", ["--version"], [Version]),
    Document("init", ["init"], [Init]),
    Document("sync", ["sync"], [Synced, SyncOfSeveral]),
    Document("status", ["status"], [Status]),
    Document("why", ["why"], [Why]),
    Document("submit", ["submit"], [Submit]),
    Document("submit-plan", ["submit --dry-run"], [SubmitPlan]),
    Document("run", ["runs show", "logs --follow"], [Run]),
    Document("runs", ["runs list"], [Runs]),
    Document("cancel", ["cancel", "runs cancel"], [like(CancelResult, status=RunState)]),
    Document("compare", ["runs compare"], [Comparison]),
    Document("delete", ["runs delete"], [Deleted]),
    Document("open", ["runs open"], [Opened]),
    Document("plot", ["runs plot"], [Plot, Plots]),
    Document("report", ["runs report"], [Report]),
    Document("share", ["runs share"], [ShareResult, ZipResult, Revoked]),
    Document("wait", ["runs wait"], [Wait]),
    Document("logs", ["logs"], [Log]),
    Document("fetch", ["fetch"], [Fetched]),
    Document("datasets", ["dataset list"], [Datasets]),
    Document("dataset", ["dataset show"], [DatasetDetails]),
    Document("dataset-remove", ["dataset remove"], [DatasetsRemoved]),
    Document("dataset-restore", ["dataset restore"], [DatasetRestored]),
    Document("env", ["env show", "env prepare"], [Environment]),
    Document("env-list", ["env list"], [Environments]),
    Document("env-remove", ["env remove"], [EnvironmentsRemoved]),
    Document("compute", ["compute show"], [Target]),
    Document("compute-list", ["compute list"], [Targets]),
    Document("compute-create", ["compute create"], [TargetCreated]),
    Document("compute-state", ["compute start", "compute stop", "compute delete"], [TargetState]),
    Document("store-stats", ["store stats"], [StoreStats]),
    Document("store-gc", ["store gc"], [Garbage]),
    Document("store-verify", ["store verify"], [VerifyResult]),
    Document("clean", ["clean"], [Clean]),
    Document("config", ["config show"], [Config]),
    Document("doctor", ["doctor"], [Doctor]),
    Document("probe", ["doctor --probe"], [Probe]),
    Document("skill", ["skill"], [Skill]),
]

FIELDS: Mapping[str, Mapping[str, str]] = {
    **documents_of_runs.FIELDS,
    "SyncResult": {
        "snapshot": "Id of the content that the store has now",
        "previous": "The snapshot before",
        "uploaded_bytes": "Sent; of a dry run, to be sent",
        "reused_bytes": "Which the store had already",
        "hashed_bytes": "Read on this disk",
        "not_here": "Files in the store that are not downloaded yet",
        "registered": "The data asset, with --register",
    },
}
"""What fields mean, by type and field."""

NAMES = {Error: "error.json#/properties/error", Run: "run.json"}
"""Types that other schemas refer to."""
