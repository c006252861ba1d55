"""What can be known of an environment before it is made: its Python, and whether its packages can be had together."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from amlctl.config.environment_file import check_runtime_python, pinned_python
from amlctl.core.environment import EnvironmentSpec
from amlctl.core.events import EventSink, Note
from amlctl.errors import SettingsError
from amlctl.localfs.atomic import write_json
from amlctl.workspaces.local.conda_names import pip_requirements
from amlctl.workspaces.local.environments import Environments
from amlctl.workspaces.local.pip_install import Pip
from amlctl.workspaces.local.pip_settings import pip_settings
from amlctl.workspaces.local.python_versions import Python, find_python


def check_environment(environments: Environments, spec: EnvironmentSpec, sink: EventSink) -> None:
    """Nothing is made; the versions that pip has found are kept for the making. conda's own packages are left to conda,
    whose solver takes minutes.

    Raises SettingsError (cannot be made; which line, and why), ServiceUnavailable (no index can be reached).
    """
    if environments.find(spec).is_ready:
        return
    check_runtime_python(spec)
    if environments.conda()[0]:
        return
    for line in spec.conda:
        with _told_at(spec.places.get(line, "")):
            pip_requirements([line])
    with _told_at(spec.places.get("python", "")):
        python = find_python(spec.python, environments.variables)
    command = _pip_command(python)
    if not command or not (spec.conda or spec.pip or spec.constraints):
        return
    settings = pip_settings(Path(command[0]), environments.variables)
    sink(Note(f"checking that the packages of {spec.source or 'the environment'} can be installed"))
    resolved = Pip(command, settings.variables, _keep_quiet, _go_on).resolve(spec)
    with suppress(OSError):  # then pip resolves them again when the environment is made
        write_json(environments.resolved(spec, python.version), resolved)


def python_version(environments: Environments, spec: EnvironmentSpec) -> tuple[int, int] | None:
    """Major and minor version of an environment that is ready, or of the Python that it would be made with."""
    if spec.is_current:
        return sys.version_info[:2]
    told = environments.python_version(spec)
    if not told:
        if environments.conda()[0]:
            return pinned_python(spec)
        try:
            told = find_python(spec.python, environments.variables).version
        except SettingsError:
            return None
    major, minor = told.split(".")[:2]
    return int(major), int(minor)


def _pip_command(python: Python) -> list[str]:
    """A pip that resolves for that interpreter; empty if none is found."""
    if python.has_pip:
        return [python.path, "-m", "pip"]
    from importlib.util import find_spec

    return [sys.executable, "-m", "pip", "--python", python.path] if find_spec("pip") else []


@contextmanager
def _told_at(place: str) -> Iterator[None]:
    try:
        yield
    except SettingsError as error:
        if not place:
            raise
        raise SettingsError(f"{place}: {error.message}", hint=error.hint, details=error.details) from error


def _keep_quiet(line: str) -> None:
    pass


def _go_on() -> None:
    pass
