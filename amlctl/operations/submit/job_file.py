"""`submit job.yml`: what a job file says of a run, and the hand-over of one that only Azure ML can run."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amlctl.azure_access.azure_ai_ml import check_job
from amlctl.config.environment_file import parse_environment
from amlctl.config.job_file import CommandJob, is_job_file, parse_job_file, read_command_job
from amlctl.config.text_file import TextDocument
from amlctl.core.environment import DEFAULT_IMAGE, EnvironmentSpec, environment_without_file
from amlctl.core.events import EventSink, Note, Warned
from amlctl.core.job import parse_asset
from amlctl.core.run import PartialSpec, RunSpec, at_line
from amlctl.errors import NotFound, SettingsError, UsageError
from amlctl.localfs.code_rules import job_code_rules
from amlctl.localfs.project import IN_PROJECT, INPUTS, Project
from amlctl.operations.compute import SERVERLESS
from amlctl.operations.context import Context
from amlctl.runs.code import Sources as CodeSources
from amlctl.runs.code import collect_context
from amlctl.snapshots.heads import read_head

if TYPE_CHECKING:
    from amlctl.operations.submit.sources import SubmitRequest

_OWN_NAMES = {"inputs": ("store",), "outputs": ("saves", "default")}
"""Of each job that amlctl or Azure ML makes."""
_STORE_FOLDERS = re.compile(r"(?:.*/)?(?:mirror|data_blobs)/")
_NO_FILES: CodeSources = ()
_REMOTE = re.compile(r"azureml:|(?!file:)[a-z][a-z0-9+.-]*://")
_ONLY_FOR_COMMANDS = {
    "--config": "config",
    "--set": "overrides",
    "-- ARGS": "arguments",
    "--dataset": "datasets",
    "--produces": "produces",
    "--register": "register",
    "--env": "variables",
    "--secret": "secrets",
    "--from": "from_run",
    "--env-from": "environment",
    "--compute": "compute",
    "--mode": "mode",
    "--distribution": "distribution",
    "--processes": "processes",
    "--instances": "instances",
    "--timeout": "timeout_s",
}


@dataclass(frozen=True)
class JobFile:
    """One that the SDK has accepted; `kind` is `command`, `sweep` or `pipeline`, say."""

    path: Path
    document: TextDocument
    kind: str

    @property
    def source(self) -> str:
        return self.document.source

    def only_remote(self) -> SettingsError:
        return self.document.error(
            f"a job of type {self.kind} runs on Azure ML only", "type", hint="submit it in a cloud workspace"
        )


@dataclass(frozen=True)
class JobSource:
    """What a command job says. `code` becomes the run's `pipeline/` (None: the project's own, if it has one), and
    `image_context` is what its image is built from. `environment` is None for the project's own. `links` are datasets
    outside the project, and where they are on this disk.
    """

    spec: PartialSpec
    code: Path | None
    environment: EnvironmentSpec | None
    image_context: CodeSources = ()
    links: Mapping[str, Path] = field(default_factory=dict)


def find_job_file(request: SubmitRequest, project: Project) -> JobFile | None:
    """None for a script. Raises NotFound, RightsError, SettingsError with the line."""
    if not is_job_file(request.script):
        return None
    for base in (request.cwd, project.root, project.pipeline_dir):
        path = project.own_path(request.script, base)
        if path.is_file():
            break
    else:
        raise NotFound(f"job file {request.script} not found", hint="a path from here, or from the project's folder")
    source = path.relative_to(project.root).as_posix() if path.is_relative_to(project.root) else path.name
    document = parse_job_file(path, source)
    return JobFile(path, document, check_job(document, path))


def read_job(context: Context, request: SubmitRequest, file: JobFile) -> JobSource:
    """Of a command job. Raises UsageError, NotFound, SettingsError."""
    typed = request.spec
    for given, option in (
        (typed.get("config"), "--config"), (request.overrides, "--set"), (typed.get("arguments"), "-- ARGS")
    ):  # fmt: skip
        if given:
            raise UsageError(
                f"{option} is for scripts; a job file has its whole command", hint="edit the command in the file"
            )
    if file.kind != "command":
        raise file.only_remote()
    return _Reader(context, file, read_command_job(file.document, file.path.parent)).read(request)


class _Reader:
    """One command job on the way to a partial spec."""

    def __init__(self, context: Context, file: JobFile, job: CommandJob) -> None:
        self._context = context
        self._project, self._sink = context.project, context.sink
        self._file = file
        self._folder = file.path.parent
        self._job = job
        self._lines = job.spec.lines
        self._is_local = context.settings.workspace().runs_here
        self._links: dict[str, Path] = {}

    def read(self, request: SubmitRequest) -> JobSource:
        values = self._job.spec.values
        wanted: Mapping[str, Mapping[str, str]] = values["inputs"]
        inputs = {}
        for name, one in wanted.items():
            with self._at(f"inputs.{name}"):
                inputs[name] = self._input(name, one)
        places: Mapping[str, Mapping[str, str]] = values["output_places"]
        reserved = [("inputs", name) for name, one in inputs.items() if "asset" in one]
        for kind, name in [*reserved, *(("outputs", name) for name in places)]:
            if name in _OWN_NAMES[kind]:
                with self._at(f"{kind}.{name}"):
                    raise SettingsError(f"{name} is reserved for amlctl in {kind}", hint="give it another name")
        compute = values["compute"]
        if self._is_local:
            self._warn_of_node_settings(values, places)
            compute = None
        elif not compute and request.spec.get("compute") is None:
            note = f"{self._file.source} names no compute: using serverless, as Azure ML does; or use --compute NAME"
            self._sink(Note(note))
            compute = SERVERLESS
        environment, image_context = (None, ()) if request.spec.get("environment") else self._environment()
        datasets = {one["dataset"]: "" for one in inputs.values() if "dataset" in one}
        modes = {wanted[name].get("mode", "") for name, one in inputs.items() if "dataset" in one}
        spec = {
            **values,
            "inputs": inputs,
            "datasets": datasets,
            "mode": self._mode(modes),
            "compute": compute,
            "environment": None if environment is None else environment.id,
        }
        lines = {**self._lines, **{f"inputs.{name}": self._line(f"inputs.{name}") for name in inputs}}
        lines.update((f"outputs.{name}", self._line(f"outputs.{name}")) for name in values["named_outputs"])
        source = PartialSpec(self._file.source, spec, lines)
        return JobSource(source, self._code(), environment, image_context, self._links)

    def _line(self, place: str) -> str:
        """Of what has a path, that of the path."""
        return self._lines.get(f"{place}.path") or self._lines.get(place, "")

    def _at(self, place: str) -> AbstractContextManager[None]:
        return at_line(self._line(place))

    def _warn_of_node_settings(self, values: Mapping[str, Any], places: Mapping[str, Mapping[str, str]]) -> None:
        node = values["node"]
        resources = [f"resources.{key}" for key in node.get("resources", ()) if key != "instance_count"]
        for key in [*resources, *(key for key in node if key != "resources")]:
            self._sink(Warned(f"{self._lines.get(key, '')}: {key} has no effect on this machine, only on Azure ML"))
        for name, place in places.items():
            where = place.get("uri") or f"the asset {place.get('name', '')}".rstrip()
            line = self._lines.get(f"outputs.{name}", "")
            self._sink(Warned(f"{line}: output {name} stays in the run's outputs/, not {where}"))
        if values["compute"] not in (None, "local"):
            self._sink(Note(f"compute {values['compute']} is in Azure ML; running on this machine"))

    def _code(self) -> Path | None:
        code = self._job.code
        if code is None:
            return self._project.pipeline_dir if self._project.pipeline_dir.is_dir() else None
        if _REMOTE.match(code) or code.startswith("git+"):
            with self._at("code"):
                raise SettingsError(
                    f"code {code!r} is not on this machine", hint="clone or download it, and name the folder"
                )
        return self._project.own_path(code, self._folder)

    def _environment(self) -> tuple[EnvironmentSpec | None, CodeSources]:
        build, values = self._job.build, self._job.spec.values
        if build is not None:
            where, context = build.path, _NO_FILES
            if "://" not in where:
                folder = Path(where)
                where, context = collect_context(folder, job_code_rules(self._project, folder), sink=self._sink)
            return EnvironmentSpec(build=f"{where}#{build.dockerfile}"), context
        if values["environment"] is not None:
            return environment_without_file(values["environment"]) or EnvironmentSpec(), ()
        if values["environment_content"] is None:
            return None, ()
        spec = parse_environment(values["environment_content"], self._file.source)
        if self._is_local and spec.image != DEFAULT_IMAGE:
            self._sink(
                Warned(
                    f"{self._lines['environment']}: the image {spec.image} is not used on this machine, only the conda "
                    "file: what else the image contains is missing here"
                )
            )
        return replace(spec, source=self._file.source, places={}), ()  # the text has no lines of a file any more

    def _input(self, name: str, one: Mapping[str, str]) -> dict[str, str]:
        if "value" in one:
            return dict(one)
        path, kind = one["path"], one["type"]
        if _REMOTE.match(path):
            dataset = _dataset_of_address(path)
            here = self._project.dataset_path(dataset)
            if not dataset or not (here.exists() or read_head(self._context.store, dataset) is not None):
                if path.startswith("azureml:") and "/" not in path and parse_asset(path) is None:
                    what = f"{path} is not a dataset of this project"
                    raise NotFound(what, hint="azureml:NAME:VERSION or azureml:NAME@latest")
                return {"asset": path, "type": kind, "mode": one["mode"]}
            self._sink(Note(f"input {name}: using data_blobs/{dataset} for {path}"))
        else:
            dataset, here = self._local_dataset(path)
        is_file = kind == "uri_file"
        if kind in ("uri_file", "uri_folder") and here.exists() and here.is_file() != is_file:
            hint = f"type: {'uri_folder' if is_file else 'uri_file'}"
            raise UsageError(f"{path} is not a {'file' if is_file else 'folder'}", hint=hint)
        return {"dataset": dataset, "type": kind}

    def _local_dataset(self, text: str) -> tuple[str, Path]:
        """What a path of this machine means: a dataset, wherever it is."""
        path = self._project.own_path(re.sub("^file:(?://)?", "", text), self._folder)
        with suppress(UsageError):
            return self._project.dataset_name(str(path), self._folder), path
        if not path.exists():
            raise NotFound(f"{text} not found", hint=f"it is relative to the job file: {path}")
        if path.is_relative_to(self._project.root):
            return f"{IN_PROJECT}/{path.relative_to(self._project.root).as_posix()}", path
        dataset = f"{INPUTS}/{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}/{path.name}"
        self._links[dataset] = path
        return dataset, path

    def _mode(self, modes: set[str]) -> str | None:
        """Of all datasets, from what their inputs ask for."""
        modes = {mode.removeprefix("eval_").removeprefix("ro_") for mode in modes}
        if "download" in modes:
            if len(modes) > 1:
                self._sink(Note("one input has mode download, so all inputs are downloaded"))
            return "download"
        return "mount" if modes - {""} else None


def _dataset_of_address(path: str) -> str:
    """The dataset that a path in the cloud would be: `working/x` of `azureml://datastores/NAME/paths/working/x` and
    `…/mirror/working/x`, NAME of `azureml:NAME@latest`. Empty for anything else."""
    if path.startswith("azureml://"):
        before, _, below = path.partition("/paths/")
        dataset = _STORE_FOLDERS.sub("", below, count=1).strip("/")
        return "" if "/datastores/" not in before or ".." in dataset.split("/") else dataset
    name = path.removeprefix("azureml:").removesuffix("@latest")
    return name if path.startswith("azureml:") and name and not any(sign in name for sign in ":@/") else ""


def warn_of_serverless_settings(spec: RunSpec, lines: Mapping[str, str], sink: EventSink) -> None:
    """Azure ML accepts such a job, and ignores them."""
    for group, key in (("resources", "instance_type"), ("queue_settings", "job_tier")):
        if spec.compute != SERVERLESS and (spec.node.get(group) or {}).get(key):
            where = lines.get(f"{group}.{key}", "")
            message = f"{group}.{key} works with compute serverless only, not with {spec.compute}"
            sink(Warned(f"{where}: {message}" if where else message))


def handed_over(context: Context, file: JobFile, request: SubmitRequest) -> RunSpec:
    """A sweep or pipeline goes to Azure ML as it is; its code and data are sent by the SDK. Raises UsageError."""
    for option, name in _ONLY_FOR_COMMANDS.items():
        if request.spec.get(name, getattr(request, name, None)):
            raise UsageError(f"{option} is not for a job of type {file.kind}", hint=f"set it in {file.source}")
    value, typed = file.document.value, request.spec
    name = typed.get("name") or str(value.get("display_name") or value.get("name") or file.path.stem)
    return RunSpec(
        script=file.source,
        name=name,
        job_type=file.kind,
        experiment=typed.get("experiment") or str(value.get("experiment_name") or context.settings.experiment),
        description=str(value.get("description") or ""),
        compute=str(value.get("compute") or SERVERLESS).removeprefix("azureml:").rpartition("/")[2],
        workspace=context.workspace.name,
        tags=dict(typed.get("tags") or {}),
    )
