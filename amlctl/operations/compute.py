"""`compute`: the targets that the files of `compute/` describe, and which of them a run may use.

For the local workspace everything is in the files: a local target is always there and has nothing to start or
stop. Cluster files are shown, with a note to whom they belong.
"""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from amlctl.config.compute_file import list_compute_files, read_compute
from amlctl.core.compute import ComputeTarget, FieldDifference, LocalTarget, differences
from amlctl.core.events import EventSink, Note, null_sink
from amlctl.core.settings import Settings
from amlctl.errors import NotFound, SettingsError, UsageError
from amlctl.localfs.project import Project

LOCAL = "local"
"""The target that is there without any file: one slot."""


@dataclass(frozen=True)
class ComputeView:
    """A target and what can be said of it: `state` is a word, `note` a sentence or empty."""

    target: ComputeTarget
    state: str
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        facts = asdict(self.target)
        facts.update(dict(facts.pop("rest", ())))  # what Azure ML's schema has and amlctl only hands on
        return {**facts, "state": self.state, "note": self.note}


@dataclass(frozen=True)
class CreateResult:
    """`is_reused`: an equal target was there already. `changes` is what was different before an update."""

    name: str
    is_reused: bool
    changes: tuple[FieldDifference, ...] = ()

    def to_json(self) -> dict[str, Any]:
        changes = [asdict(change) for change in self.changes]
        return {"name": self.name, "is_reused": self.is_reused, "changes": changes}


def list_targets(project: Project) -> list[ComputeView]:
    """All files of `compute/` by name, and `local` in any case. Raises SettingsError (broken file)."""
    targets = {target.name: target for target in list_compute_files(project)}
    targets.setdefault(LOCAL, LocalTarget(LOCAL))
    return [_view(targets[name]) for name in sorted(targets)]


def show(project: Project, name: str) -> ComputeView:
    """Raises NotFound with the nearest name, SettingsError."""
    return _view(find_target(project, name))


def create(project: Project, source: str, *, cwd: Path, sink: EventSink = null_sink) -> CreateResult:
    """Make the target of a file, or of a name that stands in `compute/`. A local one is checked and reused.

    Raises NotFound, SettingsError (broken file, or a target of an azureml workspace).
    """
    path = cwd / source
    wanted = read_compute(path) if path.is_file() else find_target(project, source)
    _check_is_local(wanted)
    known = {target.name: target for target in list_compute_files(project)}
    changes = differences(known.get(wanted.name, wanted), wanted)
    if changes:
        raise UsageError(
            f"{source} is not the target {wanted.name} of compute/: it differs in "
            + ", ".join(change.field for change in changes),
            hint=f"edit the file of {wanted.name} in compute/: a local target is what its file says",
        )
    sink(Note(f"{wanted.name} is this machine: nothing has to be made"))
    return CreateResult(wanted.name, is_reused=True)


def start(project: Project, name: str) -> None:
    """Raises UsageError: a local target has nothing to start."""
    _refuse(project, name, "started: it is this machine, and it is always there")


def stop(project: Project, name: str) -> None:
    """Raises UsageError: a local target has nothing to stop."""
    _refuse(project, name, "stopped: it is this machine")


def delete(project: Project, name: str) -> None:
    """Raises UsageError: a local target is only its file."""
    _refuse(project, name, "deleted: it is this machine; remove its file in compute/ instead")


def find_target(project: Project, name: str) -> ComputeTarget:
    """Raises NotFound with the nearest name, SettingsError (broken file)."""
    targets = {target.name: target for target in list_compute_files(project)}
    if name in targets:
        return targets[name]
    if name == LOCAL:
        return LocalTarget(LOCAL)
    names = sorted({*targets, LOCAL})
    near = difflib.get_close_matches(name, names, n=1)
    raise NotFound(
        f"there is no compute target {name!r} in compute/",
        hint=f"did you mean {near[0]}?" if near else f"there are: {', '.join(names)}",
    )


def default_target(project: Project, settings: Settings, workspace: str) -> str:
    """The target of a run that names none. Raises SettingsError where the workspace needs one to be named."""
    chosen = settings.workspace(workspace)
    if chosen.default_compute:
        return chosen.default_compute
    if chosen.compute == "local":
        return LOCAL
    raise SettingsError(
        f"the workspace {workspace} has no default_compute",
        hint=f"name a target with --compute, or set default_compute in [workspaces.{workspace}]",
    )


def check_target(project: Project, settings: Settings, workspace: str, name: str) -> None:
    """Raises NotFound, or UsageError where the target is not for this workspace."""
    is_local = settings.workspace(workspace).compute == "local"
    if not is_local and name == "serverless":
        return
    target = find_target(project, name)
    if isinstance(target, LocalTarget) == is_local:
        return
    others = [other for other, its in settings.workspaces.items() if (its.compute == "local") != is_local]
    raise UsageError(
        f"compute target {name} is not one of the workspace {workspace}",
        hint=f"amlctl --workspace {others[0]} submit …" if others else "amlctl compute list",
    )


def _view(target: ComputeTarget) -> ComputeView:
    if isinstance(target, LocalTarget):
        return ComputeView(target, "ready")
    return ComputeView(target, "unknown", "made by an azureml workspace: amlctl --workspace NAME compute show")


def _check_is_local(target: ComputeTarget) -> None:
    if not isinstance(target, LocalTarget):
        raise UsageError(
            f"{target.name} is a target of an azureml workspace, and this one is local",
            hint=f"amlctl --workspace NAME compute create {target.name}",
        )


def _refuse(project: Project, name: str, why: str) -> None:
    target = find_target(project, name)
    _check_is_local(target)
    raise UsageError(f"{name} cannot be {why}", hint="amlctl compute list")
