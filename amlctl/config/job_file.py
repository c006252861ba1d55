"""A command job YAML of Azure ML, as `az ml job create -f` takes it, once the SDK has checked it.

What only Azure ML reads is kept in the file's own words and reaches the service unchanged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from amlctl.config.environment_file import conda_environment, recorded_text
from amlctl.config.nodes import parse_yaml
from amlctl.config.text_file import TextDocument, read_text
from amlctl.core.environment import DEFAULT_IMAGE, BuildContext, EnvironmentSpec
from amlctl.core.job import placeholders_in
from amlctl.core.message import did_you_mean
from amlctl.core.run import PartialSpec
from amlctl.errors import SettingsError

DOCKERFILE = "Dockerfile"
_NODE_ONLY = ("resources", "queue_settings", "identity", "services", "properties", "parent_job_name")
_VARIABLES = "environment_variables"
_OPTIONAL_PART = re.compile(r"\$\[\[(.*?)\]\]", re.DOTALL)
_LOCAL_ENVIRONMENT = "file:"


def is_job_file(script: str) -> bool:
    return script.lower().endswith((".yml", ".yaml"))


def parse_job_file(path: Path, shown: str) -> TextDocument:
    """`shown` names the file in errors. Raises NotFound, RightsError, SettingsError."""
    file = parse_yaml(read_text(path, shown), shown)
    if not isinstance(file.value, dict):
        raise file.error("not a job", hint="a file with at least command and environment")
    return file


@dataclass(frozen=True)
class CommandJob:
    """What the file says of the run. In `spec` an input with data is `{"path", "type", "mode"}` as written, and an
    environment of a conda file its text alone. `code` is a path as written, `build` an image that Azure ML builds.
    """

    spec: PartialSpec
    code: str | None
    build: BuildContext | None


def read_command_job(file: TextDocument, folder: Path) -> CommandJob:
    """A file in `folder` that the SDK has taken as a command job. Raises SettingsError and NotFound with the line, for
    what the SDK finds only when it submits."""
    value = file.value
    inputs = {name: _input(file, name) for name in value.get("inputs") or {}}
    outputs = {name: _output(file, name) for name in value.get("outputs") or {}}
    command = _OPTIONAL_PART.sub(r"\1", value["command"])
    variables = {name: str(text) for name, text in (value.get(_VARIABLES) or {}).items()}
    _check_names(file)
    _check_places(file, command, variables)
    resources = {**(value.get("resources") or {})}
    instances = _number(resources.get("instance_count"))
    kind, processes, own_distribution = _distribution(value.get("distribution") or {}, instances or 1)
    node = {key: value[key] for key in _NODE_ONLY if value.get(key)}
    if own_distribution:
        node["distribution"] = own_distribution
        instances = None  # those that the service starts by itself are not ours
    else:
        resources.pop("instance_count", None)
    if resources:
        node["resources"] = resources
    else:
        node.pop("resources", None)
    environment, content, build = _environment(file, folder)
    values = {
        "script": file.source,
        "command": command,
        "inputs": inputs,
        "named_outputs": {name: kind for name, (kind, _) in outputs.items()},
        "output_places": {name: place for name, (_, place) in outputs.items() if place},
        "environment": environment,
        "environment_content": content,
        "compute": _compute_name(value.get("compute")),
        "distribution": kind,
        "processes": processes or None,
        "instances": instances or None,
        "timeout_s": _number((value.get("limits") or {}).get("timeout")) or None,
        "variables": variables,
        "name": value.get("display_name") or value.get("name"),
        "experiment": value.get("experiment_name"),
        "description": value.get("description") or "",
        "tags": {name: "" if text is None else text for name, text in (value.get("tags") or {}).items()},
        "node": node,
    }
    lines = {".".join(map(str, place)): file.where(*place) for place in file.lines}
    return CommandJob(PartialSpec(file.source, values, lines), value.get("code"), build)


def _input(file: TextDocument, name: str) -> dict[str, str]:
    value = file.value["inputs"][name]
    if not isinstance(value, dict):
        return {"value": str(value)}
    if "value" in value and "path" not in value:
        return {"value": str(value["value"])}
    path = value.get("path")
    if not path:
        raise file.error(f"the input {name} has no path", "inputs", name, hint="path: ../data_blobs/working")
    return {"path": path, "type": _word(value, "type", "uri_folder"), "mode": _word(value, "mode", "")}


def _output(file: TextDocument, name: str) -> tuple[str, dict[str, str]]:
    """Its type, and where Azure ML has to store it; empty for one in the run's own folder."""
    value = file.value["outputs"][name] or {}
    names = {key: str(value[key]) for key in ("name", "version") if value.get(key) is not None}
    uri, mode = value.get("path") or "", _word(value, "mode", "")
    if uri and "://" not in uri:
        hint = "azureml://datastores/NAME/paths/FOLDER, or leave it out"
        raise file.error(f"the path {uri!r} of an output is not in a datastore", "outputs", name, "path", hint=hint)
    is_stored = bool(uri or names or mode == "direct")
    place = {**({"uri": uri} if uri else {}), "mode": mode or "rw_mount", **names} if is_stored else {}
    return _word(value, "type", "uri_folder"), place


def _distribution(value: Mapping[str, Any], instances: int) -> tuple[str | None, int | None, Mapping[str, Any]]:
    """Kind and processes on each instance, as amlctl starts them itself; else what Azure ML alone can start: Ray, and
    TensorFlow's parameter servers."""
    kind = _word(value, "type", "")
    if kind == "tensorflow":
        workers = _number(value.get("worker_count")) or instances
        if _number(value.get("parameter_server_count")) or workers % instances:
            return kind, None, value
        return kind, workers // instances, {}
    if kind == "ray":
        return None, None, value
    return kind or None, _number(value.get("process_count_per_instance")), {}


def _environment(file: TextDocument, folder: Path) -> tuple[str | None, str | None, BuildContext | None]:
    """The id of an environment that others have made, the text of one with a conda file, or what an image is built
    from."""
    value = file.value.get("environment")
    if isinstance(value, str) and value.startswith(_LOCAL_ENVIRONMENT):
        path = folder / value.removeprefix(_LOCAL_ENVIRONMENT)
        shown = str(Path(file.source).parent / value.removeprefix(_LOCAL_ENVIRONMENT))
        file, folder = parse_yaml(read_text(path, shown), shown), path.parent
        value = file.value
    elif isinstance(value, dict):
        file = file.below("environment")
    if value is None or isinstance(value, str):
        return value, None, None
    if build := value.get("build"):
        where = str(build.get("path") or ".")
        where = where if "://" in where else str((folder / where).absolute())
        return None, None, BuildContext(where, build.get("dockerfile_path") or DOCKERFILE)
    image = value.get("image") or DEFAULT_IMAGE
    if "conda_file" not in value:
        return EnvironmentSpec(image=image, is_bare=True).id, None, None
    conda = value["conda_file"]
    if isinstance(conda, str):
        shown = str(Path(file.source).parent / conda)
        conda_file, folder = parse_yaml(read_text(folder / conda, shown), shown), (folder / conda).parent
    else:
        conda_file = file.below("conda_file")
    spec = replace(conda_environment(conda_file, folder.absolute()), image=image)
    return None, recorded_text(json.dumps({"image": image, "conda_file": conda_file.value}), spec), None


def _check_names(file: TextDocument) -> None:
    """They become variables and folders."""
    for kind in ("inputs", "outputs"):
        for name in file.value.get(kind) or {}:
            if not name.isidentifier():
                raise file.error(f"{name!r} is not a valid name", kind, name, hint="letters, digits and _ only")


def _check_places(file: TextDocument, command: str, variables: Mapping[str, str]) -> None:
    """Everything between `${{` and `}}` names an input or an output."""
    known = {f"{kind}.{name}" for kind in ("inputs", "outputs") for name in file.value.get(kind) or {}}
    texts = [(command, ("command",)), *((text, (_VARIABLES, name)) for name, text in variables.items())]
    for text, place in texts:
        try:
            found = placeholders_in(text)
        except SettingsError as error:
            raise file.error(error.message, *place, hint=error.hint) from error
        for name in found:
            if name not in known:
                hint = did_you_mean(name, known) or "name it in inputs or outputs"
                raise file.error(f"${{{{{name}}}}} stands for nothing", *place, hint=hint)


def _number(value: Any) -> int | None:
    """The SDK takes numbers as text as well."""
    return None if value is None else int(value)


def _word(value: Mapping[str, Any], key: str, default: str) -> str:
    return str(value.get(key) or default).lower()


def _compute_name(text: str | None) -> str | None:
    """`gpu` of `gpu`, `azureml:gpu` and of a resource id."""
    return None if text is None else text.removeprefix("azureml:").rpartition("/")[2]
