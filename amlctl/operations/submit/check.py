"""From what a submit is asked for to a complete spec: every check that costs next to nothing.

Nothing is sent and nothing is written here.
"""

from __future__ import annotations

import ast
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from amlctl.config.environment_file import recorded_environment
from amlctl.config.script_config import read_config, record_config
from amlctl.core.environment import EnvironmentSpec, environment_without_file, is_of_others
from amlctl.core.events import EventSink, Note, Warned
from amlctl.core.hidden_values import Hider
from amlctl.core.job import DISTRIBUTIONS
from amlctl.core.message import Command, below_data_blobs, similar
from amlctl.core.metrics import check_goal
from amlctl.core.run import LONGEST_DURATION_S, MergedSpec, RunSpec, config_bytes
from amlctl.core.run_schema import MAX_PROCESSES
from amlctl.core.settings import MODES
from amlctl.core.store_keys import check_dataset_name
from amlctl.errors import AmlctlError, CheckFailed, NotFound, UsageError
from amlctl.localfs.code_rules import CodeRules
from amlctl.localfs.project import Project, near_datasets
from amlctl.localfs.script_lookup import find_config
from amlctl.operations.compute import check_target, default_target
from amlctl.operations.context import Context
from amlctl.operations.data_asset import with_registered
from amlctl.operations.environment import project_environment, stand_in
from amlctl.operations.submit.inputs import Address, with_present_assets
from amlctl.operations.submit.job_file import JobFile, warn_of_serverless_settings
from amlctl.operations.submit.script_imports import warn_of_missing_modules
from amlctl.operations.submit.sources import TYPED, Sources, SubmitRequest, SubmitSecrets, is_in_one, read_sources
from amlctl.operations.sync.dataset_state import check_store_is_outside
from amlctl.operations.sync.merge import was_removed
from amlctl.runs.code import Sources as CodeSources
from amlctl.snapshots.heads import find_head, has_snapshots, no_head, read_head
from amlctl.stores.contract import Store

DEFAULT_KIND = "pytorch"
"""How several processes find each other by default: by the variables that most launchers and libraries know."""


@dataclass(frozen=True)
class CheckedRun:
    """A run that can be submitted. Its `spec` lacks what is known only after sending: snapshots of `to_sync` and of
    `downloads`, and the id of the code, unless that of an earlier run is used.

    `secrets` are the values of secret variables. `code_source` is sent as `pipeline/`, a folder or a file; None for a
    job without code, and where the code of an earlier run is used; `rules` say what is left out of the project's own.
    `image_context` travels with the code. `origin` is
    the store that has data and code of the run that is repeated. `configs` are those of a sweep's combinations: specs
    with a config alone.
    """

    spec: RunSpec
    merged: MergedSpec
    environment: EnvironmentSpec
    secrets: Mapping[str, str]
    origin: Store
    rules: Callable[[], CodeRules]
    to_sync: Sequence[str]
    code_source: Path | None
    image_context: CodeSources = ()
    downloads: Mapping[str, Address] = field(default_factory=dict)
    configs: Sequence[RunSpec] = ()


def check(context: Context, request: SubmitRequest, file: JobFile | None) -> CheckedRun:
    """Read all sources, merge them, and look at all that the run names.

    Raises UsageError, SettingsError, NotFound, RightsError, CheckFailed.
    """
    sources = read_sources(context, request, file)
    run = _resolve(context, request, sources)
    if (service := context.workspace.service) is not None:
        with run.merged.at("experiment"):
            service.check_experiment(run.spec.experiment)
        service.check_limits(run.spec, request.sweep, context.sink)
    run = with_present_assets(run, context.workspace)
    _check_code_apart(context, run)
    if context.settings.workspace().runs_here and os.pathsep in str(context.project.root):
        raise UsageError(  # it separates the folders of PYTHONPATH
            f"the project has a {os.pathsep!r} in its path, {context.project.root}, so Python cannot import from it",
            hint="rename or move its folder",
        )
    environment = run.environment
    if run.spec.command is not None and context.workspace.service is not None:
        environment = replace(environment, python="")  # another Python of the image can start the runtime
    with run.merged.at("environment"):
        context.workspace.check_environment(environment, context.sink)
    if run.spec.command is None and not run.spec.code:
        source = (context.project.root / run.spec.script).read_bytes()
        check_syntax(source, run.spec.script, context.workspace.python(run.environment), context.sink)
        _check_imports(context, run)
    return run


def _check_imports(context: Context, run: CheckedRun) -> None:
    workspace, project, spec = context.workspace, context.project, run.environment
    listed_in = "pptdaml.yaml"
    if spec.is_current:  # what is installed from a folder or a repository is not sent
        listed_in = "the environment of amlctl" + (", from a package index" if workspace.service is not None else "")
    warn_of_missing_modules(
        project.root / run.spec.script,
        project,
        run.rules(),
        lambda module: workspace.has_module(spec, module),
        context.sink,
        listed_in=listed_in,
    )


def _resolve(context: Context, request: SubmitRequest, sources: Sources) -> CheckedRun:
    project, settings, sink = context.project, context.settings, context.sink
    merged, job = sources.merged, sources.job
    secrets = SubmitSecrets(request, sources)
    spec = _with_processes(_checked_options(merged.spec))
    if "name" not in merged.sources:
        spec = replace(spec, name=Path(spec.script).stem)
    configs = _configs(spec, sources, project, request, secrets.hider)
    if request.sweep is not None:
        check_goal(request.sweep.metric)
    if request.sweep is not None and spec.produces:
        raise UsageError(
            "--sweep and --produces exclude each other: each run would replace the dataset of the one before",
            hint="write to the run's outputs instead",
        )
    if configs:
        spec = with_config_of(spec, configs[0])
    spec = _without_secrets(spec, secrets.hider)
    for name, value in merged.spec.tags.items():
        if spec.tags[name] != value:
            sink(Note(f"the value of tag {name} looks like a secret and is not recorded"))
    recorded = [spec.config_content, spec.arguments, spec.command, spec.inputs]
    if sources.is_of_run("environment"):
        recorded.append(spec.environment_content)
    secrets.restore(recorded, project)
    environment, content = _environment(context, sources, secrets)
    compute = spec.compute if "compute" in merged.sources else default_target(settings, spec.workspace)
    with merged.at("compute"):
        check_target(context, compute)
    content = None if content is None else secrets.hider.environment(content)
    values = secrets.all_values()  # after the last secret was hidden
    spec = replace(
        spec,
        compute=compute,
        environment=environment.id,
        environment_content=content,
        variables={**secrets.variables, **dict.fromkeys(values)},
    )
    if not settings.workspace().runs_here:
        warn_of_serverless_settings(spec, merged.lines, sink)
    spec, to_sync = _with_datasets(spec, context, request, sources)
    if request.register:
        spec = with_registered(context, spec, request.register)
    return CheckedRun(
        spec,
        merged,
        environment,
        values,
        sources.origin,
        sources.rules,
        to_sync,
        code_source=job.code if job is not None else None if sources.is_repeat else project.pipeline_dir,
        image_context=() if job is None else job.image_context,
        downloads={name: Address(path.as_uri()) for name, path in (job.links if job is not None else {}).items()},
        configs=configs[1:],
    )


def _environment(context: Context, sources: Sources, secrets: SubmitSecrets) -> tuple[EnvironmentSpec, str | None]:
    """The environment, and its text for the record. One made by others has a stand-in on this machine."""
    merged, job = sources.merged, sources.job
    source = merged.sources.get("environment")
    if source in (None, TYPED):
        chosen = environment_without_file(merged.spec.environment) if source == TYPED else None
        found = (chosen, None) if chosen else project_environment(context.project, sink=context.sink)
    elif sources.earlier is not None and sources.is_of_run("environment"):
        found = recorded_environment(sources.earlier, secrets.all_values())
    elif sources.script_environment is not None:
        found = sources.script_environment, merged.spec.environment_content
    else:
        assert job is not None
        assert job.environment is not None
        found = job.environment, merged.spec.environment_content
    if context.settings.workspace().runs_here and is_of_others(found[0].id):
        with merged.at("environment"):
            return stand_in(context.project, found[0], () if job is None else job.image_context, context.sink)
    return found


def _checked_options(spec: RunSpec) -> RunSpec:
    if spec.mode not in MODES:
        raise UsageError(f"--mode {spec.mode!r} is unknown", hint=f"one of {', '.join(MODES)}")
    if spec.timeout_s is not None and not 0 < spec.timeout_s <= LONGEST_DURATION_S:
        raise UsageError("--timeout must be above 0, and at most 10000d", hint="for example 90s, 15m or 2h")
    for dataset in spec.produces:
        check_dataset_name(dataset)
    return spec


def _with_processes(spec: RunSpec) -> RunSpec:
    if spec.distribution is not None and spec.distribution not in DISTRIBUTIONS:
        raise UsageError(f"--distribution {spec.distribution!r} is unknown", hint=f"one of {', '.join(DISTRIBUTIONS)}")
    for option, number in (("--processes", spec.processes), ("--instances", spec.instances)):
        if number < 1:
            raise UsageError(f"{option} {number}: must be at least 1", hint=f"for example {option} 2")
    count = spec.processes * spec.instances
    if count > MAX_PROCESSES:
        raise UsageError(
            f"{count:,} processes are too many: a run has at most {MAX_PROCESSES:,}",
            hint="choose fewer --processes or --instances",
        )
    return replace(spec, distribution=DEFAULT_KIND) if spec.distribution is None and count > 1 else spec


def _configs(
    spec: RunSpec, sources: Sources, project: Project, request: SubmitRequest, hider: Hider
) -> Sequence[RunSpec]:
    """The config as it is shown and recorded, with all `--set`; of a sweep first as it is written, then with each
    combination. Empty where that of the spec stays as it is."""
    combinations = () if request.sweep is None else request.sweep.combinations
    for key, value in (pair for one in combinations for pair in one.values.items()):
        if hider.is_secret(key, value):
            raise UsageError(
                f"--sweep would record the values of {key}, which looks like a secret",
                hint="pass secrets to the script with --env NAME=VALUE",
            )
    wanted = [request.overrides, *(one.overrides for one in combinations)]
    if spec.config is None:
        if any(wanted):
            raise UsageError("--set changes a config, but this run has none", hint="name it with --config FILE")
        return ()
    shown = name = spec.config
    if sources.merged.sources["config"] == TYPED:
        script = project.root / spec.script
        path = find_config(project, name, cwd=request.cwd, script=script, rules=sources.rules)
        is_inside = path.is_relative_to(project.root)
        shown = path.relative_to(project.root).as_posix() if is_inside else str(path)
        name = shown if is_inside else path.name
        data = read_config(path, shown)
    elif any(wanted):
        data = config_bytes(spec, None)
    else:
        return ()
    return [replace(record_config(data, shown, overrides, hider.setting), config=name) for overrides in wanted]


def with_config_of(spec: RunSpec, config: RunSpec) -> RunSpec:
    return replace(spec, config=config.config, config_content=config.config_content, config_file=config.config_file)


def _without_secrets(spec: RunSpec, hider: Hider) -> RunSpec:
    """Their values travel beside the record."""

    def hide(name: str, kind: str, value: str) -> str:
        if kind == "asset":
            return hider.address(name, value)
        return str(hider.setting(name, value, "")) if kind == "value" else value

    command = spec.command
    if command is not None:
        parts = re.split(r"(\s+)", command)
        parts[::2] = hider.arguments(parts[::2])
        command = "".join(parts)
    return replace(
        spec,
        command=command,
        inputs={
            name: {kind: hide(name, kind, value) for kind, value in one.items()} for name, one in spec.inputs.items()
        },
        arguments=hider.arguments(spec.arguments),
        tags=hider.tags(spec.tags),
    )


def _with_datasets(
    spec: RunSpec, context: Context, request: SubmitRequest, sources: Sources
) -> tuple[RunSpec, Sequence[str]]:
    """With the snapshots that are known already, and the datasets that have to be synced first."""
    merged, earlier = sources.merged, sources.earlier
    if earlier is not None and sources.is_of_run("datasets"):
        for dataset, snapshot in spec.datasets.items():
            key = spec.manifests.get(dataset, "")
            if not key or not is_in_one(key, context.store, sources.origin):
                raise NotFound(
                    f"snapshot {snapshot} of {dataset}, used by run {earlier.run}, is not in the store any more",
                    hint=f"use the latest snapshot: --dataset {dataset}",
                )
        return spec, ()
    inputs = {one["dataset"]: f"inputs.{name}" for name, one in spec.inputs.items() if "dataset" in one}
    to_sync: list[str] = []
    snapshots: dict[str, str] = {}
    manifests: dict[str, str] = {}
    links = sources.job.links if sources.job is not None else ()
    wanted = dict.fromkeys([*spec.datasets, *(inputs if sources.job is not None else ())])
    for dataset in [name for name in wanted if name not in links]:
        is_here = os.path.lexists(context.project.dataset_path(dataset))
        is_produced = dataset in spec.produces
        if is_here and request.sync and not is_produced:
            to_sync.append(dataset)
            continue
        head = read_head(context.store, dataset)
        if head is not None:
            snapshots[dataset], manifests[dataset] = head.snapshot, head.manifest_key
            if not is_here and not is_produced:
                context.sink(Note(f"{dataset} is not on this machine; using the snapshot in the store"))
        elif not is_produced:
            with merged.at(inputs.get(dataset, "datasets")):
                raise _no_dataset(context, dataset, is_here=is_here)
    return replace(spec, datasets=snapshots, manifests=manifests), to_sync


def _no_dataset(context: Context, dataset: str, *, is_here: bool) -> AmlctlError:
    project, store = context.project, context.store
    head = find_head(store, dataset)
    if head is not None and head.removed_at:
        return was_removed(dataset, head, NotFound)
    if has_snapshots(store, dataset):
        return no_head(store, dataset)
    if is_here:
        return NotFound(
            f"dataset {dataset} has never been synced; remove --no-sync to sync it",
            hint=Command("sync", below_data_blobs(dataset)),
        )
    shown = near_datasets(project.data_blobs_dir, dataset)
    if not shown:
        from amlctl.operations.dataset.listing import stored_names  # here, since few submits need it

        shown = similar(dataset, stored_names(store).datasets)
    return NotFound(
        f"dataset {dataset} is neither at data_blobs/{dataset} nor in the store",
        hint=f"did you mean {shown[0]}?" if shown else "put it there, or name the run that produces it first",
        details=shown,
    )


def _check_code_apart(context: Context, run: CheckedRun) -> None:
    """Raises UsageError: a store in the folder of the code would be sent with every run."""
    folder, project = run.code_source, context.project
    apart = (project.state_dir, project.data_blobs_dir, project.outputs_dir)
    if folder is not None and not any(Path(context.store.url).is_relative_to(one) for one in apart):
        check_store_is_outside(context.store, folder, f"{folder.name}/")


PythonVersion = tuple[int, int]


def check_syntax(source: bytes, shown: str, target: PythonVersion | None, sink: EventSink) -> None:
    """`target` is the run's Python, None where it is not known. Raises CheckFailed if it cannot parse this.

    A newer Python may accept what this one refuses: then the error is a warning.
    """
    own: PythonVersion = sys.version_info[:2]
    try:
        _compile(source, shown, own)
        if target is not None and target < own:
            _compile(source, shown, target)
    except SyntaxError as error:
        message, details = _syntax_error(error, shown)
        if target is None or target > own:
            reader = f"Python {own[0]}.{own[1]}, the one of amlctl"
            sink(Warned("\n".join([f"{message} (says {reader}; the run may have a newer one)", *details])))
            return
        raise CheckFailed(message, hint="fix the script and submit it again", details=details) from error
    except (ValueError, RecursionError, MemoryError) as error:
        if "null bytes" not in str(error):
            return  # nested too deeply for this process; perhaps not for a fresh one
        raise CheckFailed(f"{shown}: not Python source: it contains null bytes", hint="check the file") from error


def _compile(source: bytes, shown: str, version: PythonVersion) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if version == sys.version_info[:2]:
            compile(source, shown, "exec", dont_inherit=True)
        else:
            ast.parse(source, shown, feature_version=version)


def _syntax_error(error: SyntaxError, shown: str) -> tuple[str, Sequence[str]]:
    """As Python shows it: file and line, the line itself, and a caret below the position."""
    where = shown if error.lineno is None else f"{shown}:{error.lineno}"
    message = f"{where}: {type(error).__name__}: {error.msg}"
    if not error.text:
        return message, ()
    line = error.text.rstrip("\n")
    indent = len(line) - len(line.lstrip())
    column = max((error.offset or 1) - 1 - indent, 0)
    return message, (line.strip(), " " * column + "^")
