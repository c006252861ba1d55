"""`compute`: the targets in the files of `compute/`, and which of them a run may use.

A local target is only its file: it always exists, and cannot be started or stopped. A workspace that is a service
creates clusters from the files, and may have others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from amlctl.config.compute_file import read_compute, read_compute_files
from amlctl.core.compute import (
    FAILED_STATES,
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
from amlctl.core.message import Command, Message, count, did_you_mean
from amlctl.core.settings import Settings
from amlctl.errors import AmlctlError, Conflict, NotFound, SettingsError, UsageError
from amlctl.localfs.project import Project
from amlctl.operations.context import Context, Document
from amlctl.workspaces.contract import ComputeTargets, PresentTarget, Workspace

SERVERLESS = "serverless"
LOCAL = "local"
"""The target that exists without a file: one slot."""
_CHANGEABLE = ("min_instances", "max_instances", "idle_time_before_scale_down", "description", "tags", "identity")
"""Of a cluster. All else is fixed, and everything of an instance."""


@dataclass(frozen=True)
class ComputeView:
    """`state` is a word, `note` a sentence or empty."""

    target: ComputeTarget | BrokenTarget
    state: str
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        facts = asdict(self.target)
        if isinstance(self.target, ClusterTarget):
            del facts["file"]
        facts.update(dict(facts.pop("rest", ())))  # fields of Azure ML's schema that amlctl passes on
        return {**facts, "state": self.state, "note": self.note}


@dataclass(frozen=True)
class CreateResult(Document):
    """`is_reused`: an equal target existed. `changes` are the differences before an update."""

    name: str
    is_reused: bool
    changes: tuple[FieldDifference, ...] = ()


def list_targets(context: Context) -> list[ComputeView]:
    """All files of `compute/`, further targets of the workspace, and `local`, by name; then broken files.

    Raises RightsError, and what asking the workspace raises.
    """
    workspace = context.workspace
    files = read_compute_files(context.project)
    targets = {target.name: target for target in files.targets}
    if not any(one.name == LOCAL for one in files.broken):
        targets.setdefault(LOCAL, LocalTarget(LOCAL))
    found = {}
    if workspace.service is not None:
        found = {one.target.name: one for one in workspace.service.computes.list()}
    views = {name: _view(target, found.get(name), workspace) for name, target in targets.items()}
    views |= {name: _present_view(one) for name, one in found.items() if name not in views}
    broken = [
        ComputeView(BrokenTarget(one.name, f"compute/{one.path.name}"), "broken", one.error.message)
        for one in files.broken
    ]
    return [*(views[name] for name in sorted(views)), *broken]


def show(context: Context, name: str) -> ComputeView:
    """Raises NotFound with the nearest name, SettingsError."""
    project, workspace = context.project, context.workspace
    found = workspace.service.computes.find(name) if workspace.service is not None else None
    own = read_compute_files(project).find(name)
    if found is not None and not isinstance(own, ClusterTarget):
        return _present_view(found)
    return _view(own or find_target(project, name, workspace), found, workspace)


def create(context: Context, source: str, *, cwd: Path, is_update: bool = False) -> CreateResult:
    """Create the target of a file, or of a name in `compute/`; an equal one is reused.

    Raises NotFound, SettingsError (broken file), UsageError (not for this workspace, or refused), Conflict (a different
    one exists, without `is_update`), ServiceUnavailable (quota, failure).
    """
    project, workspace, sink = context.project, context.workspace, context.sink
    path = cwd / source
    wanted = read_compute(path) if path.is_file() else find_target(project, source)
    if isinstance(wanted, ClusterTarget):
        if workspace.service is None:
            raise _is_of_azureml(wanted.name, "create")
        computes = workspace.service.computes
        computes.check(wanted)
        found = computes.find(wanted.name)
        unknown = sorted(wanted.rest.keys() - found.target.rest.keys()) if found is not None else []
        if unknown:
            sink(Note(f"the service does not return {', '.join(unknown)} of {wanted.name}: not compared"))
        return _ensure_cluster(computes, wanted, found, is_update=is_update, sink=sink)
    if workspace.service is not None:
        here = [name for name, one in context.settings.workspaces.items() if one.runs_here]
        raise UsageError(
            f"{wanted.name} is this machine, and workspace {workspace.name} is in Azure ML",
            hint=Command("compute", "create", wanted.name, workspace=here[0]) if here else "",
        )
    changes = differences(read_compute_files(project).find(wanted.name) or wanted, wanted)
    if changes:
        raise UsageError(
            f"{source} differs from the target {wanted.name} of compute/ in {_fields(changes)}",
            hint=f"edit the file of {wanted.name} in compute/: it defines a local target",
        )
    sink(Note(f"{wanted.name} is this machine: already exists"))
    return CreateResult(wanted.name, is_reused=True)


def checked_target(context: Context, name: str, nodes: int = 1) -> tuple[ClusterTarget | None, PresentTarget | None]:
    """The target of a run on so many nodes, as in its file, and as it exists. Nothing is created.

    Raises NotFound (neither a file nor a target), UsageError (it cannot be used).
    """
    project, workspace = context.project, context.workspace
    if workspace.service is None or name == SERVERLESS:
        return None, None
    own = read_compute_files(project).find(name)
    found = workspace.service.computes.find(name)
    if found is None and not isinstance(own, ClusterTarget):
        find_target(project, name, workspace)
        raise _is_of_another(context.settings, name)
    if found is not None:
        _check_state(found)
        if found.target.type == "computeinstance" and found.state in ("Stopped", "Stopping"):
            raise UsageError(f"the instance {name} is {found.state}", hint=Command("compute", "start", name))
    _check_nodes(own if found is None else found.target, nodes)
    return own if isinstance(own, ClusterTarget) else None, found


def _check_nodes(target: ComputeTarget | None, nodes: int) -> None:
    """Raises UsageError for a run that would wait for ever."""
    if not isinstance(target, ClusterTarget):
        return
    most = 1 if target.type == "computeinstance" else target.max_instances  # of an attached cluster that is not known
    if most and nodes > most:
        update = Command("compute", "create", target.name, "--update")
        raised = Message("; or set max_instances in its file: ", update) if target.is_cluster else ""
        raise UsageError(
            f"{target.name} has at most {count(most, 'node')}, and the run requires {nodes}",
            hint=Message(f"--instances {most}", raised),
        )


def prepare_target(context: Context, name: str, nodes: int = 1) -> None:
    """Before a run: create a missing target from its file; one that differs is used as it is, with a warning.

    Raises what `checked_target` raises, ServiceUnavailable (quota, failure), RightsError.
    """
    workspace, sink = context.workspace, context.sink
    own, found = checked_target(context, name, nodes)
    if own is None or workspace.service is None:
        return
    try:
        _ensure_cluster(workspace.service.computes, own, found, is_update=False, sink=sink)
    except Conflict as error:
        sink(Warned(Message(error.message, "; the run uses it as it is (", error.hint, ")")))


def _check_state(found: PresentTarget) -> None:
    """Raises UsageError for a target that cannot be used."""
    name = found.target.name
    if found.state in FAILED_STATES:
        why = f": {found.note}" if found.note else ""
        raise UsageError(f"{name} is {found.state}{why}", hint=_recreate(name))
    if found.state == "Deleting":
        raise UsageError(
            f"{name} is being deleted", hint=Message("wait until it is gone: ", Command("compute", "show", name))
        )


def _recreate(name: str) -> Message:
    return Message(Command("compute", "delete", name), "; ", Command("compute", "create", name))


def _ensure_cluster(
    computes: ComputeTargets,
    wanted: ClusterTarget,
    found: PresentTarget | None,
    *,
    is_update: bool,
    sink: EventSink,
) -> CreateResult:
    """See `create`."""
    if found is None:
        target, changes = with_defaults(wanted), tuple[FieldDifference, ...]()
    else:
        _check_state(found)
        changes = tuple(_changes(found, wanted))
        if not changes:
            return CreateResult(wanted.name, is_reused=True)
        _check_changes(wanted, changes, is_update=is_update)
        target = merged(found.target, wanted)
    if target.min_instances:
        nodes = "one node" if target.min_instances == 1 else f"{target.min_instances} nodes"
        hours = target.node_hours_a_month
        sink(Warned(f"{target.name} keeps {nodes} day and night: {hours:,} node hours a month"))
    computes.create(target, sink)
    return CreateResult(target.name, is_reused=False, changes=changes)


def _check_changes(wanted: ClusterTarget, changes: Sequence[FieldDifference], *, is_update: bool) -> None:
    """Raises UsageError for changes that are not possible, Conflict for those that were not requested."""
    name, fields = wanted.name, _fields(changes)
    details = [f"{one.field}: {_text(one.present)} now, {_text(one.wanted)} in the file" for one in changes]
    is_fixed = not wanted.is_cluster or any(one.field.partition(".")[0] not in _CHANGEABLE for one in changes)
    if is_update and is_fixed:
        raise UsageError(f"{name} cannot be changed in {fields}", hint=_recreate(name), details=details)
    if not is_update:
        update = Message(Command("compute", "create", name, "--update"), " changes it")
        recreate = Message("delete it and create it again: ", _recreate(name))
        raise Conflict(
            f"{name} already exists and differs in {fields}", hint=recreate if is_fixed else update, details=details
        )


def start(context: Context, name: str) -> str:
    """Returns its state. Raises NotFound, UsageError for a local target."""
    computes, _ = _managed(context, name, "started: it is this machine, and always ready")
    return computes.start(name, context.sink).state


def stop(context: Context, name: str) -> str:
    """Returns its state. Raises NotFound, UsageError for a local target."""
    computes, _ = _managed(context, name, "stopped: it is this machine")
    return computes.stop(name, context.sink).state


def deletable(context: Context, name: str) -> PresentTarget:
    """The target that `delete` would delete. Raises NotFound, UsageError for a local target."""
    return _managed(context, name, _NOT_DELETED)[1]


def delete(context: Context, name: str) -> str:
    """Raises what `deletable` raises, Conflict if runs use it."""
    computes, _ = _managed(context, name, _NOT_DELETED)
    computes.delete(name, context.sink)
    return "deleted"


_NOT_DELETED = "deleted: it is this machine; remove its file in compute/ instead"


def _managed(context: Context, name: str, not_here: str) -> tuple[ComputeTargets, PresentTarget]:
    """The targets of the workspace, and the one of that name. Raises NotFound with those that there are, UsageError,
    with the reason `not_here`, for one that runs on this machine."""
    workspace = context.workspace
    if workspace.service is not None:
        computes = workspace.service.computes
        if (found := computes.find(name)) is None:
            raise _not_found(name, f"workspace {workspace.name}", _names_in(workspace))
        return computes, found
    if isinstance(find_target(context.project, name), ClusterTarget):
        raise _is_of_azureml(name, "show")
    raise UsageError(f"{name} cannot be {not_here}", hint=Command("compute", "list"))


def find_target(project: Project, name: str, workspace: Workspace | None = None) -> ComputeTarget:
    """Raises NotFound with the nearest name, also of the `workspace`'s targets, SettingsError (broken file)."""
    files = read_compute_files(project)
    found = files.find(name)
    if found is not None:
        return found
    if name == LOCAL:
        return LocalTarget(LOCAL)
    names = {target.name for target in files.targets}
    if workspace is not None and workspace.service is not None:
        where = f"compute/ or workspace {workspace.name}"
        raise _not_found(name, where, names - {LOCAL} | _names_in(workspace) | {SERVERLESS} - {name})
    raise _not_found(name, "compute/", names | {LOCAL})


def default_target(settings: Settings, workspace: str) -> str:
    """The target of a run without one. Raises SettingsError if the workspace requires one."""
    chosen = settings.workspace(workspace)
    if chosen.default_compute:
        return chosen.default_compute
    if chosen.runs_here:
        return LOCAL
    raise SettingsError(
        f"the workspace {workspace} has no default_compute",
        hint=f"use --compute, or set default_compute in [workspaces.{workspace}]",
    )


def check_target(context: Context, name: str) -> None:
    """The sink gets a warning for each other broken file.

    Raises NotFound, SettingsError (broken file of that name), UsageError (the target is not for this workspace).
    """
    project, settings = context.project, context.settings
    is_local = settings.workspace().runs_here
    files = read_compute_files(project)
    own = files.find(name)
    for error in {one.path: one.error for one in reversed(files.broken)}.values():
        context.sink(Warned(f"{error.message}; the file is not used"))
    if not is_local and (name == SERVERLESS or own is None):
        return  # it may exist without a file: `prepare_target` checks
    target = find_target(project, name)
    if isinstance(target, LocalTarget) != is_local:
        raise _is_of_another(settings, name)


def _is_of_another(settings: Settings, name: str) -> UsageError:
    chosen = settings.workspace()
    others = [other for other, its in settings.workspaces.items() if its.runs_here != chosen.runs_here]
    return UsageError(
        f"compute target {name} is not one of the workspace {chosen.name}",
        hint=Command("submit", "SCRIPT", workspace=others[0]) if others else Command("compute", "list"),
    )


def _view(target: ComputeTarget, found: PresentTarget | None, workspace: Workspace) -> ComputeView:
    """The target of a file."""
    if isinstance(target, LocalTarget):
        return ComputeView(target, "ready")
    if workspace.service is None:
        show_it = Command("compute", "show", target.name, workspace="NAME")
        return ComputeView(target, "unknown", Message("made by an azureml workspace: ", show_it))
    if found is None:
        return ComputeView(target, "not made", Command("compute", "create", target.name, workspace=workspace.name))
    changes = _changes(found, target)
    return _present_view(found, f"differs from its file in {_fields(changes)}" if changes else "")


def _present_view(found: PresentTarget, difference: str = "") -> ComputeView:
    """Without empty fields."""
    rest = {name: value for name, value in found.target.rest.items() if value not in (None, {}, [])}
    note = "; ".join(part for part in (found.note, difference) if part)
    return ComputeView(replace(found.target, rest=rest), found.state, note)


def _changes(found: PresentTarget, wanted: ClusterTarget) -> list[FieldDifference]:
    """Fields that the service does not return cannot be compared."""
    rest = {name: value for name, value in wanted.rest.items() if name in found.target.rest}
    return differences(found.target, replace(wanted, rest=rest))


def _fields(changes: Sequence[FieldDifference]) -> str:
    return ", ".join(change.field for change in changes)


def _text(value: object) -> str:
    return "nothing" if value in (None, "", {}, []) else str(value)


def _is_of_azureml(name: str, verb: str) -> UsageError:
    return UsageError(
        f"{name} is a target of an azureml workspace, and this one is local",
        hint=Command("compute", verb, name, workspace="NAME"),
    )


def _not_found(name: str, where: str, names: Iterable[str]) -> NotFound:
    names = sorted(names)
    return NotFound(
        f"compute target {name!r} is not in {where}",
        hint=did_you_mean(name, names) or f"available: {', '.join(names) or 'none'}",
    )


def _names_in(workspace: Workspace) -> set[str]:
    """For a hint, so an error of the workspace is ignored."""
    with suppress(AmlctlError):
        if workspace.service is not None:
            return {one.target.name for one in workspace.service.computes.list()}
    return set()
