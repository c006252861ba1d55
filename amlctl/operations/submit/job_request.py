"""`submit job.yml`: what a job file asks for, as if it had been typed, and what it runs instead of a script."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from amlctl.azure_access.azure_ai_ml import check_job
from amlctl.config.environment_file import parse_environment
from amlctl.config.job_file import parse_job_file, read_command_job
from amlctl.config.yaml_file import YamlDocument
from amlctl.core.asset import parse_asset
from amlctl.core.environment import DEFAULT_IMAGE, EnvironmentSpec, environment_without_file
from amlctl.core.events import EventSink, Note, Warned
from amlctl.core.hidden_values import Hider
from amlctl.core.job import CommandJob, JobCommand, JobInput
from amlctl.core.settings import Settings
from amlctl.errors import AmlctlError, NotFound, SettingsError, UsageError
from amlctl.localfs.code_rules import job_code_rules
from amlctl.localfs.project import IN_PROJECT, INPUTS, Project
from amlctl.operations.compute import SERVERLESS
from amlctl.operations.context import Context
from amlctl.operations.submit.request import SubmitRequest
from amlctl.runs.code import Sources, collect_context
from amlctl.snapshots.heads import read_head

_OWN_NAMES = {"inputs": ("store",), "outputs": ("saves", "default")}
"""Of each job that amlctl or Azure ML makes."""
_STORE_FOLDERS = re.compile(r"(?:.*/)?(?:mirror|data_blobs)/")
_NOTHING: Sources = ()
_REMOTE = re.compile(r"azureml:|(?!file:)[a-z][a-z0-9+.-]*://")


@dataclass(frozen=True)
class JobPlan:
    """`source` is the file as shown; `code` becomes the run's `pipeline/` (None: the project's own, if it has one), and
    `context` is what its image is built from.

    `environment` is None for the project's own; its text is None for one that others have made. `compute` is a wish, as
    that of a script's inline block. `places` tells the line of `compute`, `environment`, `inputs.NAME`, `outputs.NAME`
    and what is asked of nodes, and `dataset_places` those of datasets.
    """

    source: str
    command: JobCommand
    code: Path | None
    context: Sources
    environment: tuple[EnvironmentSpec, str | None] | None
    compute: str | None
    places: Mapping[str, str]
    dataset_places: Mapping[str, str]
    description: str
    node: Mapping[str, Any]
    outside: Mapping[str, str]
    """Datasets that lie outside of the project, and the `file:` URL of each."""


@dataclass(frozen=True)
class JobFile:
    """One that the SDK has taken; `kind` is `command`, `sweep` or `pipeline`, say."""

    path: Path
    document: YamlDocument
    kind: str

    @property
    def source(self) -> str:
        return self.document.source

    def not_here(self) -> SettingsError:
        return self.document.error(
            f"a job of type {self.kind} is for Azure ML alone", "type", hint="submit it in a cloud workspace"
        )


def read_job_file(request: SubmitRequest, project: Project) -> JobFile:
    """Raises NotFound, RightsError, SettingsError with the line."""
    path = _find(request, project)
    source = path.relative_to(project.root).as_posix() if path.is_relative_to(project.root) else path.name
    document = parse_job_file(path, source)
    return JobFile(path, document, check_job(document, path))


def read_job_request(request: SubmitRequest, context: Context, *, is_local: bool) -> tuple[SubmitRequest, JobPlan]:
    """The request with what the file says and nobody has typed. Raises UsageError, NotFound, SettingsError."""
    project, sink = context.project, context.sink
    for given, option in ((request.config, "--config"), (request.overrides, "--set"), (request.arguments, "-- ARGS")):
        if given:
            raise UsageError(
                f"{option} goes to a script, and a job file has its whole command", hint="edit the command"
            )
    file = read_job_file(request, project)
    path, source = file.path, file.source
    if file.kind != "command":
        raise file.not_here()
    job = read_command_job(file.document, path.parent)
    inputs = {name: _input(job, name, one, path.parent, context) for name, one in job.inputs.items()}
    datasets = {name: one["dataset"] for name, one in inputs.items() if "dataset" in one}
    outside = {
        dataset: _local_path(job.inputs[name].path, path.parent).as_uri()
        for name, dataset in datasets.items()
        if dataset.startswith(f"{INPUTS}/")
    }
    outputs = {name: one.type for name, one in job.outputs.items()}
    output_places = {name: one.place for name, one in job.outputs.items() if one.place}
    for kind, names in (("inputs", inputs.keys() - datasets.keys()), ("outputs", output_places)):
        for name in names:
            if name in _OWN_NAMES[kind] and "value" not in inputs.get(name, {}):
                raise _at(job, f"{kind}.{name}", SettingsError)(
                    f"{name} is reserved for amlctl in {kind}", hint="give it another name"
                )
    if is_local:
        _tell_node_only(job, output_places, sink)
    elif job.compute is None and request.compute is None:
        sink(Note(f"{source} names no compute: serverless is used, as in Azure ML; --compute NAME chooses another"))
    environment, image_context = (
        (None, ()) if request.env_from_current else _environment(job, source, project, sink, is_local)
    )
    plan = JobPlan(
        source,
        JobCommand(job.command, inputs, outputs, output_places),
        _code(job, path.parent, project),
        image_context,
        environment,
        job.compute or (None if is_local else SERVERLESS),
        _places(job),
        {dataset: _path_place(job, name) for name, dataset in datasets.items()},
        job.description,
        job.node,
        outside,
    )
    named = [str(project.data_blobs_dir / dataset) for dataset in datasets.values() if dataset not in outside]
    filled = replace(
        request,
        script=source,
        datasets=tuple(dict.fromkeys([*(request.datasets or ()), *named])),
        experiment=request.experiment or job.experiment,
        mode=request.mode or _mode({job.inputs[name].mode for name in datasets}, sink),
        distribution=request.distribution or job.distribution,
        processes=request.processes or job.processes,
        instances=request.instances or job.instances,
        timeout_s=request.timeout_s or job.timeout_s,
        variables={**job.variables, **request.variables},
        tags={**job.tags, **request.tags},
        name=request.name or job.name,
    )
    return filled, plan


def tell_serverless_only(node: Mapping[str, Any], compute: str, places: Mapping[str, str], sink: EventSink) -> None:
    """The service takes such a job, and does what it likes."""
    for group, key in (("resources", "instance_type"), ("queue_settings", "job_tier")):
        if (node.get(group) or {}).get(key):
            where = places.get(f"{group}.{key}", "")
            told = f"{group}.{key} is for compute serverless: the nodes of {compute} are what they are"
            sink(Warned(f"{where}: {told}" if where else told))


def default_experiment(request: SubmitRequest, settings: Settings, *, is_job: bool) -> str:
    """A job file's is Azure's own default, unless the project has one: the name of the working folder."""
    if not is_job or settings.origins.get("experiment", "default") != "default":
        return settings.experiment
    return request.cwd.resolve().stem.replace(" ", "") or "Default"


@contextmanager
def told_at(place: str) -> Iterator[None]:
    """What is wrong with a value is told with the line of it; `place` is empty where it stands in no job file."""
    try:
        yield
    except AmlctlError as error:
        if not place or not isinstance(error, (NotFound, SettingsError, UsageError)):
            raise
        raise type(error)(f"{place}: {error.message}", hint=error.hint, details=error.details) from error


def hide_command(command: JobCommand, hider: Hider) -> JobCommand:
    """The command for the record; its secrets stand beside it."""
    parts = re.split(r"(\s+)", command.text)
    words = iter(hider.arguments(parts[::2]))
    text = "".join(next(words) if at % 2 == 0 else part for at, part in enumerate(parts))
    inputs = {
        name: {kind: _hide(hider, name, kind, value) for kind, value in one.items()}
        for name, one in command.inputs.items()
    }
    return JobCommand(text, inputs, command.outputs, command.output_places)


def _hide(hider: Hider, name: str, kind: str, value: str) -> str:
    if kind == "asset":
        return hider.address(name, value)
    return str(hider.setting(name, value, "")) if kind == "value" else value


def _find(request: SubmitRequest, project: Project) -> Path:
    for base in (request.cwd, project.root, project.pipeline_dir):
        path = Path(os.path.abspath(base / os.path.expanduser(request.script)))
        if path.is_file():
            return path
    raise NotFound(f"job file {request.script} not found", hint="a path from here, or from the project's folder")


def _tell_node_only(job: CommandJob, output_places: Mapping[str, Mapping[str, str]], sink: EventSink) -> None:
    resources = [f"resources.{key}" for key in job.node.get("resources", ()) if key != "instance_count"]
    keys = [*resources, *(key for key in job.node if key != "resources")]
    for key in keys:
        sink(Warned(f"{job.places.get(key, '')}: {key} has no effect on this machine: it is for the nodes of Azure ML"))
    for name, place in output_places.items():
        where = place.get("uri") or f"the asset {place.get('name', '')}".rstrip()
        sink(Warned(f"{job.places.get(f'outputs.{name}', '')}: output {name} stays in the run's outputs/, not {where}"))
    if job.compute not in (None, "local"):
        sink(Note(f"compute {job.compute} is in Azure ML; the run is made here"))


def _code(job: CommandJob, folder: Path, project: Project) -> Path | None:
    if job.code is None:
        return project.pipeline_dir if project.pipeline_dir.is_dir() else None
    if _REMOTE.match(job.code) or job.code.startswith("git+"):
        raise _at(job, "code", SettingsError)(
            f"code {job.code!r} is not on this machine", hint="clone or download it, and name the folder"
        )
    return Path(os.path.abspath(folder / os.path.expanduser(job.code)))


def _environment(
    job: CommandJob, source: str, project: Project, sink: EventSink, is_local: bool
) -> tuple[tuple[EnvironmentSpec, str | None] | None, Sources]:
    if job.build is not None:
        where, context = job.build.path, _NOTHING
        if "://" not in where:
            folder = Path(where)
            where, context = collect_context(folder, job_code_rules(project, folder), sink=sink)
        return (EnvironmentSpec(build=f"{where}#{job.build.dockerfile}"), None), context
    if job.environment_name is not None:
        return (environment_without_file(job.environment_name) or EnvironmentSpec(), None), ()
    if job.environment is None:
        return None, ()
    spec = parse_environment(job.environment, source)
    if is_local and spec.image != DEFAULT_IMAGE:
        sink(
            Warned(
                f"{job.places['environment']}: the image {spec.image} is not used on this machine, only the conda "
                "file: what else the image has is missing here"
            )
        )
    return (replace(spec, source=source, places={}), job.environment), ()  # its text is not that of a file any more


def _input(job: CommandJob, name: str, one: JobInput, folder: Path, context: Context) -> dict[str, str]:
    project, store, sink = context.project, context.store, context.sink
    if one.value is not None:
        return {"value": one.value}
    place = f"inputs.{name}"
    if not _REMOTE.match(one.path):
        return {"dataset": _local_dataset(job, place, one, folder, project), "type": one.type}
    dataset = _own_name(one.path)
    if dataset and (project.dataset_path(dataset).exists() or read_head(store, dataset) is not None):
        sink(Note(f"input {name}: {one.path} is taken as data_blobs/{dataset}"))
        _check_type(job, place, one, project.dataset_path(dataset))
        return {"dataset": dataset, "type": one.type}
    if one.path.startswith("azureml:") and "/" not in one.path and parse_asset(one.path) is None:
        raise _at(job, place, NotFound)(
            f"{one.path} is not a dataset of this project", hint="azureml:NAME:VERSION or azureml:NAME@latest"
        )
    return {"asset": one.path, "type": one.type, "mode": one.mode}


def _local_dataset(job: CommandJob, place: str, one: JobInput, folder: Path, project: Project) -> str:
    """What a path of this machine means: a dataset, wherever it lies."""
    path = _local_path(one.path, folder)
    with suppress(UsageError):
        dataset = project.dataset_name(str(path), folder)
        _check_type(job, place, one, path)
        return dataset
    if not path.exists():
        raise _at(job, place, NotFound)(f"{one.path} not found", hint=f"it is relative to the job file: {path}")
    _check_type(job, place, one, path)
    if path.is_relative_to(project.root):
        return f"{IN_PROJECT}/{path.relative_to(project.root).as_posix()}"
    return f"{INPUTS}/{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}/{path.name}"


def _local_path(path: str, folder: Path) -> Path:
    return Path(os.path.abspath(folder / os.path.expanduser(re.sub("^file:(?://)?", "", path))))


def _check_type(job: CommandJob, place: str, one: JobInput, path: Path) -> None:
    is_file = one.type == "uri_file"
    if path.exists() and one.type in ("uri_file", "uri_folder") and path.is_file() != is_file:
        raise _at(job, place, UsageError)(
            f"{one.path} is not a {'file' if is_file else 'folder'}",
            hint=f"type: {'uri_folder' if is_file else 'uri_file'}",
        )


def _own_name(path: str) -> str:
    """The dataset that a path in the cloud would be: `working/x` of `azureml://datastores/NAME/paths/working/x` and
    `…/mirror/working/x`, NAME of `azureml:NAME@latest`. Empty for anything else."""
    if path.startswith("azureml://"):
        before, _, below = path.partition("/paths/")
        dataset = _STORE_FOLDERS.sub("", below, count=1).strip("/")
        return "" if "/datastores/" not in before or ".." in dataset.split("/") else dataset
    name = path.removeprefix("azureml:").removesuffix("@latest")
    return name if path.startswith("azureml:") and name and not any(sign in name for sign in ":@/") else ""


def _mode(modes: set[str], sink: EventSink) -> str | None:
    """Of all datasets, from those that their inputs ask for."""
    modes = {mode.removeprefix("eval_").removeprefix("ro_") for mode in modes}
    if "download" in modes:
        if len(modes) > 1:
            sink(Note("one input is to be downloaded: so are all of them"))
        return "download"
    return "mount" if modes - {""} else None


def _places(job: CommandJob) -> Mapping[str, str]:
    """The lines of values that are looked for later; of what has a path, that of the path."""
    inputs = {f"inputs.{name}": _path_place(job, name) for name in job.inputs}
    outputs = {
        key: job.places.get(f"{key}.path") or job.places.get(key, "")
        for key in (f"outputs.{name}" for name in job.outputs)
    }
    keys = ("compute", "environment", "resources.instance_type", "queue_settings.job_tier")
    return {**{key: job.places.get(key, "") for key in keys}, **inputs, **outputs}


def _path_place(job: CommandJob, name: str) -> str:
    return job.places.get(f"inputs.{name}.path") or job.places.get(f"inputs.{name}", "")


def _at(
    job: CommandJob, place: str, kind: type[SettingsError] | type[UsageError] | type[NotFound]
) -> Callable[..., SettingsError | UsageError | NotFound]:
    """Makes errors that begin with the line of `place`."""
    where = job.places.get(f"{place}.path") or job.places.get(place, "")

    def error(message: str, *, hint: str = "") -> SettingsError | UsageError | NotFound:
        return kind(f"{where}: {message}", hint=hint)

    return error
