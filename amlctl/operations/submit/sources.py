"""What a submit is asked for: each source as a partial spec, and all of them merged. Nothing is sent or written."""

from __future__ import annotations

import os
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amlctl.config.script_config import read_script_block
from amlctl.config.text_file import file_error
from amlctl.core.events import EventSink, Note
from amlctl.core.hidden_values import VARIABLE_PREFIX
from amlctl.core.message import Command, Message
from amlctl.core.run import MergedSpec, PartialSpec, RunRecord, merge
from amlctl.core.run_id import MAX_NAME, slug
from amlctl.core.settings import Settings
from amlctl.core.store_keys import code_index_key
from amlctl.errors import NotFound, SettingsError, UsageError
from amlctl.localfs.code_rules import code_rules
from amlctl.localfs.project import Project
from amlctl.localfs.script_lookup import find_script
from amlctl.operations.context import Context
from amlctl.operations.runs import resolve_run
from amlctl.operations.submit.job_file import JobFile, JobSource, read_job
from amlctl.stores.contract import Store

TYPED = "command line"
_OPTIONS = {
    **{name: f"--{name}" for name in ("config", "experiment", "compute", "mode", "distribution", "name", "produces")},
    "datasets": "--dataset",
}


@dataclass(frozen=True)
class SubmitRequest:
    """What was typed. `spec` has the fields of `RunSpec` that were given, as typed: `script` may be a bare name or a
    job file, `datasets` has names relative to `cwd` and no snapshots, a variable that is None is taken from
    `caller_variables`, and `config` is a path.

    `overrides` change the config. `secrets` names variables, options of the script, settings and tags whose values are
    secrets. `command_line` is kept in the record, with secrets masked.
    """

    spec: Mapping[str, Any] = field(default_factory=dict)
    overrides: Sequence[str] = ()
    secrets: Sequence[str] = ()
    from_run: str | None = None
    env_from_current: bool = False
    sync: bool = True
    command_line: Sequence[str] = ()
    cwd: Path = field(default_factory=Path.cwd)
    caller_variables: Mapping[str, str] = field(default_factory=lambda: os.environ)

    @property
    def script(self) -> str:
        return str(self.spec.get("script") or "")


@dataclass(frozen=True)
class Sources:
    """`merged` is what all sources say together. `earlier` is the run to repeat, and `origin` the store that it used
    (else the store in use); `is_repeat`: its code is used as well. `given_variables` were typed or stand in a job file.
    """

    merged: MergedSpec
    origin: Store
    earlier: RunRecord | None = None
    is_repeat: bool = False
    job: JobSource | None = None
    given_variables: Mapping[str, str | None] = field(default_factory=dict)

    def is_of_run(self, name: str) -> bool:
        """Whether the field comes from the run that is repeated."""
        return self.earlier is not None and self.merged.sources.get(name) == f"run {self.earlier.run}"


def read_sources(context: Context, request: SubmitRequest, file: JobFile | None) -> Sources:
    """`file` is the job file that was named instead of a script. Raises UsageError, SettingsError, NotFound."""
    project, settings = context.project, context.settings
    typed = _typed(request, project, context.sink)
    earlier, origin = None, context.store
    if request.from_run is not None:
        holder, reference = context.holding(request.from_run)
        earlier, origin = holder.workspace.read(resolve_run(holder.workspace, reference)), holder.store
    if not request.script and earlier is None:
        raise UsageError("no script named", hint=Command("submit", "SCRIPT"))
    is_repeat = earlier is not None and not request.script
    job = None if file is None else read_job(context, request, file)
    found = [typed]
    if job is not None:
        found.append(job.spec)
    if earlier is not None:
        found.append(_of_run(earlier, settings, is_repeat=is_repeat))
        if is_repeat:
            _check_has_code(earlier, context.store, origin)
    if request.script and job is None:
        found.append(_script_block(request, project, is_local=settings.workspace().runs_here))
    found.append(_of_settings(settings, None if job is None else request.cwd))
    merged = merge(found)
    given = {**(job.spec.values["variables"] if job is not None else {}), **typed.values.get("variables", {})}
    return Sources(merged, origin, earlier, is_repeat, job, given)


def _typed(request: SubmitRequest, project: Project, sink: EventSink) -> PartialSpec:
    """What was typed is used as it is, or refused: nothing is left out or changed in silence."""
    spec = dict(request.spec)
    for name, option in [*_OPTIONS.items(), ("from_run", "--from"), ("overrides", "--set")]:
        given = getattr(request, name) if name in ("from_run", "overrides") else spec.get(name)
        texts = [given] if isinstance(given, str) else given or ()
        if any(not text.strip() for text in texts):
            raise UsageError(f"{option} is empty", hint="give it a value, or leave it out")
    if spec.get("experiment") is not None and not spec["experiment"].isprintable():
        raise UsageError("--experiment contains unprintable characters", hint="use letters, digits, - and _")
    if spec.get("name") is not None:
        _check_name(spec["name"], sink)
    for name in ("datasets", "produces"):
        if spec.get(name) is not None:
            spec[name] = dict.fromkeys((project.dataset_name(path, request.cwd) for path in spec[name]), "")
    if spec.get("produces") is not None:
        spec["produces"] = tuple(spec["produces"])
    spec["script"] = None  # its source says what it is
    spec["arguments"] = spec.get("arguments") or None
    spec["environment"] = "current" if request.env_from_current else None
    return PartialSpec(TYPED, spec)


def _check_name(name: str, sink: EventSink) -> None:
    """The id of a run begins with its name, as far as Azure ML and every file system allow it."""
    kept = slug(name)
    if kept == name:
        return
    if not any(char.isascii() and char.isalnum() for char in name):
        raise UsageError(
            f"--name {name!r} contains no ASCII letters or digits, which run ids consist of",
            hint="add one, such as --name train-1; a --tag takes any text",
        )
    why = f"it is cut after {MAX_NAME} characters" if len(name) > MAX_NAME else "ids have letters, digits, - and _ only"
    sink(Note(f"the run's id begins with {kept!r} instead of {name!r}: {why}"))


def _of_run(earlier: RunRecord, settings: Settings, *, is_repeat: bool) -> PartialSpec:
    """Secrets of the earlier run that amlctl has named itself are not variables of the script."""
    spec = earlier.spec
    values: dict[str, Any] = {
        "from_run": earlier.run,
        "arguments": spec.arguments,
        "config": spec.config,
        "config_content": spec.config_content,
        "config_file": spec.config_file,
        "datasets": spec.datasets,
        "manifests": spec.manifests,
        "produces": spec.produces or None,
        "mode": spec.mode,
        "environment": spec.environment,
        "environment_content": spec.environment_content,
        "variables": {name: one for name, one in spec.variables.items() if not name.startswith(VARIABLE_PREFIX)},
        "compute": spec.compute if spec.workspace == settings.workspace().name else None,
        "experiment": spec.experiment or None,
        "name": spec.name or None,
        "distribution": spec.distribution,
        "processes": spec.processes,
        "instances": spec.instances,
        "timeout_s": spec.timeout_s,
        "tags": spec.tags,
    }
    if is_repeat:
        own = ("script", "code", "git", "command", "inputs", "named_outputs", "output_places", "description", "node")
        values.update((name, getattr(spec, name)) for name in own)
    return PartialSpec(f"run {earlier.run}", values)


def _check_has_code(earlier: RunRecord, *stores: Store) -> None:
    if not earlier.spec.code:
        raise NotFound(
            f"run {earlier.run} was not submitted by amlctl: no store has its code and data",
            hint="submit its script, or its job file",
        )
    if not is_in_one(code_index_key(earlier.spec.code), *stores):
        raise NotFound(
            f"the code of run {earlier.run} is not in the store any more",
            hint=Message(Command("submit", Path(earlier.spec.script).name), " sends the present code"),
        )


def is_in_one(key: str, *stores: Store) -> bool:
    return any(store.info(key) is not None for store in stores)


def _script_block(request: SubmitRequest, project: Project, *, is_local: bool) -> PartialSpec:
    """The script and what its inline block says; its compute target is one of Azure ML."""
    path = find_script(project.root, project.pipeline_dir, request.script, cwd=request.cwd, ignore=code_rules(project))
    script = path.relative_to(project.root).as_posix()
    block = read_script_block(_read_script(path, script), script)
    values: dict[str, Any] = {**block.values, "script": script}
    if is_local:
        values["compute"] = None
    for name in ("datasets", "produces"):
        if values.get(name) is not None:
            values[name] = dict.fromkeys((project.dataset_name(one, project.root) for one in values[name]), "")
    if values.get("produces") is not None:
        values["produces"] = tuple(values["produces"])
    return PartialSpec(script, values, block.lines)


_ENCODING = "save it as UTF-8, or name its encoding in the first line: # -*- coding: latin-1 -*-"


def _read_script(path: Path, shown: str) -> str:
    try:
        with tokenize.open(path) as file:  # by its own coding line, if it has one
            return file.read()
    except UnicodeDecodeError as error:
        raise SettingsError(f"{shown} is not UTF-8 text (byte {error.start})", hint=_ENCODING) from error
    except SyntaxError as error:
        raise SettingsError(f"{shown} is not UTF-8 text: {error.msg}", hint=_ENCODING) from error
    except OSError as error:
        raise file_error(error, path, shown) from error


def _of_settings(settings: Settings, job_cwd: Path | None) -> PartialSpec:
    """A job file's experiment is Azure's own default, unless the project has one: the name of the working folder."""
    experiment = settings.experiment
    if job_cwd is not None and settings.origins.get("experiment", "default") == "default":
        experiment = job_cwd.resolve().stem.replace(" ", "") or "Default"
    values = {"experiment": experiment, "mode": settings.submit.mode, "workspace": settings.workspace().name}
    return PartialSpec("settings", values)
