"""Environments on this machine: where they are, and what a script in one of them finds.

<environments>/<id>/env/           the virtual or conda environment; neither can be moved
               <id>/ready.json     written last: an environment without it was not finished
               <id>.lock           held while it is made
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from amlctl.core.environment import EnvironmentSpec
from amlctl.errors import SettingsError
from amlctl.localfs.atomic import read_json
from amlctl.workspaces.contract import EnvironmentInfo

CONDA_TOOLS = ("micromamba", "mamba", "conda")
"""Looked for on the PATH in this order: the quicker first."""
FOLDER_VARIABLE = "AMLCTL_ENVIRONMENTS_DIR"
_NOT_INHERITED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX", "__PYVENV_LAUNCHER__")
"""Variables of the caller's own environment that would mix it into another one."""


@dataclass(frozen=True)
class Environments:
    """`folder` may be shared by several projects and processes; `variables` are those of the caller."""

    folder: Path
    variables: Mapping[str, str]

    def place(self, spec: EnvironmentSpec) -> Path:
        return self.folder / spec.id

    def find(self, spec: EnvironmentSpec) -> EnvironmentInfo:
        """Look it up; for one that is not ready, `tool` is what would make it."""
        if spec.is_current:
            return EnvironmentInfo(spec.id, True, sys.prefix, "current")
        place = self.place(spec)
        try:
            ready = read_json(place / "ready.json")
        except (FileNotFoundError, NotADirectoryError, SettingsError):
            ready = None
        # The interpreter that a virtual environment links to may have been uninstalled since.
        if isinstance(ready, dict) and self.python(spec).exists():
            return EnvironmentInfo(spec.id, True, str(place / "env"), str(ready.get("tool", "")))
        return EnvironmentInfo(spec.id, False, "", self.conda()[0] or "venv")

    def python(self, spec: EnvironmentSpec) -> Path:
        """The interpreter of an environment that is ready."""
        return Path(sys.executable) if spec.is_current else self.place(spec) / "env" / "bin" / "python"

    def conda(self) -> tuple[str, str]:
        """Name and path of the conda-like tool that this machine has; empty without one."""
        for tool in CONDA_TOOLS:
            path = shutil.which(tool, path=self.variables.get("PATH"))
            if path is not None:
                return tool, path
        return "", ""

    def plain_variables(self) -> dict[str, str]:
        """The caller's variables without those of the environment that the caller itself is in."""
        return {name: value for name, value in self.variables.items() if name not in _NOT_INHERITED}

    def script_variables(self, spec: EnvironmentSpec) -> dict[str, str]:
        """The caller's variables, with the environment's programs first on the PATH."""
        if spec.is_current:
            return dict(self.variables)
        home = self.place(spec) / "env"
        variables = self.plain_variables()
        variables["PATH"] = f"{home / 'bin'}:{variables.get('PATH', '')}".rstrip(":")
        variables["CONDA_PREFIX" if (home / "conda-meta").is_dir() else "VIRTUAL_ENV"] = str(home)
        return variables
