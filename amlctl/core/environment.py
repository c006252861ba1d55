"""Environments: what a script needs beside its own code, identified by content.

The id is the hash of the image and of the normalized content of the conda file: the order of keys, comments
and the file's `name` do not matter; the order of packages does not either.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional
from urllib.parse import quote

RUNTIME_REQUIREMENT = "xxhash>=3.4"
"""What the runtime needs in every environment; part of every id."""

OLDEST_PYTHON = (3, 9)
"""The runtime works with this Python and newer ones."""

DEFAULT_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04"
"""Base image on Azure ML; the local workspace ignores it, but it is part of the id so that both agree."""

CURRENT = "current"
"""Id of the environment that amlctl runs in."""
_IMAGE, _REGISTERED, _BUILD = "image:", "azureml:", "build:"
PYTHON = "python:"
"""Before the path of an interpreter, in the id of an environment that amlctl has not made."""


@dataclass(frozen=True)
class BuildContext:
    """What an image is built from: a folder of this machine or an address, and the Dockerfile's path below it."""

    path: str
    dockerfile: str


@dataclass(frozen=True)
class EnvironmentSpec:
    """A parsed conda file. `conda` holds conda's own match specs (without python), `pip` the lines for pip, of
    requirement files that the list names, too, and `constraints` those of pip's constraint files. `local_files` has the
    sha256 of each path of this machine that pip's lines name (as a `file:` URL). `places` has the `file:line` of
    `python` and of each line; `has_files`: the conda file alone does not say everything.

    `python` is the wanted version as written (`3.11`, `>=3.10`, or empty for any); `is_current` means: the
    interpreter that amlctl runs in, or the one at the path `interpreter`, and nothing is made. `is_bare`: the image
    alone, with whatever it has in it.
    `registered` names one that is in Azure ML already (`azureml:NAME:VERSION`, or the address of one in a registry),
    and then that is all there is to say. `build` is for an image that Azure ML builds: `WHERE#DOCKERFILE`, where WHERE
    is the address of its context, or the digest of a context that travels with the run's code.
    """

    image: str = DEFAULT_IMAGE
    python: str = ""
    channels: tuple[str, ...] = ()
    conda: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    source: str = ""
    is_current: bool = False
    interpreter: str = ""
    is_bare: bool = False
    registered: str = ""
    build: str = ""
    constraints: tuple[str, ...] = ()
    local_files: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict, compare=False)
    has_files: bool = False

    def normalized(self) -> Mapping[str, Any]:
        found: dict[str, Any] = {
            "image": self.image,
            "python": self.python,
            "channels": list(self.channels),
            "conda": sorted(self.conda),
            "pip": sorted({*map(self._by_content, self.pip), RUNTIME_REQUIREMENT}),
        }
        if self.constraints:
            found["constraints"] = sorted(self.constraints)
        return found

    def _by_content(self, line: str) -> str:
        """A line of pip with what lies in local files in the place of where these are."""
        for path, digest in self.local_files.items():
            url = f"file://{quote(path)}"
            if line == url or f"{url} " in f"{line} ":
                name = path.rpartition("/")[2]
                return line.replace(url, f"local:{name}#sha256={digest}")
        return line

    @property
    def conda_python(self) -> str:
        """Python as conda asks for it: a version alone means any of its patches, operators stay as written."""
        return f"python={self.python}" if self.python[:1].isdigit() else f"python{self.python}"

    @property
    def conda_packages(self) -> list[str]:
        """Without pip, which every environment has."""
        return [line for line in self.conda if line.rpartition("::")[2] != "pip"]

    @property
    def id(self) -> str:
        """32 hex digits (sha256, cut), `current`, `python:…`, `image:…`, `build:…`, or the name of a registered one."""
        if self.is_current:
            return PYTHON + self.interpreter if self.interpreter else CURRENT
        if self.is_bare:
            return _IMAGE + self.image
        if self.registered:
            return self.registered
        if self.build:
            return _BUILD + self.build
        import hashlib  # here: a run gets its id from the record, and a supervisor saves 4 ms

        text = json.dumps(self.normalized(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def environment_without_file(environment_id: str) -> Optional[EnvironmentSpec]:
    """The one that its id says all of; None where a conda file is needed."""
    if environment_id == CURRENT:
        return EnvironmentSpec(is_current=True)
    if environment_id.startswith(PYTHON):
        return EnvironmentSpec(is_current=True, interpreter=environment_id[len(PYTHON) :])
    if environment_id.startswith(_IMAGE):
        return EnvironmentSpec(image=environment_id[len(_IMAGE) :], is_bare=True)
    if environment_id.startswith(_BUILD):
        return EnvironmentSpec(build=environment_id[len(_BUILD) :])
    return EnvironmentSpec(registered=environment_id) if environment_id.startswith(_REGISTERED) else None


def is_of_others(environment_id: str) -> bool:
    """Whether others have made what is in it, so that it may lack what the runtime needs."""
    return environment_id.startswith((_IMAGE, _REGISTERED, _BUILD))
