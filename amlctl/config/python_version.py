"""Versions of Python as an environment file writes them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from amlctl.core.environment import OLDEST_PYTHON, EnvironmentSpec
from amlctl.errors import SettingsError

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

_NEWEST_MINOR = 40
_NEWEST_PATCH = 40
"""Versions that are tried to find out whether a range has one that the runtime works with."""


def python_specifiers(wanted: str) -> SpecifierSet:
    """`3.11`, `=3.11` and `==3.11` mean any 3.11; ranges as in pip. Raises SettingsError."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    clauses = []
    for clause in wanted.replace(" ", ",").split(","):
        if re.fullmatch(r"={0,2}\d+(\.\d+)*(\.\*)?", clause):
            number = clause.lstrip("=").removesuffix(".*")
            clause = f"=={number}" if number.count(".") == 2 else f"=={number}.*"
        clauses.append(clause)
    try:
        return SpecifierSet(",".join(clause for clause in clauses if clause))
    except InvalidSpecifier as error:
        raise SettingsError(
            f"python {wanted!r} in the environment file is not a valid version", hint="for example python=3.11"
        ) from error


def pinned_python(spec: EnvironmentSpec) -> tuple[int, int] | None:
    """Major and minor version, where the environment file names just one."""
    match = re.fullmatch(r"={0,2}(\d+)\.(\d+)(\.\d+|\.\*)*", spec.python)
    return None if match is None else (int(match[1]), int(match[2]))


def check_runtime_python(spec: EnvironmentSpec) -> None:
    """Raises SettingsError for an environment whose Python is surely too old for amlctl's runtime."""
    if spec.is_current or not spec.python:
        return
    ranges = [python_specifiers(wanted) for wanted in spec.python.split("|")]  # conda's "or"
    newer = (f"3.{minor}.{patch}" for minor in range(OLDEST_PYTHON[1], _NEWEST_MINOR) for patch in range(_NEWEST_PATCH))
    if any(one.contains(version) for version in (*newer, "4.0") for one in ranges):
        return
    older = (f"3.{minor}.{patch}" for minor in range(OLDEST_PYTHON[1]) for patch in range(_NEWEST_PATCH))
    if not any(one.contains(version) for version in (*older, "2.7", "2.7.18") for one in ranges):
        return  # a version that does not exist (yet) is for the tool that looks for it to refuse
    oldest = ".".join(map(str, OLDEST_PYTHON))
    place = spec.places.get("python", "")
    raise SettingsError(
        f"{place}: Python {spec.python} is too old: amlctl's runtime needs {oldest} or newer".removeprefix(": "),
        hint=f"write python>={oldest}, or the newest version that the scripts work with",
    )
