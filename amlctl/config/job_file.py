"""A command job YAML of Azure ML: what `az ml job create -f` takes.

Every key of the schema is known here: it is read, or named in an error, or kept in `node_only` where it speaks of
Azure ML's nodes alone. A test compares the keys with the SDK's schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from amlctl.config.conda_file import conda_environment, recorded_text
from amlctl.config.text_file import read_text
from amlctl.config.yaml_file import Place, YamlDocument, parse_yaml
from amlctl.core.distribution import DISTRIBUTIONS
from amlctl.core.environment import DEFAULT_IMAGE, EnvironmentSpec
from amlctl.core.job import CommandJob, JobInput, places_in
from amlctl.core.settings import did_you_mean
from amlctl.errors import NotFound, SettingsError

_T = TypeVar("_T")

_KEYS = (
    *("$schema", "type", "command", "code", "environment", "environment_variables", "inputs", "outputs", "compute"),
    *("distribution", "resources", "limits", "display_name", "experiment_name", "description", "tags"),
)
_NODE_ONLY = ("services", "identity", "queue_settings")
_NODE_ONLY_RESOURCES = ("instance_type", "shm_size", "docker_args", "locations", "max_instance_count", "properties")
_TIERS = ("spot", "basic", "standard", "premium")
_IDENTITIES = ("user_identity", "aml_token", "managed_identity", "managed")
_REFUSED = {
    "name": ("amlctl gives every run an id of its own", "display_name: it is the beginning of the id"),
    "properties": ("properties are kept by amlctl itself", "use tags"),
    "parent_job_name": ("a run has no parent", "submit it by itself"),
}
_FOLDERS = ("uri_folder", "mltable", "custom_model", "mlflow_model", "triton_model")
_TYPES = ("uri_file", *_FOLDERS)
_DATASTORE_PATH = re.compile(r"azureml://(?:.*/)?datastores/[^/]+/paths/.+")
_IMAGE = re.compile(r"[\w.-]+(?:[/:@][\w.-]+)*")
_OWN_OUTPUTS = ("saves", "default")
"""Of each job that amlctl or Azure ML makes."""
_INPUT_MODES = ("ro_mount", "download")
_OUTPUT_MODES = ("rw_mount", "mount", "upload")


def is_job_file(script: str) -> bool:
    return script.lower().endswith((".yml", ".yaml"))


def read_job(path: Path, shown: str) -> CommandJob:
    """`shown` names the file in errors. Raises NotFound, RightsError, SettingsError naming file, line and key."""
    file = parse_yaml(read_text(path, shown), shown)
    if not isinstance(file.value, dict):
        raise file.error("no job", hint="a file with at least command and environment")
    return _Reader(file, path.parent).job()


class _Reader:
    def __init__(self, file: YamlDocument, folder: Path) -> None:
        self._file = file
        self._folder = folder
        self._node_only: list[str] = []
        self._unsupported: list[str] = []

    def job(self) -> CommandJob:
        self._check_kind()
        for key in self._file.value:
            if key in _REFUSED:
                why, instead = _REFUSED[key]
                raise self._file.error(f"{key} is not supported: {why}", key, hint=instead)
            if key in _NODE_ONLY:
                self._node_only.append(f"{self._at(key)}: {key}")
                if key == "services":
                    self._unsupported.append(self._node_only[-1])
            elif key not in _KEYS:
                raise self._unknown(key, (*_KEYS, *_NODE_ONLY))
        environment, environment_name = self._environment()
        inputs = {name: self._input(name) for name in self._mapping("inputs")}
        outputs = {name: self._output(name) for name in self._mapping("outputs")}
        output_places = {name: place for name in outputs if (place := self._output_place(name))}
        resources = self._resources()
        instances = self._whole(resources, "resources", "instance_count")
        kind, processes = self._distribution(instances or 1)
        limits = self._known("limits", ("timeout",))
        job = CommandJob(
            command=self._needed_text("command"),
            code=self._text("code"),
            environment=environment,
            environment_name=environment_name,
            inputs=inputs,
            outputs=outputs,
            output_places=output_places,
            compute=_compute_name(self._text("compute")),
            distribution=kind,
            processes=processes,
            instances=instances,
            timeout_s=self._whole(limits, "limits", "timeout"),
            variables={name: self._literal("environment_variables", name) for name in self._mapping(_VARIABLES)},
            display_name=self._text("display_name"),
            experiment=self._text("experiment_name"),
            description=self._text("description") or "",
            tags={name: self._literal("tags", name) for name in self._mapping("tags")},
            node=self._node(resources),
            node_only=tuple(self._node_only),
            unsupported=tuple(self._unsupported),
            places={".".join(map(str, place)): self._at(*place) for place in self._file.lines},
        )
        self._check_code(job.code)
        self._check_places(job)
        return job

    def _check_kind(self) -> None:
        schema = str(self._file.value.get("$schema") or "").rpartition("/")[2]
        if schema and schema.lower() != "commandjob.schema.json":
            raise self._file.error(f"{schema} is not supported: only command jobs are", "$schema")
        kind = self._file.value.get("type", "command")
        if kind != "command":
            raise self._file.error(f"a job of type {kind!r} is not supported", "type", hint="only type: command is")

    def _check_code(self, code: str | None) -> None:
        if code is not None and (code.startswith(("azureml:", "git+")) or "://" in code):
            raise self._file.error(
                f"code {code!r} is no folder of this machine", "code", hint="for example code: ./src"
            )

    def _check_places(self, job: CommandJob) -> None:
        """Everything between `${{` and `}}` stands for something."""
        if "$[[" in job.command:
            raise self._file.error("$[[ ]] is not supported: a job's inputs are all there", "command")
        known = {*(f"inputs.{name}" for name in job.inputs), *(f"outputs.{name}" for name in job.outputs)}
        texts = [(job.command, ("command",)), *((text, (_VARIABLES, name)) for name, text in job.variables.items())]
        for text, place in texts:
            for name in self._placed(partial(places_in, text), *place):
                if name not in known:
                    hint = did_you_mean(name, known) or "name it in inputs or outputs"
                    raise self._file.error(f"${{{{{name}}}}} stands for nothing", *place, hint=hint)

    def _input(self, name: str) -> JobInput:
        value = self._file.value["inputs"][name]
        self._check_name(name, "inputs")
        if not isinstance(value, dict):
            return JobInput(value=self._literal("inputs", name))
        place = ("inputs", name)
        if "value" in value and "path" not in value:
            self._keys(value, ("value",), *place)
            return JobInput(value=self._literal(*place, "value"))
        for key in ("path_on_compute", "datastore"):
            if key in value:
                raise self._file.error(f"{key} is not supported", *place, key, hint="only path is")
        self._keys(value, ("type", "path", "mode"), *place)
        path = value.get("path")
        if not isinstance(path, str) or not path:
            raise self._file.error(f"the input {name} has no path", *place, "path", hint="path: ../data_blobs/working")
        kind = self._one_of(value, "type", _TYPES, "uri_folder", *place)
        return JobInput(path=path, type=kind, mode=self._one_of(value, "mode", _INPUT_MODES, "", *place))

    def _output(self, name: str) -> str:
        value = self._file.value["outputs"][name]
        self._check_name(name, "outputs")
        place = ("outputs", name)
        if value is None:
            return "uri_folder"
        if not isinstance(value, dict):
            raise self._file.error(f"the output {name} has no keys", *place, hint="type: uri_folder")
        for key in ("name", "version"):
            if key in value:
                what = "what a run writes is not registered as data"
                raise self._file.error(f"{key} of an output is not supported: {what}", *place, key, hint="leave it out")
        self._keys(value, ("type", "path", "mode"), *place)
        self._one_of(value, "mode", _OUTPUT_MODES, "", *place)
        return "uri_file" if self._one_of(value, "type", _TYPES, "", *place) == "uri_file" else "uri_folder"

    def _output_place(self, name: str) -> dict[str, str]:
        """Where an output goes that does not stay with the run; empty for one that does."""
        value = self._file.value["outputs"][name] or {}
        uri, place = value.get("path"), ("outputs", name)
        if uri is None:
            return {}
        if name in _OWN_OUTPUTS:
            raise self._file.error(f"an output named {name} cannot have a path", *place, hint="give it another name")
        if not isinstance(uri, str) or _DATASTORE_PATH.fullmatch(uri) is None:
            told = f"the path {uri!r} of an output is not supported"
            raise self._file.error(told, *place, "path", hint="azureml://datastores/NAME/paths/FOLDER, or leave it out")
        return {"uri": uri, "mode": self._one_of(value, "mode", _OUTPUT_MODES, "rw_mount", *place)}

    def _environment(self) -> tuple[str | None, str | None]:
        """An environment as text for `parse_environment`, or the id of one that others have made."""
        value = self._file.value.get("environment")
        if value is None:
            return None, None
        if isinstance(value, str):
            return None, value
        known = ("image", "conda_file", "name", "version", "description", "tags", "os_type")
        for key in ("build", "inference_config", "datastore", "properties", "path"):
            if isinstance(value, dict) and key in value:
                raise self._file.error(f"{key} of an environment is not supported", "environment", key, hint=_CONDA)
        document = self._known("environment", known)
        if str(document.get("os_type") or "linux").lower() != "linux":
            raise self._file.error("os_type is not supported: only linux is", "environment", "os_type")
        if "conda_file" not in document:
            return None, EnvironmentSpec(image=self._image(document), is_bare=True).id
        conda, folder = document["conda_file"], self._folder
        if isinstance(conda, str):
            folder = (folder / conda).parent
            shown = f"{Path(self._file.source).parent / conda}"
            file = self._placed(
                lambda: parse_yaml(read_text(self._folder / conda, shown), shown), "environment", "conda_file"
            )
        else:
            file = self._file.below("environment", "conda_file")
        image = document.get("image") or DEFAULT_IMAGE
        spec = replace(conda_environment(file, folder.absolute()), image=image)  # its errors name their own file
        return recorded_text(json.dumps({"image": image, "conda_file": file.value}), spec), None

    def _image(self, environment: Mapping[str, Any]) -> str:
        image = environment.get("image")
        if not isinstance(image, str) or not _IMAGE.fullmatch(image):
            raise self._file.error(f"{image!r} is no image", "environment", "image", hint=_CONDA)
        return image

    def _resources(self) -> Mapping[str, Any]:
        resources = self._known("resources", ("instance_count", *_NODE_ONLY_RESOURCES))
        for key in _NODE_ONLY_RESOURCES:
            if resources.get(key):
                self._node_only.append(f"{self._at('resources', key)}: resources.{key}")
        return resources

    def _node(self, resources: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
        queue = self._known("queue_settings", ("job_tier",))
        tier = self._one_of(queue, "job_tier", _TIERS, "", "queue_settings")
        who = self._known("identity", ("type", "client_id", "object_id", "msi_resource_id"))
        if who and not self._one_of(who, "type", _IDENTITIES, "", "identity"):
            raise self._file.error("the identity has no type", "identity", hint=f"one of {', '.join(_IDENTITIES)}")
        size = resources.get("instance_type")
        if size is not None and not isinstance(size, str):
            raise self._file.error("instance_type has to be one text", "resources", "instance_type")
        wanted = {
            "resources": {key: resources[key] for key in _NODE_ONLY_RESOURCES if resources.get(key)},
            "queue_settings": {"job_tier": tier} if tier else {},
            "identity": {key: value for key, value in who.items() if value},
        }
        return {name: value for name, value in wanted.items() if value}

    def _distribution(self, instances: int) -> tuple[str | None, int | None]:
        value = self._mapping("distribution")
        if not value:
            return None, None
        place = ("distribution",)
        kind = self._one_of(value, "type", DISTRIBUTIONS, "", *place)
        if not kind:
            raise self._file.error("the distribution has no type", *place, hint=f"one of {', '.join(DISTRIBUTIONS)}")
        if kind != "tensorflow":
            self._keys(value, ("type", "process_count_per_instance"), *place)
            return kind, self._whole(value, "distribution", "process_count_per_instance")
        self._keys(value, ("type", "worker_count", "parameter_server_count"), *place)
        if value.get("parameter_server_count"):
            raise self._file.error("parameter servers are not supported", *place, "parameter_server_count")
        workers = self._whole(value, "distribution", "worker_count") or instances
        if workers % instances:
            told = f"{workers} workers cannot be shared out evenly among {instances} instances"
            raise self._file.error(told, *place, "worker_count")
        return kind, workers // instances

    def _known(self, key: str, known: tuple[str, ...]) -> Mapping[str, Any]:
        value = self._mapping(key)
        self._keys(value, known, key)
        return value

    def _mapping(self, key: str) -> Mapping[str, Any]:
        value = self._file.value.get(key)
        if value is not None and not isinstance(value, dict):
            raise self._file.error(f"{key} needs keys of its own", key)
        return value or {}

    def _keys(self, value: Mapping[str, Any], known: tuple[str, ...], *place: str) -> None:
        for key in value:
            if key not in known:
                raise self._unknown(key, known, *place)

    def _unknown(self, key: str, known: tuple[str, ...], *place: str) -> SettingsError:
        where = f" in {'.'.join(place)}" if place else ""
        hint = did_you_mean(key, known) or f"the keys are {', '.join(sorted(known))}"
        return self._file.error(f"{key!r} is not supported{where}", *place, key, hint=hint)

    def _one_of(self, value: Mapping[str, Any], key: str, known: tuple[str, ...], default: str, *place: str) -> str:
        found = value.get(key)
        if found is None:
            return default
        folded = str(found).lower()
        if folded not in known:
            told = f"{key} {found!r} is not supported"
            raise self._file.error(told, *place, key, hint=f"one of {', '.join(known)}")
        return folded

    def _whole(self, value: Mapping[str, Any], *place: str) -> int | None:
        found = value.get(place[-1])
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, int) or found < 1:
            raise self._file.error(f"{place[-1]} has to be a whole number from 1 on", *place)
        return found

    def _text(self, key: str) -> str | None:
        value = self._file.value.get(key)
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise self._file.error(f"{key} has to be a text", key)
        return value

    def _needed_text(self, key: str) -> str:
        value = self._text(key)
        if value is None:
            raise self._file.error(f"the job has no {key}", hint=f"{key}: python train.py")
        return value

    def _literal(self, *place: str) -> str:
        """Written as Azure ML writes it: a number as it is read, `True` and `False`."""
        value = self._file.value
        for key in place:
            value = value[key]
        if not isinstance(value, (str, int, float)):
            raise self._file.error(f"{place[-1]} has to be a text, a number, or true or false", *place)
        return str(value)

    def _check_name(self, name: str, kind: str) -> None:
        if not name.isidentifier():
            raise self._file.error(f"{name!r} is no name", kind, name, hint="letters, digits and _ only")

    def _placed(self, action: Callable[[], _T], *place: str) -> _T:
        """What an action without a line of its own raises is told with the line of `place`."""
        try:
            return action()
        except NotFound as error:
            raise NotFound(f"{self._at(*place)}: {error.message}", hint=error.hint) from error
        except SettingsError as error:
            if error.message.startswith(self._file.source):
                raise
            raise self._file.error(error.message, *place, hint=error.hint) from error

    def _at(self, *place: str | int) -> str:
        known: Place = place
        return f"{self._file.source}:{self._file.lines.get(known, 1)}"


_VARIABLES = "environment_variables"
_CONDA = "image and conda_file, or --env-from current"


def _compute_name(text: str | None) -> str | None:
    """`gpu` of `gpu`, `azureml:gpu` and of a resource id."""
    return None if text is None else text.removeprefix("azureml:").rpartition("/")[2]
