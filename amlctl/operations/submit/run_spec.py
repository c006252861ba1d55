"""From what the user typed to what a run consists of: every check of a submit that costs next to nothing.

Sources, in order: the command line, the run that `--from` names, the script's inline block, the settings.
Nothing is sent and nothing is written here.
"""

from __future__ import annotations

import os
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amlctl.config.job_file import is_job_file
from amlctl.config.script_config import RecordedConfig, read_config, record_config, recorded_bytes
from amlctl.config.text_file import file_error
from amlctl.core import run
from amlctl.core.distribution import Distribution
from amlctl.core.environment import EnvironmentSpec, is_of_others
from amlctl.core.events import EventSink, Note
from amlctl.core.hidden_values import Hider
from amlctl.core.job import JobCommand
from amlctl.core.message import Command, Message
from amlctl.core.run import LONGEST_DURATION_S, RunRecord
from amlctl.core.script_block import ScriptNeeds, read_script_block
from amlctl.core.store_keys import check_dataset_name, code_index_key
from amlctl.core.wording import below_data_blobs, similar
from amlctl.errors import NotFound, SettingsError, UsageError
from amlctl.localfs.code_rules import code_rules
from amlctl.localfs.ignore import IgnoreRules
from amlctl.localfs.project import Project
from amlctl.localfs.script_lookup import find_config, find_script
from amlctl.operations.compute import SERVERLESS, check_target, default_target
from amlctl.operations.context import Context
from amlctl.operations.environment import project_environment, recorded_environment, stand_in
from amlctl.operations.submit.distribution import choose_distribution
from amlctl.operations.submit.inputs import Address
from amlctl.operations.submit.job_request import (
    default_experiment,
    hide_command,
    read_job_request,
    tell_serverless_only,
    told_at,
)
from amlctl.operations.submit.request import SubmitRequest
from amlctl.operations.submit.secrets import (
    lacking_variables,
    still_hidden,
    value_of,
    wanted_variables,
    with_named_variables,
)
from amlctl.operations.submit.typed_options import check_typed
from amlctl.runs.code import Sources
from amlctl.snapshots.heads import read_head
from amlctl.stores.contract import Store

MODES = ("mount", "download")


@dataclass(frozen=True)
class Pinned:
    """A snapshot that is used as it is, without looking at the local folder."""

    snapshot: str
    manifest_key: str


@dataclass(frozen=True)
class RunSpec:
    """What the run will be. `to_sync` are datasets with a local folder; `pinned` are taken from the store.

    `code` is None where `pipeline/` is to be sent, else the code snapshot of the run that is repeated.
    `variables` go into the record, `secrets` beside it.
    """

    script: str
    name: str
    config: str | None
    config_content: Any
    config_file: Mapping[str, str] | None
    arguments: tuple[str, ...]
    to_sync: tuple[str, ...]
    pinned: Mapping[str, Pinned]
    produces: tuple[str, ...]
    code: str | None
    environment: EnvironmentSpec
    environment_content: str | None
    variables: Mapping[str, str | None]
    secrets: Mapping[str, str]
    compute: str
    mode: str
    experiment: str
    distribution: Distribution
    timeout_s: float | None
    tags: Mapping[str, str]
    from_run: str | None
    places: Mapping[str, str] = field(default_factory=dict)
    """`file:line` of what a job file has named (see `JobPlan`); what was typed instead is not among them."""
    job: JobCommand | None = None
    """What is run instead of a script; `script` is the job file then."""
    code_source: Path | None = None
    """What is sent as `pipeline/`, a folder or a file; None for a job without code, and where `code` is set."""
    context: Sources = ()
    """What the environment's image is built from; it travels with the code."""
    addresses: Mapping[str, Address] = field(default_factory=dict)
    """Datasets that have to be downloaded first, and from where."""
    description: str = ""
    node: Mapping[str, Any] = field(default_factory=dict)
    git: Mapping[str, Any] | None = None
    """Of the code of the run that is repeated."""

    @property
    def command(self) -> list[str]:
        """What the runtime will start, relative to the working container."""
        if self.job is not None:
            return ["bash", "-c", self.job.text]
        config = ["--config", f"config/{Path(self.config).name}"] if self.config else []
        return ["python", self.script, *config, *self.arguments]


def resolve(request: SubmitRequest, context: Context, earlier: RunRecord | None, origin: Store) -> RunSpec:
    """`earlier` is the record of the run to repeat, and `origin` the store that it used.

    Raises UsageError, SettingsError, NotFound.
    """
    project, settings, store, sink = context.project, context.settings, context.store, context.sink
    workspace_name = settings.workspace().name
    check_typed(request, sink)
    ignore = code_rules(project)
    is_local = settings.workspace().runs_here
    plan = None
    if is_job_file(request.script):
        request, plan = read_job_request(request, context, is_local=is_local)
    if not request.script and earlier is None:
        raise UsageError("no script named", hint=Command("submit", "SCRIPT"))
    is_repeat = earlier is not None and not request.script
    if is_repeat and earlier is not None:
        script, needs = earlier.spec.script, ScriptNeeds()
        path = project.root / earlier.spec.script
        if not earlier.spec.code:
            raise NotFound(
                f"run {earlier.run} is not one of amlctl: no store has its code and data",
                hint="submit its script, or its job file",
            )
        if not _is_in_one(code_index_key(earlier.spec.code), store, origin):
            raise NotFound(
                f"the code of run {earlier.run} is not in the store any more",
                hint=Message(Command("submit", Path(script).name), " sends the present code"),
            )
    elif plan is not None:
        path, script, needs = project.root, plan.source, ScriptNeeds(compute=plan.compute)
    else:
        path = find_script(project.root, project.pipeline_dir, request.script, cwd=request.cwd, ignore=ignore)
        script = path.relative_to(project.root).as_posix()
        needs = read_script_block(_read_script(path, script), script)
    words = list(request.arguments) or (earlier.spec.arguments if earlier else [])
    plain_job = plan.command if plan else _job_of(earlier.spec) if is_repeat and earlier else None
    request = with_named_variables(request, words, plain_job, earlier)
    hider = Hider({}, request.secrets)
    variables, secrets = _variables(request, earlier, hider)
    hider = Hider(secrets, request.secrets)
    config, recorded_config = _config(request, project, path, earlier, ignore, hider)
    content = recorded_config.content
    arguments = hider.arguments(words)
    job = hide_command(plain_job, hider) if plain_job else None
    own = plan.environment if plan else None
    earlier_text = earlier.spec.environment_content if earlier and not (own or request.env_from_current) else None
    recorded = [content, arguments, earlier_text, *([job.text, job.inputs] if job else [])]
    given = still_hidden(request, earlier, recorded, hider, project)
    spec, environment_content = own or _environment(request, project, earlier, given, sink)
    if is_local and is_of_others(spec.id):
        with told_at(plan.places.get("environment", "") if plan else ""):
            spec, environment_content = stand_in(project, spec, plan.context if plan else (), sink)
    if environment_content is not None:
        environment_content = hider.environment(environment_content)
    secrets = {**secrets, **given, **hider.variables}
    variables = {**variables, **dict.fromkeys(secrets)}
    produces = _names(
        project, request.produces, needs.produces, earlier.spec.produces if earlier else None, request.cwd
    )
    for dataset in produces:
        check_dataset_name(dataset)
    dataset_places = plan.dataset_places if plan else {}
    if earlier is not None and request.datasets is None:
        to_sync: tuple[str, ...] = ()
        pinned = _pinned_of(earlier, store, origin)
    else:
        to_sync, pinned = _datasets(request, context, needs, produces, dataset_places)
    compute = request.compute or (
        earlier.spec.compute if earlier and earlier.spec.workspace == workspace_name else None
    )
    if compute is None and not is_local:
        compute = needs.compute
    places = (
        {key: place for key, place in plan.places.items() if key != "compute" or not request.compute} if plan else {}
    )
    compute = compute or default_target(settings, workspace_name)
    with told_at(places.get("compute", "")):
        check_target(context, compute)
    node = plan.node if plan else earlier.spec.node if is_repeat and earlier else {}
    if not is_local and compute != SERVERLESS:
        tell_serverless_only(node, compute, places, sink)
    mode = request.mode or (earlier.spec.mode if earlier else settings.submit.mode)
    if mode not in MODES:
        raise UsageError(f"--mode {mode!r} is unknown", hint=f"one of {', '.join(MODES)}")
    if request.timeout_s is not None and not 0 < request.timeout_s <= LONGEST_DURATION_S:
        raise UsageError("--timeout must be above 0, and at most 10000d", hint="for example 90s, 15m or 2h")
    tags = hider.tags({**(earlier.spec.tags if earlier else {}), **request.tags})
    for name, value in request.tags.items():
        if tags[name] != value:
            sink(Note(f"the value of tag {name} looks like a secret and is not recorded"))
    distribution = choose_distribution(request.distribution, request.processes, request.instances, earlier)
    return RunSpec(
        script=script,
        name=request.name or (earlier.spec.name if earlier else "") or Path(script).stem,
        config=config,
        config_content=content,
        config_file=recorded_config.file,
        arguments=tuple(arguments),
        to_sync=to_sync,
        pinned=pinned,
        produces=produces,
        code=earlier.spec.code if is_repeat and earlier else None,
        environment=spec,
        environment_content=environment_content,
        variables=variables,
        secrets=secrets,
        compute=compute,
        places=places,
        mode=mode,
        experiment=request.experiment
        or (earlier.spec.experiment if earlier else default_experiment(request, settings, is_job=plan is not None)),
        distribution=distribution,
        timeout_s=request.timeout_s or (earlier.spec.timeout_s if earlier else None),
        tags=tags,
        from_run=earlier.run if earlier else None,
        job=job,
        code_source=plan.code if plan else None if is_repeat else project.pipeline_dir,
        context=plan.context if plan else (),
        addresses={dataset: Address(url) for dataset, url in plan.outside.items()} if plan else {},
        description=plan.description if plan else earlier.spec.description if is_repeat and earlier else "",
        node=node,
        git=earlier.spec.git if is_repeat and earlier else None,
    )


def _job_of(spec: run.RunSpec) -> JobCommand | None:
    return (
        None if spec.command is None else JobCommand(spec.command, spec.inputs, spec.named_outputs, spec.output_places)
    )


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


def _config(
    request: SubmitRequest,
    project: Project,
    script: Path,
    earlier: RunRecord | None,
    ignore: IgnoreRules,
    hider: Hider,
) -> tuple[str | None, RecordedConfig]:
    """The config's path as shown, and what the record keeps of it."""
    if request.config is not None:
        path = find_config(
            project.root, project.pipeline_dir, request.config, cwd=request.cwd, script=script, ignore=ignore
        )
        is_inside = path.is_relative_to(project.root)
        shown = path.relative_to(project.root).as_posix() if is_inside else str(path)
        recorded = record_config(read_config(path, shown), shown, request.overrides, hider.setting)
        return (shown if is_inside else path.name), recorded
    if earlier is not None and earlier.spec.config is not None:
        if not request.overrides:
            return earlier.spec.config, RecordedConfig(earlier.spec.config_content, earlier.spec.config_file)
        return earlier.spec.config, record_config(
            recorded_bytes(earlier.spec), earlier.spec.config, request.overrides, hider.setting
        )
    if request.overrides:
        raise UsageError("--set changes a config, and there is none", hint="name it with --config FILE")
    return None, RecordedConfig(None, None)


def _names(
    project: Project,
    typed: Sequence[str] | None,
    inline: Sequence[str] | None,
    earlier: Sequence[str] | None,
    cwd: Path,
) -> tuple[str, ...]:
    """Dataset names: those typed are relative to `cwd`, all others to the project."""
    if typed is not None:
        names = [project.dataset_name(name, cwd) for name in typed]
    else:
        names = [project.dataset_name(name, project.root) for name in (earlier or inline or ())]
    return tuple(dict.fromkeys(names))


def _datasets(
    request: SubmitRequest,
    context: Context,
    needs: ScriptNeeds,
    produces: Sequence[str],
    places: Mapping[str, str],
) -> tuple[tuple[str, ...], dict[str, Pinned]]:
    """`places` are those of datasets in a job file."""
    project, store, sink = context.project, context.store, context.sink
    to_sync: list[str] = []
    pinned: dict[str, Pinned] = {}
    for dataset in _names(project, request.datasets, needs.datasets, None, request.cwd):
        is_here = os.path.lexists(project.dataset_path(dataset))
        is_produced = dataset in produces
        if is_here and request.sync and not is_produced:
            to_sync.append(dataset)
            continue
        head = read_head(store, dataset)
        if head is not None:
            pinned[dataset] = Pinned(head.snapshot, head.manifest_key)
            if not is_here and not is_produced:
                sink(Note(f"{dataset} is not on this machine; the store's snapshot is used"))
        elif not is_produced:
            with told_at(places.get(dataset, "")):
                raise _no_dataset(project, dataset, is_here)
    return tuple(to_sync), pinned


def _no_dataset(project: Project, dataset: str, is_here: bool) -> NotFound:
    if is_here:
        return NotFound(
            f"dataset {dataset} was never synced, and --no-sync leaves it so",
            hint=Command("sync", below_data_blobs(dataset)),
        )
    folder, missing = project.data_blobs_dir, ""
    for missing in Path(dataset).parts:
        if not (folder / missing).is_dir():
            break
        folder /= missing
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    shown = [(folder / name).relative_to(project.root).as_posix() for name in similar(missing, names)]
    return NotFound(
        f"dataset {dataset} is neither at data_blobs/{dataset} nor in the store",
        hint=f"did you mean {shown[0]}?" if shown else "put it there, or name the run that produces it first",
        details=shown,
    )


def _pinned_of(earlier: RunRecord, *stores: Store) -> dict[str, Pinned]:
    pinned = {}
    for dataset, snapshot in earlier.spec.datasets.items():
        key = earlier.spec.manifests.get(dataset, "")
        if not key or not _is_in_one(key, *stores):
            raise NotFound(
                f"snapshot {snapshot} of {dataset}, which run {earlier.run} had, is not in the store any more",
                hint=f"take the present one: --dataset {dataset}",
            )
        pinned[dataset] = Pinned(snapshot, key)
    return pinned


def _is_in_one(key: str, *stores: Store) -> bool:
    return any(store.info(key) is not None for store in stores)


def _environment(
    request: SubmitRequest, project: Project, earlier: RunRecord | None, secrets: Mapping[str, str], sink: EventSink
) -> tuple[EnvironmentSpec, str | None]:
    if request.env_from_current or earlier is None:
        return project_environment(project, is_current=request.env_from_current, sink=sink)
    return recorded_environment(earlier, secrets)


def _variables(
    request: SubmitRequest, earlier: RunRecord | None, hider: Hider
) -> tuple[dict[str, str | None], dict[str, str]]:
    """Those for the record (None: secret), and the secret ones with their values."""
    recorded: dict[str, str | None] = {}
    secrets: dict[str, str] = {}
    lacking = lacking_variables(request, earlier)  # `still_hidden` reports them, with all other hidden values
    for name, typed in wanted_variables(request, earlier).items():
        if name in lacking:
            continue
        if not name or "=" in name or "\0" in name:
            raise UsageError(f"{name!r} is not a valid variable name", hint="--env NAME=VALUE")
        value = value_of(request, name, typed)
        if typed is None or hider.is_secret(name, value):
            recorded[name] = None
            secrets[name] = value
        else:
            recorded[name] = value
    return recorded, secrets
