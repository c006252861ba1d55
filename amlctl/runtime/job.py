"""The command of a job file on its node: in the folder of its code, with inputs and outputs in their places."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from amlctl.core.hidden_values import filled
from amlctl.core.job import KEPT_PATH, command_line, filled_in
from amlctl.core.run import RunRecord
from amlctl.errors import SettingsError
from amlctl.localfs.dispensable import link_to
from amlctl.runtime.script import NodeFolders, place_variables

_SHELLS = ("/bin/bash", "/bin/sh")


@dataclass(frozen=True)
class ReadyJob:
    """What is started, and with which variables."""

    command: list[str]
    variables: dict[str, str]


def prepare_job(
    record: RunRecord,
    folders: NodeFolders,
    variables: Mapping[str, str],
    secrets: Mapping[str, str],
    given: Mapping[str, str],
) -> ReadyJob:
    """Makes the folders of its outputs, and `./outputs`, where a job on Azure ML finds it.

    `given` are paths of inputs and outputs that the node has by itself, by `outputs.model`, say.
    Raises SettingsError, OSError.
    """
    spec = record.spec
    values = {f"inputs.{name}": filled(one["value"], secrets) for name, one in spec.inputs.items() if "value" in one}
    paths = {
        f"inputs.{name}": str(folders.data_blobs_dir / one["dataset"])
        for name, one in spec.inputs.items()
        if "dataset" in one
    }
    for name, kind in spec.named_outputs.items():
        if f"outputs.{name}" in given:
            continue
        path = folders.outputs_dir / name
        if kind == "uri_folder":
            path.mkdir(parents=True, exist_ok=True)
        paths[f"outputs.{name}"] = str(path)
    paths.update(given)
    folders.pipeline_dir.mkdir(exist_ok=True)
    link = folders.pipeline_dir / "outputs"
    with suppress(FileExistsError):  # another process of the node, or an earlier attempt
        if not link_to(link, folders.outputs_dir):
            raise SettingsError(
                "the node's disk has no symbolic links, so ./outputs of the job's code cannot be kept",
                hint="write to the folder that AMLCTL_OUTPUTS_DIR names, from a script instead of a job file",
            )
    if not link.is_symlink():
        raise SettingsError("the job's code has an outputs folder of its own", hint="name outputs/ in .amlignore")
    own = {name: filled_in(value, values, paths) for name, value in spec.variables.items() if value is not None}
    # `python` is that of the environment, also where it is the one that amlctl runs in.
    here = os.pathsep.join([str(Path(sys.executable).parent), variables.get("PATH", os.defpath)])
    programs = variables.get(KEPT_PATH) or here
    shell = next((shell for shell in _SHELLS if os.path.exists(shell)), "sh")
    text = command_line(filled(spec.command, secrets), values, paths)
    named = place_variables({**values, **paths, "outputs.default": str(folders.outputs_dir)})
    return ReadyJob([shell, "-c", text], {**variables, **named, **own, "PATH": programs})
