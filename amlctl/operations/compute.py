"""`compute`: the targets that the files of `compute/` describe, and which of them a run may use.

For the local workspace everything is in the files: a local target is always there and has nothing to start or
stop. A workspace that `ManagesCompute` makes its clusters from the files, and may have others besides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from amlctl.config.compute_file import BrokenFile, read_compute, read_compute_files
from amlctl.core.compute import (
    BrokenTarget,
    ClusterTarget,
    ComputeTarget,
    FieldDifference,
    LocalTarget,
    differences,
    merged,
    with_defaults,
)
from amlctl.core.events import EventSink, Note, Warned
from amlctl.core.message import Command, Message
from amlctl.core.settings import Settings
from amlctl.core.wording import did_you_mean
from amlctl.errors import AmlctlError, Conflict, NotFound, SettingsError, UsageError
from amlctl.localfs.project import Project
from amlctl.operations.context import Context
from amlctl.workspaces.contract import ComputeTargets, ManagesCompute, PresentTarget, Workspace

SERVERLESS = "serverless"
_FAILED = ("Failed", "Canceled", "SetupFailed", "CreateFailed")
_CHANGEABLE = ("min_instances", "max_instances", "idle_time_before_scale_down", "description", "tags", "identity")
"""Of a cluster. All else is settled when it is made; of an instance everything is."""
LOCAL = "local"
"""The target that is there without any file: one slot."""


@dataclass(frozen=True)
class ComputeView:
    """A target and what can be said of it: `state` is a word, `note` a sentence or empty."""

    target: ComputeTarget | BrokenTarget
    state: str
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        facts = asdict(self.target)
        if isinstance(self.target, ClusterTarget):
            del facts["file"]
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


def list_targets(context: Context) -> list[ComputeView]:
    """All files of `compute/` and what the workspace has besides, by name; `local` in any case.

    A file that cannot be used is listed with its reason. Raises RightsError, and what asking the workspace raises.
    """
    workspace = context.workspace
    files = read_compute_files(context.project)
    targets = {target.name: target for target in files.targets}
    if not any(one.name == LOCAL for one in files.broken):
        targets.setdefault(LOCAL, LocalTarget(LOCAL))
    views = {name: _view(target) for name, target in targets.items()}
    if isinstance(workspace, ManagesCompute):
        there = {one.target.name: one for one in workspace.computes.list()}
        for name, target in targets.items():
            if isinstance(target, ClusterTarget):
                views[name] = _present_view(there.get(name), target, workspace)
        views |= {name: _there(one) for name, one in there.items() if name not in views}
    return [*(views[name] for name in sorted(views)), *map(_broken_view, files.broken)]


def show(context: Context, name: str) -> ComputeView:
    """Raises NotFound with the nearest name, SettingsError."""
    project, workspace = context.project, context.workspace
    if not isinstance(workspace, ManagesCompute):
        return _view(find_target(project, name))
    there = workspace.computes.find(name)
    own = read_compute_files(project).find(name)
    if there is not None and not isinstance(own, ClusterTarget):
        return _there(there)
    target = own or find_target(project, name, workspace)
    return _present_view(there, target, workspace) if isinstance(target, ClusterTarget) else _view(target)


def create(context: Context, source: str, *, cwd: Path, is_update: bool = False) -> CreateResult:
    """Make the target of a file, or of a name that stands in `compute/`; an equal one is reused.

    Raises NotFound, SettingsError (broken file), UsageError (not for this workspace, or refused), Conflict (a different
    one is there, and `is_update` was not asked for), ServiceUnavailable (quota, failure).
    """
    project, workspace, sink = context.project, context.workspace, context.sink
    path = cwd / source
    wanted = read_compute(path) if path.is_file() else find_target(project, source)
    if isinstance(wanted, ClusterTarget):
        computes = _computes(workspace, wanted)
        computes.check(wanted)
        there = computes.find(wanted.name)
        untold = sorted(wanted.rest.keys() - there.target.rest.keys()) if there is not None else []
        if untold:
            sink(Note(f"the service does not tell {', '.join(untold)} of {wanted.name}: not compared"))
        return _ensure_cluster(computes, wanted, there, is_update=is_update, sink=sink)
    if isinstance(workspace, ManagesCompute):
        raise UsageError(
            f"{wanted.name} is this machine, and workspace {workspace.name} is in Azure ML",
            hint=Command("compute", "create", wanted.name, workspace="local"),
        )
    changes = differences(read_compute_files(project).find(wanted.name) or wanted, wanted)
    if changes:
        raise UsageError(
            f"{source} is not the target {wanted.name} of compute/: it differs in "
            + ", ".join(change.field for change in changes),
            hint=f"edit the file of {wanted.name} in compute/: a local target is what its file says",
        )
    sink(Note(f"{wanted.name} is this machine: nothing has to be made"))
    return CreateResult(wanted.name, is_reused=True)


def checked_target(context: Context, name: str) -> tuple[ClusterTarget | None, PresentTarget | None]:
    """What a run would use: the target as its file says, and what is there of it. Nothing is made.

    Raises NotFound (neither a file nor there), UsageError (it is there, and cannot be used).
    """
    project, workspace = context.project, context.workspace
    if not isinstance(workspace, ManagesCompute) or name == SERVERLESS:
        return None, None
    own = read_compute_files(project).find(name)
    there = workspace.computes.find(name)
    if there is None and not isinstance(own, ClusterTarget):
        find_target(project, name, workspace)
    if there is not None:
        _check_state(there)
        if there.target.type == "computeinstance" and there.state in ("Stopped", "Stopping"):
            raise UsageError(f"the instance {name} is {there.state}", hint=Command("compute", "start", name))
    return own if isinstance(own, ClusterTarget) else None, there


def prepare_target(context: Context, name: str) -> None:
    """Before a run: a target that has a file and is not there is made; one that differs is used as it is, and said.

    Raises as `checked_target` does, ServiceUnavailable (quota, failure), RightsError.
    """
    workspace, sink = context.workspace, context.sink
    own, there = checked_target(context, name)
    if own is None or not isinstance(workspace, ManagesCompute):
        return
    try:
        _ensure_cluster(workspace.computes, own, there, is_update=False, sink=sink)
    except Conflict as error:
        sink(Warned(Message(error.message, "; the run takes it as it is (", error.hint, ")")))


def _check_state(there: PresentTarget) -> None:
    """Raises UsageError for one that is none any more, or never became one."""
    name = there.target.name
    if there.state in _FAILED:
        why = f": {there.note}" if there.note else ""
        raise UsageError(f"{name} is {there.state}{why}", hint=_again(name))
    if there.state == "Deleting":
        raise UsageError(
            f"{name} is being deleted", hint=Message("wait until it is gone: ", Command("compute", "show", name))
        )


def _again(name: str) -> Message:
    return Message(Command("compute", "delete", name), "; ", Command("compute", "create", name))


def _ensure_cluster(
    computes: ComputeTargets,
    wanted: ClusterTarget,
    there: PresentTarget | None,
    *,
    is_update: bool,
    sink: EventSink,
) -> CreateResult:
    """See `create`."""
    if there is None:
        made = with_defaults(wanted)
        _warn_of_idle_nodes(made, sink)
        computes.create(made, sink)
        return CreateResult(made.name, is_reused=False)
    _check_state(there)
    again = _again(wanted.name)
    changes = _changes(there, wanted)
    if not changes:
        return CreateResult(wanted.name, is_reused=True)
    told = [f"{change.field}: {_text(change.present)} there, {_text(change.wanted)} wanted" for change in changes]
    is_fixed = not wanted.is_cluster or any(change.field.partition(".")[0] not in _CHANGEABLE for change in changes)
    if is_update and is_fixed:
        raise UsageError(
            f"{wanted.name} cannot be changed in what is settled when it is made: {_fields(changes)}",
            hint=again,
            details=told,
        )
    if not is_update:
        change_it = Message(Command("compute", "create", wanted.name, "--update"), " changes it")
        raise Conflict(
            f"{wanted.name} is there already, and differs in {_fields(changes)}",
            hint=Message("only a new one can have that: ", again) if is_fixed else change_it,
            details=told,
        )
    target = merged(there.target, wanted)
    _warn_of_idle_nodes(target, sink)
    computes.create(target, sink)
    return CreateResult(wanted.name, is_reused=False, changes=tuple(changes))


def _warn_of_idle_nodes(target: ClusterTarget, sink: EventSink) -> None:
    if target.min_instances:
        nodes = "one node" if target.min_instances == 1 else f"{target.min_instances} nodes"
        hours = target.node_hours_a_month
        sink(Warned(f"{target.name} keeps {nodes} day and night: {hours:,} node hours a month"))


def start(context: Context, name: str) -> str:
    """Its state then. Raises UsageError: a local target has nothing to start."""
    workspace = context.workspace
    if isinstance(workspace, ManagesCompute):
        computes = workspace.computes
        return present_or_not_found(workspace, name, lambda: computes.start(name, context.sink)).state
    raise _refusal(context.project, name, "started: it is this machine, and it is always there")


def stop(context: Context, name: str) -> str:
    """Its state then. Raises UsageError: a local target has nothing to stop."""
    workspace = context.workspace
    if isinstance(workspace, ManagesCompute):
        computes = workspace.computes
        return present_or_not_found(workspace, name, lambda: computes.stop(name, context.sink)).state
    raise _refusal(context.project, name, "stopped: it is this machine")


def deletable(context: Context, name: str) -> PresentTarget:
    """What `delete` would delete. Raises NotFound, UsageError: a local target is only its file."""
    workspace = context.workspace
    if not isinstance(workspace, ManagesCompute):
        raise _refusal(context.project, name, "deleted: it is this machine; remove its file in compute/ instead")
    return present_or_not_found(workspace, name, lambda: workspace.computes.find(name))


def delete(context: Context, name: str) -> str:
    """Raises as `deletable` does, Conflict where runs use it."""
    workspace = context.workspace
    if not isinstance(workspace, ManagesCompute):
        deletable(context, name)
    else:
        workspace.computes.delete(name)
    return "deleted"


def find_target(project: Project, name: str, workspace: Workspace | None = None) -> ComputeTarget:
    """Raises NotFound with the nearest name, also among those that `workspace` has, SettingsError (broken file)."""
    files = read_compute_files(project)
    found = files.find(name)
    if found is not None:
        return found
    if name == LOCAL:
        return LocalTarget(LOCAL)
    names = {LOCAL, *(target.name for target in files.targets)}
    if isinstance(workspace, ManagesCompute):
        places = f"compute/ or workspace {workspace.name}"
        raise not_found(name, places, names - {LOCAL} | names_there(workspace) | {SERVERLESS})
    raise not_found(name, "compute/", names)


def default_target(settings: Settings, workspace: str) -> str:
    """The target of a run that names none. Raises SettingsError where the workspace needs one to be named."""
    chosen = settings.workspace(workspace)
    if chosen.default_compute:
        return chosen.default_compute
    if chosen.runs_here:
        return LOCAL
    raise SettingsError(
        f"the workspace {workspace} has no default_compute",
        hint=f"name a target with --compute, or set default_compute in [workspaces.{workspace}]",
    )


def check_target(context: Context, name: str) -> None:
    """The sink gets a warning for each other file that cannot be used.

    Raises NotFound, SettingsError (broken file of that name), UsageError (the target is not for this workspace).
    """
    project, settings = context.project, context.settings
    is_local = settings.workspace().runs_here
    files = read_compute_files(project)
    own = files.find(name)
    for path in dict.fromkeys(one.path for one in files.broken):
        error = next(one.error for one in files.broken if one.path == path)
        context.sink(Warned(f"{error.message}; the file is not used"))
    if not is_local and (name == SERVERLESS or own is None):
        return  # it may be there without a file: `prepare_target` looks
    target = find_target(project, name)
    if isinstance(target, LocalTarget) == is_local:
        return
    others = [other for other, its in settings.workspaces.items() if its.runs_here != is_local]
    raise UsageError(
        f"compute target {name} is not one of the workspace {settings.workspace().name}",
        hint=Command("submit", "SCRIPT", workspace=others[0]) if others else Command("compute", "list"),
    )


def _view(target: ComputeTarget) -> ComputeView:
    if isinstance(target, LocalTarget):
        return ComputeView(target, "ready")
    return ComputeView(
        target,
        "unknown",
        Message("made by an azureml workspace: ", Command("compute", "show", target.name, workspace="NAME")),
    )


def _broken_view(file: BrokenFile) -> ComputeView:
    shown = f"compute/{file.path.name}"
    return ComputeView(BrokenTarget(file.name, shown), "broken", file.error.message)


def _present_view(present: PresentTarget | None, target: ClusterTarget, workspace: Workspace) -> ComputeView:
    """Of a file: what is there of it."""
    if present is None:
        return ComputeView(target, "not made", Command("compute", "create", target.name, workspace=workspace.name))
    changes = _changes(present, target)
    differs = f"differs from its file in {_fields(changes)}" if changes else ""
    return _there(present, differs)


def _there(present: PresentTarget, differs: str = "") -> ComputeView:
    """Without the fields that are empty there."""
    told = {name: value for name, value in present.target.rest.items() if value not in (None, {}, [])}
    note = "; ".join(part for part in (present.note, differs) if part)
    return ComputeView(replace(present.target, rest=told), present.state, note)


def _changes(present: PresentTarget, wanted: ClusterTarget) -> list[FieldDifference]:
    """What the service does not tell cannot be compared."""
    told = {name: value for name, value in wanted.rest.items() if name in present.target.rest}
    return differences(present.target, replace(wanted, rest=told))


def _fields(changes: Sequence[FieldDifference]) -> str:
    return ", ".join(change.field for change in changes)


def _text(value: object) -> str:
    return "nothing" if value in (None, "", {}, []) else str(value)


def _computes(workspace: Workspace, target: ClusterTarget) -> ComputeTargets:
    """Raises UsageError where the workspace makes none."""
    if isinstance(workspace, ManagesCompute):
        return workspace.computes
    raise UsageError(
        f"{target.name} is a target of an azureml workspace, and this one is local",
        hint=Command("compute", "create", target.name, workspace="NAME"),
    )


def _refusal(project: Project, name: str, why: str) -> UsageError:
    """Raises NotFound."""
    target = find_target(project, name)
    if isinstance(target, ClusterTarget):
        return UsageError(
            f"{name} is a target of an azureml workspace, and this one is local",
            hint=Command("compute", "show", name, workspace="NAME"),
        )
    return UsageError(f"{name} cannot be {why}", hint=Command("compute", "list"))


def not_found(name: str, places: str, names: Iterable[str]) -> NotFound:
    names = sorted(names)
    return NotFound(
        f"compute target {name!r} is not in {places}",
        hint=did_you_mean(name, names) or f"available: {', '.join(names) or 'none'}",
    )


def present_or_not_found(workspace: Workspace, name: str, ask: Callable[[], PresentTarget | None]) -> PresentTarget:
    """Raises NotFound, which names the targets that the workspace has."""
    try:
        found = ask()
    except NotFound:
        found = None
    if found is None:
        raise not_found(name, f"workspace {workspace.name}", names_there(workspace))
    return found


def names_there(workspace: Workspace) -> set[str]:
    """For a hint: a workspace that does not answer has said so already, or will."""
    found: set[str] = set()
    with suppress(AmlctlError):
        if isinstance(workspace, ManagesCompute):
            found.update(one.target.name for one in workspace.computes.list())
    return found
