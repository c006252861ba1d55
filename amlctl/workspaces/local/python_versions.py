"""A Python interpreter of the version that an environment asks for."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from amlctl.errors import SettingsError

_MINORS = range(20, 8, -1)
"""Minor versions of Python 3 looked for on the PATH, newest first; the runtime needs 3.9."""
_ASK = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
_LIMIT_S = 20.0


def python_specifiers(wanted: str) -> SpecifierSet:
    """`3.11`, `=3.11` and `==3.11` mean any 3.11; ranges as in pip. Raises SettingsError."""
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
            f"python {wanted!r} in the environment file is no version", hint="for example python=3.11"
        ) from error


def find_python(wanted: str, variables: Mapping[str, str]) -> str:
    """The path of an interpreter that fits; this one if it does. Raises SettingsError."""
    specifiers = python_specifiers(wanted)
    seen = []
    for path in _candidates(variables):
        version = _version(path)
        if version is None:
            continue
        if specifiers.contains(version, prereleases=True):
            return path
        seen.append(version)
    found = ", ".join(dict.fromkeys(seen))
    minor = re.search(r"3\.\d+", wanted)
    raise SettingsError(
        f"the environment asks for Python {wanted}, and this machine has only {found}",
        hint=f"install Python {minor[0] if minor else wanted} so that `python{minor[0] if minor else '3'}` is on the "
        "PATH, install micromamba, or use --env-from current",
    )


def _candidates(variables: Mapping[str, str]) -> Iterator[str]:
    yield sys.executable
    for name in (*(f"python3.{minor}" for minor in _MINORS), "python3"):
        path = shutil.which(name, path=variables.get("PATH"))
        if path is not None:
            yield path


def _version(python: str) -> str | None:
    """None where the program is none that works: a launcher that points to nothing, say."""
    if python == sys.executable:
        return ".".join(map(str, sys.version_info[:3]))
    try:
        result = subprocess.run(
            [python, "-I", "-c", _ASK],
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            stdin=subprocess.DEVNULL,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
