"""A Python interpreter of the version that an environment asks for."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from amlctl.config.environment_file import python_specifiers
from amlctl.core.environment import OLDEST_PYTHON
from amlctl.errors import SettingsError
from amlctl.localfs.tool_variables import tool_variables

_MINORS = range(20, OLDEST_PYTHON[1] - 1, -1)
"""Minor versions of Python 3 looked for on the PATH, newest first."""
_ASK = """
import json, sys
from importlib.util import find_spec
venv, pip = bool(find_spec("venv") and find_spec("ensurepip")), bool(find_spec("pip"))
print(json.dumps([list(sys.version_info[:3]), venv, pip]))
"""
_LIMIT_S = 20.0


@dataclass(frozen=True)
class Python:
    """An interpreter of this machine; `makes_venvs`: Debian's needs the package python3-venv for that."""

    path: str
    version: str
    makes_venvs: bool
    has_pip: bool


def find_python(wanted: str, variables: Mapping[str, str]) -> Python:
    """An interpreter that fits and can make virtual environments; this one if it does. Raises SettingsError."""
    specifiers = python_specifiers(wanted)
    seen: list[str] = []
    without_venv: list[Python] = []
    for path in _candidates(variables):
        python = _ask(path, variables)
        if python is None:
            continue
        if not specifiers.contains(python.version, prereleases=True):
            seen.append(python.version)
        elif not python.makes_venvs:
            without_venv.append(python)
        else:
            return python
    minor = re.search(r"3\.\d+", wanted)
    if without_venv:
        python = without_venv[0]
        name = "python" + ".".join(python.version.split(".")[:2])
        raise SettingsError(
            f"{python.path} (Python {python.version}) cannot make virtual environments: it lacks venv or ensurepip",
            hint=f"apt install {name}-venv, install micromamba, or use --env-from current",
        )
    found = ", ".join(dict.fromkeys(seen))
    raise SettingsError(
        f"the environment asks for Python {wanted}, and this machine has only {found or 'none that works'}",
        hint=f"install Python {minor[0] if minor else wanted} so that `python{minor[0] if minor else '3'}` is on the "
        "PATH, install micromamba, or use --env-from current",
    )


def _candidates(variables: Mapping[str, str]) -> Iterator[str]:
    yield sys.executable
    for name in (*(f"python3.{minor}" for minor in _MINORS), "python3"):
        path = shutil.which(name, path=variables.get("PATH"))
        if path is not None:
            yield path


def _ask(path: str, variables: Mapping[str, str]) -> Python | None:
    """None for a program that does not work (a launcher that points to nothing, say), or that is too old."""
    try:
        result = subprocess.run(
            [path, "-I", "-c", _ASK],
            env=tool_variables(variables),
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            stdin=subprocess.DEVNULL,
            check=True,
        )
        version, makes_venvs, has_pip = json.loads(result.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    if tuple(version) < OLDEST_PYTHON:
        return None
    return Python(path, ".".join(map(str, version)), makes_venvs, has_pip)
