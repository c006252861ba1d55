"""What an environment of this machine has, or will have once it is made: its Python, and modules."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from amlctl.core.environment import EnvironmentSpec
from amlctl.core.import_names import may_bring
from amlctl.errors import SettingsError
from amlctl.localfs.atomic import read_json
from amlctl.localfs.tool_variables import tool_variables
from amlctl.workspaces.local.environments import Environments, ask_environment


def python_version(environments: Environments, spec: EnvironmentSpec) -> tuple[int, int] | None:
    """Major and minor version of an environment that is ready, or of the Python that it would be made with."""
    if spec.is_current and not spec.interpreter:
        return sys.version_info[:2]
    version = environments.python_version(spec.id)
    if spec.interpreter:
        version = ask_environment(Path(spec.interpreter), {}, tool_variables(environments.variables)).python
        if not version:
            return None
    if not version:
        from amlctl.config.environment_file import pinned_python  # here, since most submits find theirs ready
        from amlctl.workspaces.local.packages import conda_for
        from amlctl.workspaces.local.tools import find_python

        if conda_for(environments, spec)[0]:
            return pinned_python(spec)
        try:
            version = find_python(spec.python, environments.variables).version
        except SettingsError:
            return None
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def has_module(environments: Environments, spec: EnvironmentSpec, module: str) -> bool | None:
    """None where that is not known: a package may bring others that are not listed."""
    if spec.is_current:
        try:
            return find_spec(module) is not None
        except (ImportError, ValueError):
            return None
    found = environments.find(spec.id)
    if found.is_ready:
        return _is_installed(Path(found.location), module)
    packages = list(_resolved(environments, spec))
    if packages and any(may_bring(package, module) for package in packages):
        return True
    has_conda = any(not re.match(r"pip\b", one) for one in spec.conda)
    return None if has_conda or (spec.pip and not packages) else False


def _is_installed(home: Path, module: str) -> bool | None:
    folders = list(home.glob("lib/python*/site-packages"))
    for folder in folders:
        if (folder / module).exists() or any(folder.glob(f"{module}.*")):
            return True
    has_more = any(path.name != "distutils-precedence.pth" for folder in folders for path in folder.glob("*.pth"))
    return None if has_more or not folders else False


def _resolved(environments: Environments, spec: EnvironmentSpec) -> Iterator[str]:
    """All packages that pip or uv will install, as far as that was found out a moment ago."""
    name = environments.resolved(spec.id, "*").name
    for file in environments.folder.glob(name):
        try:
            found = read_json(file)
        except (OSError, SettingsError):
            continue
        yield from (pin.partition("==")[0] for pins in found for pin in pins)
