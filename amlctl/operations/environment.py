"""`env`: the environment of a submit, and making it in advance."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from amlctl.config.environment_file import Lock, conda_environment, read_environment, read_lock, recorded_text
from amlctl.config.nodes import parse_yaml
from amlctl.config.pip_list import PipList
from amlctl.config.text_file import read_text
from amlctl.core.environment import CURRENT, EnvironmentSpec
from amlctl.core.events import EventSink, Note, Warned, null_sink
from amlctl.core.message import Command, Message
from amlctl.core.secret_names import masked
from amlctl.errors import Conflict, NotFound, ServiceUnavailable, UsageError
from amlctl.localfs.project import Project
from amlctl.operations.context import Context, iso_time
from amlctl.runs.code import Sources
from amlctl.workspaces.contract import EnvironmentInfo, KeptEnvironment


def chosen_environment(env_from: str | None, cwd: Path) -> EnvironmentSpec | None:
    """What `--env-from` names; None without it. Raises UsageError."""
    if env_from is None:
        return None
    if env_from == CURRENT:
        return EnvironmentSpec(is_current=True)
    place = env_from
    if env_from == "active":
        place = os.environ.get("VIRTUAL_ENV") or os.environ.get("CONDA_PREFIX") or ""
        if not place:
            raise UsageError("no environment is active in this shell", hint="activate one, or use --env-from PATH")
    path = cwd / os.path.expanduser(place)
    python = path / "bin" / "python" if path.is_dir() else path
    if not place or not python.is_file() or not os.access(python, os.X_OK):
        hint = "use active, current, or the path of an environment or of a Python"
        raise UsageError(f"Invalid --env-from {env_from!r}: {python} is not a Python", hint=hint)
    return EnvironmentSpec(is_current=True, interpreter=os.path.abspath(python))


@dataclass(frozen=True)
class EnvironmentView:
    """The specification, and what the workspace has of it; `location` is empty before it is made."""

    spec: EnvironmentSpec
    info: EnvironmentInfo

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.info.id,
            "tool": self.info.tool,
            "is_ready": self.info.is_ready,
            "location": self.info.location,
            "source": self.spec.source,
            "python": self.spec.python,
            "channels": [masked(channel) for channel in self.spec.channels],
            "conda": list(self.spec.conda),
            "pip": [masked(line) for line in self.spec.pip],
        }


def show(context: Context, *, chosen: EnvironmentSpec | None = None) -> EnvironmentView:
    """Raises SettingsError (broken file, or one whose environment cannot be made)."""
    workspace, sink = context.workspace, context.sink
    spec = chosen or project_environment(context.project, sink=sink)[0]
    try:
        workspace.check_environment(spec, sink)
    except ServiceUnavailable as error:
        sink(Warned(f"cannot check whether the environment can be made: {error.message}"))
    return EnvironmentView(spec, workspace.environment(spec))


def prepare(context: Context, *, chosen: EnvironmentSpec | None = None) -> EnvironmentView:
    """Make it, or find it. Raises SettingsError (broken file, cannot be made), ServiceUnavailable."""
    workspace, sink = context.workspace, context.sink
    spec = chosen or project_environment(context.project, sink=sink)[0]
    workspace.check_environment(spec, sink)
    return EnvironmentView(spec, workspace.prepare_environment(spec, sink))


@dataclass(frozen=True)
class EnvironmentList:
    """The environments on this machine, last used first."""

    environments: Sequence[KeptEnvironment]

    def to_json(self) -> dict[str, Any]:
        kept = [
            {**asdict(one), "lists": list(one.lists), "used_at": iso_time(one.used_at)} for one in self.environments
        ]
        return {"environments": kept}


@dataclass(frozen=True)
class RemovedEnvironments:
    """`kept` has those that were to be removed, and why they were not."""

    removed: Sequence[KeptEnvironment]
    kept: Mapping[str, str]

    @property
    def size_bytes(self) -> int:
        return sum(one.size_bytes for one in self.removed)

    def to_json(self) -> dict[str, Any]:
        return {"removed": [one.id for one in self.removed], "bytes": self.size_bytes, "kept": dict(self.kept)}


def list_environments(context: Context) -> EnvironmentList:
    return EnvironmentList(context.environments.list())


def remove_environments(
    context: Context, wanted: Sequence[str], *, unused_s: float | None = None, now_s: float
) -> RemovedEnvironments:
    """Those named by id or a unique prefix; `unused_s`: all that no run has used for so long.

    Raises NotFound, UsageError (a prefix of several), Conflict (the only one that is named is in use).
    """
    there = context.environments.list()
    chosen = {name: _named(name, there) for name in wanted}
    found = list(dict.fromkeys(one.id for one in chosen.values()))
    if unused_s is not None:
        found += [one.id for one in there if now_s - one.used_at >= unused_s and one.id not in found]
    removed: list[KeptEnvironment] = []
    kept: dict[str, str] = {}
    for one in [one for one in there if one.id in found]:
        try:
            context.environments.remove(one.id)
        except Conflict as error:
            if len(found) == 1 and wanted:
                raise
            kept[one.id] = error.message
            context.sink(Warned(f"{error.message}; it is kept"))
        else:
            removed.append(one)
    return RemovedEnvironments(removed, kept)


def _named(name: str, there: Sequence[KeptEnvironment]) -> KeptEnvironment:
    found = [one for one in there if one.id.startswith(name)] if name else []
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotFound(f"no environment {name!r} on this machine", hint=Command("env", "list"))
    raise UsageError(f"{name!r} is the beginning of {len(found)} environments", hint="use a longer prefix")


def project_environment(project: Project, *, sink: EventSink) -> tuple[EnvironmentSpec, str | None]:
    """The project's environment and the text of its file for the record, None without a file."""
    path, lock = project.environment_file, read_lock(project.root)
    if lock is not None:
        return _locked(project, lock)
    if not path.exists():
        note = f"No {path.name} found; using Python without extra packages"
        has_list = (project.root / "requirements.txt").is_file()
        sink(Note(Message(note, "; to use requirements.txt: ", Command("init")) if has_list else note))
        return EnvironmentSpec(), None
    spec = replace(read_environment(path), source=path.name)
    return spec, recorded_text(path.read_text(encoding="utf-8-sig"), spec)


def _locked(project: Project, lock: Lock) -> tuple[EnvironmentSpec, str]:
    """What the project's file lists, and all packages of the lock file with its versions."""
    path = project.environment_file
    spec = replace(read_environment(path), source=path.name) if path.exists() else EnvironmentSpec(source=lock.name)
    pip = PipList(None)
    for line in lock.lines:
        pip.add(line, lock.name)
    spec = replace(
        spec,
        python=spec.python or lock.python,
        pip=tuple(dict.fromkeys((*spec.pip, *pip.lines))),
        places={**pip.places, **spec.places},
        has_files=True,
    )
    return spec, recorded_text("", spec)


def stand_in(
    project: Project, spec: EnvironmentSpec, context: Sources, sink: EventSink
) -> tuple[EnvironmentSpec, str | None]:
    """What a run on this machine has instead of an environment that others have made, and its text for the record: the
    conda file among the `context` of its image, else the project's own. Raises SettingsError."""
    what = f"the image {spec.image}" if spec.is_bare else f"the environment {spec.registered}"
    if spec.build:
        what = f"the image that {spec.build.rpartition('#')[2]} builds"
    for entry, path in context:
        if entry.path.count("/") == 1 and path.suffix in (".yml", ".yaml"):
            text = read_text(path, path.name)
            document = parse_yaml(text, path.name)
            if isinstance(document.value, dict) and "dependencies" in document.value:
                sink(Warned(f"{what} is not used on this machine, only {path.name}: what else it has is missing here"))
                found = replace(conda_environment(document, path.absolute().parent), source=path.name)
                return found, recorded_text(text, found)
    own = project_environment(project, sink=null_sink)
    instead = own[0].source or "plain Python"
    sink(
        Warned(
            f"{what} is not used on this machine, but {instead}: what else it has is missing here; "
            "--env-from current takes this interpreter"
        )
    )
    return own
