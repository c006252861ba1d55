"""`submit job.yml`: what a job file asks for, as if it had been typed, and what it runs instead of a script."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from amlctl.config.conda_file import parse_environment
from amlctl.config.job_file import read_job
from amlctl.core.asset import is_address, is_registry_environment, parse_asset
from amlctl.core.environment import EnvironmentSpec, environment_without_file
from amlctl.core.events import EventSink, Note, Warned
from amlctl.core.hidden_values import Hider
from amlctl.core.job import CommandJob, JobCommand, JobInput
from amlctl.errors import NotFound, SettingsError, UsageError
from amlctl.localfs.project import Project
from amlctl.operations.submit_request import SubmitRequest
from amlctl.stores.contract import Store
from amlctl.transfer.heads import read_head

_OWN_INPUTS = ("store",)
"""Of each job that amlctl makes."""
_STORE_FOLDERS = re.compile(r"(?:.*/)?(?:mirror|data_blobs)/")


@dataclass(frozen=True)
class JobPlan:
    """`source` is the file as shown, `code_dir` the folder that becomes the run's `pipeline/`.

    `environment` is None for the project's own; its text is None for a registered one. `compute` is a wish, as that of
    a script's inline block. `places` tells the line of `compute`, `environment`, `inputs.NAME`, `outputs.NAME` and what
    is asked of nodes, and `dataset_places` those of datasets.
    """

    source: str
    command: JobCommand
    code_dir: Path
    environment: tuple[EnvironmentSpec, str | None] | None
    compute: str | None
    places: Mapping[str, str]
    dataset_places: Mapping[str, str]
    description: str
    node: Mapping[str, Mapping[str, Any]]


def read_job_request(
    request: SubmitRequest, project: Project, store: Store, sink: EventSink, *, is_local: bool
) -> tuple[SubmitRequest, JobPlan]:
    """The request with what the file says and nobody has typed. Raises UsageError, NotFound, SettingsError."""
    for given, option in ((request.config, "--config"), (request.overrides, "--set"), (request.arguments, "-- ARGS")):
        if given:
            raise UsageError(
                f"{option} goes to a script, and a job file has its whole command", hint="edit the command"
            )
    path = _find(request, project)
    source = path.relative_to(project.root).as_posix() if path.is_relative_to(project.root) else path.name
    job = read_job(path, source)
    _tell_node_only(job, sink, is_local=is_local)
    inputs: dict[str, dict[str, str]] = {}
    for name, one in job.inputs.items():
        if one.value is not None:
            inputs[name] = {"value": one.value}
        elif asset := _asset(job, name, one, project, store):
            inputs[name] = {"asset": asset, "type": one.type, "mode": one.mode or "ro_mount"}
        else:
            inputs[name] = {"dataset": _dataset(job, name, one, path.parent, project, sink)}
    datasets = {name: one["dataset"] for name, one in inputs.items() if "dataset" in one}
    plan = JobPlan(
        source,
        JobCommand(job.command, inputs, job.outputs, job.output_places),
        _code_dir(job, path.parent, project),
        _environment(job, request, source, sink, is_local=is_local),
        job.compute,
        _places(job),
        {dataset: _path_place(job, name) for name, dataset in datasets.items()},
        job.description,
        job.node,
    )
    if is_local and job.compute not in (None, "local") and request.compute is None:
        sink(Note(f"compute {job.compute} is of Azure ML; the run is made here"))
    named = [str(project.dataset_path(dataset)) for dataset in datasets.values()]
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
        name=request.name or job.display_name,
    )
    return filled, plan


@contextmanager
def told_at(place: str) -> Iterator[None]:
    """What is wrong with a value is told with the line of it; `place` is empty where it stands in no job file."""
    try:
        yield
    except (NotFound, SettingsError, UsageError) as error:
        if not place:
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
    raise NotFound(f"there is no job file {request.script}", hint="a path from here, or from the project's folder")


def _tell_node_only(job: CommandJob, sink: EventSink, *, is_local: bool) -> None:
    for place in () if is_local else job.unsupported:
        where, _, key = place.rpartition(": ")
        raise SettingsError(f"{where}: {key} is not supported", hint="leave it out")
    for place in job.node_only if is_local else ():
        sink(Warned(f"{place} speaks of Azure ML's nodes, and means nothing on this machine"))


def _code_dir(job: CommandJob, folder: Path, project: Project) -> Path:
    if job.code is None:
        return project.pipeline_dir
    path = Path(os.path.abspath(folder / os.path.expanduser(job.code)))
    if not path.is_dir():
        what = "is a file; a folder is needed" if path.exists() else "is not there"
        kind = UsageError if path.exists() else NotFound
        raise _at(job, "code", kind)(f"code {job.code} {what}", hint=f"it is relative to the job file: {path}")
    return path


def _environment(
    job: CommandJob, request: SubmitRequest, source: str, sink: EventSink, *, is_local: bool
) -> tuple[EnvironmentSpec, str | None] | None:
    if request.env_from_current:
        return None
    if job.environment_name is not None:
        spec = environment_without_file(job.environment_name)
        if spec is None or (spec.registered and not _is_known_form(spec.registered)):
            raise _at(job, "environment", SettingsError)(
                f"the environment {job.environment_name} is not supported",
                hint="azureml:NAME:VERSION, azureml:NAME@latest, "
                "azureml://registries/REGISTRY/environments/NAME/versions/VERSION, or image and conda_file",
            )
        return spec, None
    if job.environment is None:
        return None
    spec = parse_environment(job.environment, source)
    if is_local:
        sink(Note(f"the image {spec.image} is not used on this machine; the conda file is"))
    return replace(spec, source=source, places={}), job.environment  # the text is not that of a file any more


def _is_known_form(name: str) -> bool:
    return parse_asset(name) is not None or is_registry_environment(name)


def _dataset(job: CommandJob, name: str, one: JobInput, folder: Path, project: Project, sink: EventSink) -> str:
    """The dataset that an input's path means."""
    place = f"inputs.{name}"
    if one.path.startswith("azureml:"):
        dataset = _named_dataset(job, place, one.path)
        sink(Note(f"input {name}: {one.path} is taken as data_blobs/{dataset}"))
        path = project.dataset_path(dataset)
    else:
        if "://" in one.path and not one.path.startswith("file://"):
            raise _at(job, place, SettingsError)(
                f"the address {one.path} is not supported", hint="bring it below data_blobs/, and name that"
            )
        path = Path(os.path.abspath(folder / os.path.expanduser(one.path.removeprefix("file://"))))
        try:
            dataset = project.dataset_name(str(path), folder)
        except UsageError as error:
            raise _at(job, place, UsageError)(
                f"{one.path} does not lie below data_blobs/, from where a run gets its data", hint=error.hint
            ) from error
    is_file = one.type == "uri_file"
    if path.exists() and path.is_file() != is_file and one.type in ("uri_file", "uri_folder"):
        raise _at(job, place, UsageError)(f"{one.path} is no {'file' if is_file else 'folder'}", hint="see its type")
    return dataset


def _asset(job: CommandJob, name: str, one: JobInput, project: Project, store: Store) -> str:
    """Registered data, or an address; empty for a dataset, as is the latest of a name that `data_blobs/` or the store
    has.
    """
    asset = parse_asset(one.path)
    if asset is None and not is_address(one.path):
        return ""
    if asset is not None and not asset.version:
        is_dataset = project.dataset_path(asset.name).exists() or read_head(store, asset.name) is not None
        if is_dataset:
            return ""
    if one.type not in ("uri_file", "uri_folder"):
        raise _at(job, f"inputs.{name}", SettingsError)(
            f"data of type {one.type} is not supported, unless it is a dataset", hint="type: uri_file or uri_folder"
        )
    if name in _OWN_INPUTS:
        raise _at(job, f"inputs.{name}", SettingsError)(
            f"an input named {name} has to be a dataset", hint="give it another name"
        )
    return one.path


def _named_dataset(job: CommandJob, place: str, path: str) -> str:
    """`working/x` of `azureml://datastores/NAME/paths/working/x`, `…/mirror/working/x`, and `azureml:NAME@latest`."""
    error = _at(job, place, SettingsError)
    if path.startswith("azureml://"):
        before, found, below = path.partition("/paths/")
        dataset = _STORE_FOLDERS.sub("", below, count=1).strip("/")
        if not found or "/datastores/" not in before or not dataset or ".." in dataset.split("/"):
            raise error(f"{path} is not supported", hint="azureml://datastores/NAME/paths/FOLDER of data_blobs/")
        return dataset
    name = path.removeprefix("azureml:").removesuffix("@latest")
    if not name or any(sign in name for sign in ":@/"):
        raise error(f"{path} is not supported", hint="azureml:NAME:VERSION, azureml:NAME@latest, or a path")
    return name


def _mode(modes: set[str], sink: EventSink) -> str | None:
    """Of all datasets, from those that their inputs ask for."""
    if "download" in modes and len(modes) > 1:
        sink(Note("one input is to be downloaded: so are all of them"))
    return "download" if "download" in modes else "mount" if "ro_mount" in modes else None


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

    def error(message: str, *, hint: str = "") -> SettingsError | UsageError | NotFound:
        return kind(f"{job.places.get(place, '')}: {message}", hint=hint)

    return error
