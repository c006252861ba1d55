"""What a submit is asked for: each source as a partial spec, all of them merged, and which secrets the run needs.

Nothing is sent or written. The value of a secret is in no record, so a run that is repeated has to be given its secrets
again: by the command line, the shell or the project.
"""

from __future__ import annotations

import os
import re
import tokenize
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from amlctl.config.environment_file import recorded_text
from amlctl.config.script_config import read_script_block, read_script_environment
from amlctl.config.text_file import file_error
from amlctl.core.environment import EnvironmentSpec
from amlctl.core.events import EventSink, Note
from amlctl.core.hidden_values import ENVIRONMENT_PREFIX, VARIABLE_PREFIX, Hider, hidden_in, option_name
from amlctl.core.message import Command, Message, script_word
from amlctl.core.run import MergedSpec, PartialSpec, RunRecord, RunSpec, at_line, merge
from amlctl.core.run_id import MAX_NAME, slug
from amlctl.core.settings import Settings
from amlctl.core.store_keys import code_index_key
from amlctl.core.sweep import Sweep
from amlctl.errors import NotFound, SettingsError, UsageError
from amlctl.localfs.code_rules import CodeRules, code_rules
from amlctl.localfs.project import Project
from amlctl.localfs.script_lookup import find_script
from amlctl.operations.context import Context
from amlctl.operations.find_run import located
from amlctl.operations.runs import children_left
from amlctl.operations.submit.job_file import JobFile, JobSource, read_job
from amlctl.stores.contract import Store

TYPED = "command line"
_OPTIONS = {
    **{name: f"--{name}" for name in ("config", "experiment", "compute", "mode", "distribution", "name", "produces")},
    "datasets": "--dataset",
}
_UNFIT = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True)
class SubmitRequest:
    """What was typed. `spec` has the fields of `RunSpec` that were given, as typed: `script` may be a bare name or a
    job file, `datasets` has names relative to `cwd` and no snapshots, a variable that is None is taken from
    `caller_variables`, and `config` is a path.

    `overrides` change the config; a `sweep` has its own instead. `secrets` names variables, options of the script,
    settings and tags whose values are secrets. `after` are runs that have to complete first; `is_needed_only`: an equal
    run that Completed is used instead. `register` names the data asset of what the run produces. `command_line` is
    kept in the record, with secrets masked.
    """

    spec: Mapping[str, Any] = field(default_factory=dict)
    overrides: Sequence[str] = ()
    sweep: Sweep | None = None
    secrets: Sequence[str] = ()
    from_run: str | None = None
    after: Sequence[str] = ()
    register: str = ""
    is_needed_only: bool = False
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
    (else the store in use); `is_repeat`: its code is used as well. `rules` reads once what is left out of the project's
    code. `given_variables` were typed or stand in a job file. `script_environment` is that of the script's inline
    block.
    """

    merged: MergedSpec
    origin: Store
    rules: Callable[[], CodeRules]
    earlier: RunRecord | None = None
    is_repeat: bool = False
    job: JobSource | None = None
    given_variables: Mapping[str, str | None] = field(default_factory=dict)
    script_environment: EnvironmentSpec | None = None

    def is_of_run(self, name: str) -> bool:
        """Whether the field comes from the run that is repeated."""
        return self.earlier is not None and self.merged.sources.get(name) == f"run {self.earlier.run}"


def read_sources(context: Context, request: SubmitRequest, file: JobFile | None) -> Sources:
    """`file` is the job file that was named instead of a script. Raises UsageError, SettingsError, NotFound."""
    project, settings = context.project, context.settings
    typed = _typed(request, project, context.sink)
    earlier, origin = None, context.store
    if request.from_run is not None:
        run, holder = located(context, request.from_run)
        earlier, origin = holder.workspace.read(run), holder.store
    if earlier is not None and earlier.spec.sweep and request.sweep is None:
        first = next(children_left(holder.workspace, earlier.children), "RUN")
        hint = Message("repeat one of its runs: ", Command("submit", "--from", first), "; or add --set and --sweep")
        raise UsageError(f"run {earlier.run} is a sweep", hint=hint)
    if not request.script and earlier is None:
        words = request.spec.get("arguments") or ()
        meant = [script_word(words[0]), *(("--", *words[1:]) if words[1:] else ())] if words else ["SCRIPT"]
        raise UsageError("No script given", hint=Command("submit", *meant))
    is_repeat = earlier is not None and not request.script
    job = None if file is None else read_job(context, request, file)
    found = [typed]
    if job is not None:
        found.append(job.spec)
    if earlier is not None:
        found.append(_of_run(earlier, settings, is_repeat=is_repeat))
        if is_repeat:
            _check_has_code(earlier, context.store, origin)
    environment = None
    rules = cache(partial(code_rules, project))  # each reading of them starts git
    if request.script and job is None:
        path = find_script(project, request.script, cwd=request.cwd, rules=rules())
        block, environment = _script_block(path, project, context.sink, is_local=settings.workspace().runs_here)
        found.append(block)
    found.append(_of_settings(settings, None if job is None else request.cwd))
    merged = merge(found)
    given = {**(job.spec.values["variables"] if job is not None else {}), **typed.values.get("variables", {})}
    return Sources(merged, origin, rules, earlier, is_repeat, job, given, environment)


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


_REPEATED = (
    *("arguments", "config", "config_content", "config_file", "is_config_positional", "datasets", "manifests", "mode"),
    *("environment", "environment_content", "distribution", "processes", "instances", "timeout_s", "tags"),
)
_OF_CODE = ("script", "code", "git", "command", "inputs", "named_outputs", "output_places", "description", "node")


def _of_run(earlier: RunRecord, settings: Settings, *, is_repeat: bool) -> PartialSpec:
    """Secrets of the earlier run that amlctl has named itself are not variables of the script."""
    spec = earlier.spec
    values = {name: getattr(spec, name) for name in (*_REPEATED, *(_OF_CODE if is_repeat else ()))}
    values.update({name: getattr(spec, name) or None for name in ("produces", "experiment", "name")})
    values["variables"] = {name: one for name, one in spec.variables.items() if not name.startswith(VARIABLE_PREFIX)}
    values["compute"] = spec.compute if spec.workspace == settings.workspace().name else None
    return PartialSpec(f"run {earlier.run}", {"from_run": earlier.run, **values})


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


def _script_block(
    path: Path, project: Project, sink: EventSink, *, is_local: bool
) -> tuple[PartialSpec, EnvironmentSpec | None]:
    """The script and what its inline block says; its compute target is one of Azure ML."""
    script = path.relative_to(project.root).as_posix()
    source = _read_script(path, script)
    block = read_script_block(source, script)
    values: dict[str, Any] = {**block.values, "script": script}
    environment = read_script_environment(source, script)
    if environment is not None and project.environment_file.exists():
        sink(Note(f"{script}: its dependencies are not used, since there is a {project.environment_file.name}"))
    elif environment is not None:
        values["environment"] = environment.id
        values["environment_content"] = recorded_text("", environment)
    if is_local:
        values["compute"] = None
    for name in ("datasets", "produces"):
        if values.get(name) is not None:
            with at_line(block.lines[name]):
                values[name] = dict.fromkeys((project.dataset_name(one, project.root) for one in values[name]), "")
    if values.get("produces") is not None:
        values["produces"] = tuple(values["produces"])
    return PartialSpec(script, values, block.lines), environment


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
    """A job file's experiment is Azure's own default, unless the project has one: the name of the working folder, here
    without what Azure ML takes in no name."""
    experiment = settings.experiment
    if job_cwd is not None and settings.origins.get("experiment", "default") == "default":
        experiment = _UNFIT.sub("", job_cwd.resolve().stem).lstrip("-_") or "Default"
    values = {"experiment": experiment, "mode": settings.submit.mode, "workspace": settings.workspace().name}
    return PartialSpec("settings", values)


class SubmitSecrets:
    """The variables of a submit, those that are secret apart. `hider` replaces secrets in everything that is recorded.

    `variables` are those for the record (None: secret); `values` are the secret ones.
    """

    def __init__(self, request: SubmitRequest, sources: Sources) -> None:
        """Raises UsageError: not a name, or a variable without a value."""
        spec = sources.merged.spec
        self._request, self._earlier = request, sources.earlier
        self._given = {**sources.given_variables, **_named_variables(request, sources)}
        wanted = {**spec.variables, **self._given}
        self._missing = {
            name
            for name, value in wanted.items()
            if value is None and name not in self._given and name not in request.caller_variables
        }
        self.variables: dict[str, str | None] = {}
        self.values: dict[str, str] = {}
        by_name = Hider({}, request.secrets)
        for name, typed in wanted.items():
            if name in self._missing:
                continue  # `restore` reports it, with all other hidden values
            if not name or "=" in name or "\0" in name:
                raise UsageError(f"{name!r} is not a valid variable name", hint="--env NAME=VALUE")
            value = request.caller_variables.get(name) if typed is None else typed
            if value is None:
                raise UsageError(
                    f"the variable {name} has no value here", hint=f"set it with --env {name}=… or in your shell"
                )
            is_secret = typed is None or by_name.is_secret(name, value)
            self.variables[name] = None if is_secret else value
            if is_secret:
                self.values[name] = value
        self.hider = Hider(self.values, request.secrets)

    def restore(self, recorded: Sequence[Any], project: Project) -> None:
        """Find the values of the places that `recorded` of the run to repeat still has.

        Raises UsageError naming all that have to be given again.
        """
        earlier = self._earlier
        if earlier is None:
            return
        hidden = {name for name, value in earlier.spec.variables.items() if value is None}
        wanted = {name for value in recorded for name in hidden_in(value)} & hidden - self.hider.variables.keys()
        given = {**_of_project(project, earlier.spec), **self._request.caller_variables}
        given.update({name: value for name, value in self._given.items() if value is not None})
        missing = sorted({name for name in wanted if name not in given} | self._missing)
        if missing:
            raise UsageError(
                f"run {earlier.run} has hidden values that must be given again: {', '.join(missing)}",
                hint="set them in your shell, or add " + " ".join(f"--env {name}=…" for name in missing),
                details=[f"{name}: {_what_it_is(name, earlier.spec)}" for name in missing],
            )
        self.values.update((name, given[name]) for name in sorted(wanted))

    def all_values(self) -> dict[str, str]:
        """Also of what `hider` has found."""
        return {**self.values, **self.hider.variables}


def _named_variables(request: SubmitRequest, sources: Sources) -> dict[str, None]:
    """A variable from the shell for each NAME of `--secret` that names nothing else."""
    spec = sources.merged.spec
    texts = [*spec.arguments, *(spec.command or "").split(), *request.overrides]
    mentioned = {option_name(text.partition("=")[0]) for text in texts if text.startswith("-") or "=" in text}
    mentioned |= {name.rpartition(".")[2] for name in mentioned}
    mentioned |= {option_name(name) for name in request.spec.get("tags") or ()}
    mentioned |= {option_name(name) for name in (sources.job.spec.values["tags"] if sources.job else ())}
    known = {**(sources.earlier.spec.variables if sources.earlier else {}), **sources.given_variables}
    found: dict[str, None] = {}
    for name in request.secrets:
        if not option_name(name) or "=" in name:
            shown = name.partition("=")[0]
            raise UsageError(
                f"--secret takes a name only, not {shown!r} with a value" if shown else "--secret needs a name",
                hint=f"--env {shown or 'NAME'}=VALUE --secret {shown or 'NAME'}",
            )
        if name not in known and option_name(name) not in mentioned:
            found[name] = None
    return found


def _of_project(project: Project, earlier: RunSpec) -> Mapping[str, str]:
    """The passwords in the project's environment file, where it is still the same but for them."""
    with suppress(OSError, ValueError):
        hider = Hider({})
        text = hider.environment(project.environment_file.read_text(encoding="utf-8-sig"))
        if text == earlier.environment_content:
            return hider.variables
    return {}


def _what_it_is(name: str, earlier: RunSpec) -> str:
    """In the user's words: the option that it followed, where there was one."""
    if name.startswith(ENVIRONMENT_PREFIX):
        return "of a package index in the environment file"
    if name.startswith(f"{VARIABLE_PREFIX}INPUT_"):
        return "of the address of an input"
    if name.startswith(f"{VARIABLE_PREFIX}SET_"):
        return "of the config"
    place, before = f"<secret:{name}>", ""
    for number, word in enumerate(earlier.arguments, 1):
        if place in word:
            option = word.partition("=")[0] if "=" in word else before
            return (
                f"of the script's option {option}" if option.startswith("-") else f"in the script's argument {number}"
            )
        before = word
    return "of the command" if earlier.command else "of the variable of that name"
