"""Environments on this machine: where they are, what a script in one of them finds, whether one is what was asked for,
and removing what no run uses.

<environments>/<id>/ready.json     written last: it names the folder of the environment that was finished
               <id>/env-…/         the virtual or conda environment, one for each attempt to make it; it cannot be moved
               <id>/env-….making   who is making it: see `environment_making`
               <id>/used           changed by each run, which holds it (shared) until it ends
               <id>.lock           held while it is made

Where variables say which indexes packages come from, `-` and a digest of them follow the id: another project may have
other ones.

Whether it is what was asked for, its own interpreter is asked: the tool that made it may have said so wrongly.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, NamedTuple

import amlctl
from amlctl.core.environment import CURRENT, OLDEST_PYTHON, PYTHON, EnvironmentSpec
from amlctl.errors import Conflict, RightsError, SettingsError
from amlctl.localfs.atomic import kept_json, read_json
from amlctl.localfs.disk_use import measured
from amlctl.localfs.folders import remove_tree
from amlctl.localfs.locks import is_held, try_lock
from amlctl.localfs.regular_file import open_regular
from amlctl.localfs.tool_variables import answer_of, script_base_variables, tool_variables
from amlctl.workspaces.contract import EnvironmentInfo, KeptEnvironment

CONDA_TOOLS = ("micromamba", "mamba", "conda")
"""Looked up on the PATH in this order: the faster first."""
FOLDER_VARIABLE = "AMLCTL_ENVIRONMENTS_DIR"
READY_FILE = "ready.json"
USED_FILE = "used"
READY_FORMAT = 2
"""Format of `ready.json`: since 2 the environment is checked before it is written."""


_SOURCES = tuple(
    f"{tool}_{name}"
    for tool in ("PIP", "UV")
    for name in ("INDEX_URL", "EXTRA_INDEX_URL", "DEFAULT_INDEX", "INDEX", "FIND_LINKS", "NO_INDEX", "CONSTRAINT")
)
_LOGIN = re.compile(r"//[^/@\s]*@")


@dataclass(frozen=True)
class Environments:
    """`folder` may be shared by projects and processes; `variables` are those of the caller. Satisfies
    `workspaces.contract.EnvironmentCache`."""

    folder: Path
    variables: Mapping[str, str]

    def folder_of(self, environment: str) -> Path:
        sources = sorted(
            (name, _LOGIN.sub("//", self.variables[name])) for name in _SOURCES if self.variables.get(name)
        )
        if not sources:
            return self.folder / environment
        import hashlib  # as in EnvironmentSpec.id

        digest = f"-{hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:8]}"
        return self.folder / f"{environment}{digest}"

    def resolved(self, environment: str, python: str) -> Path:
        """The versions that were resolved for the environment with that version of Python, until it is made."""
        return self.folder / f"{self.folder_of(environment).name}-{python}.resolved"

    def hold(self, environment: str) -> IO[bytes] | None:
        """While the returned file is open, it is not removed; None where it cannot be opened, or does not exist."""
        try:
            file = open_regular(self.folder_of(environment) / USED_FILE, "ab")
        except OSError:
            return None
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_SH)
            os.utime(file.fileno())
        return file

    def find(self, environment: str) -> EnvironmentInfo:
        """Look it up by id; `tool` has made it."""
        if environment == CURRENT:
            return EnvironmentInfo(environment, True, sys.prefix, CURRENT)
        if environment.startswith(PYTHON):
            path = Path(environment[len(PYTHON) :])
            return EnvironmentInfo(environment, path.exists(), str(path.parent.parent), "python")
        ready = self._ready(environment)
        if ready is None:
            return EnvironmentInfo(environment, False, "", "")
        home = self.folder_of(environment) / str(ready["folder"])
        return EnvironmentInfo(environment, True, str(home), str(ready.get("tool", "")))

    def conda(self) -> tuple[str, str]:
        """Name and path of the conda-like tool that this machine has; empty without one."""
        for tool in CONDA_TOOLS:
            path = shutil.which(tool, path=self.variables.get("PATH"))
            if path is not None:
                return tool, path
        return "", ""

    def tool_for(self, spec: EnvironmentSpec) -> str:
        """The tool that is going to make it, as its file says."""
        return (self.conda()[0] if spec.conda_packages else "") or "uv"

    def inherited_variables(self, environment: EnvironmentInfo) -> dict[str, str]:
        """The caller's variables, with the programs of an environment that is ready first on the PATH."""
        if environment.id == CURRENT:
            return dict(self.variables)
        home = Path(environment.location)
        is_conda = (home / "conda-meta").is_dir()
        variables = script_base_variables(self.variables, is_conda=is_conda)
        variables["PATH"] = f"{home / 'bin'}:{variables.get('PATH', '')}".rstrip(":")
        if is_conda or (home / "pyvenv.cfg").exists():
            variables["CONDA_PREFIX" if is_conda else "VIRTUAL_ENV"] = str(home)
        return variables

    def python(self, spec: EnvironmentSpec) -> tuple[int, int] | None:
        """Major and minor version of an environment that is ready, or of the Python that it would be made with."""
        if spec.is_current and not spec.interpreter:
            return sys.version_info[:2]
        version = str((self._ready(spec.id) or {}).get("python", ""))
        if spec.interpreter:
            version = ask_environment(Path(spec.interpreter), {}, tool_variables(self.variables)).python
            if not version:
                return None
        if not version:
            from amlctl.config.environment_file import pinned_python  # here, since most submits find theirs ready
            from amlctl.workspaces.local.packages import Packages
            from amlctl.workspaces.local.tools import find_python

            if Packages(self, spec).conda()[0]:
                return pinned_python(spec)
            try:
                version = find_python(spec.python, self.variables).version
            except SettingsError:
                return None
        major, minor = version.split(".")[:2]
        return int(major), int(minor)

    def has_module(self, spec: EnvironmentSpec, module: str) -> bool | None:
        """None where that is not known: a package may bring others that are not listed."""
        if spec.is_current:
            try:
                return find_spec(module) is not None
            except (ImportError, ValueError):
                return None
        found = self.find(spec.id)
        if found.is_ready:
            return _is_installed(Path(found.location), module)
        from amlctl.core.package_names import may_bring  # here, since most submits find theirs ready

        resolved = [*self._resolved(spec)]
        if any(may_bring(pin.partition("==")[0], module) for pins in resolved for pin in pins):
            return True
        has_conda = any(not re.match(r"pip\b", one) for one in spec.conda)
        # Of a list with hashes no versions are kept.
        return None if has_conda or (spec.pip and not (resolved and all(resolved))) else False

    def list(self) -> Sequence[KeptEnvironment]:
        try:
            places = [one for one in self.folder.iterdir() if one.is_dir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(map(_kept, places), key=lambda one: one.used_at, reverse=True)

    def remove(self, environment: str) -> None:
        place = self.folder / environment
        try:
            with _held(place.with_name(f"{environment}.lock"), f"environment {environment} is being made"):
                with _held(place / USED_FILE, f"environment {environment} is used by a run"):
                    (place / READY_FILE).unlink(missing_ok=True)  # from here on it does not count
                    remove_tree(place)
                for left in self.folder.glob(f"{environment}-*.resolved"):
                    left.unlink(missing_ok=True)
                place.with_name(f"{environment}.lock").unlink(missing_ok=True)
        except OSError as error:
            raise RightsError(f"cannot remove {place}: {error.strerror}", hint=f"remove it by hand: {place}") from error

    def _resolved(self, spec: EnvironmentSpec) -> Iterator[Sequence[str]]:
        """`name==version` of what pip or uv will install, as far as that was found out a moment ago: a list for each
        step, empty where it is not known."""
        name = self.resolved(spec.id, "*").name
        for file in self.folder.glob(name):
            try:
                found = read_json(file)
            except (OSError, SettingsError):
                continue
            yield from found

    def _ready(self, environment: str) -> dict[str, Any] | None:
        """What `ready.json` says, as long as the environment has not changed since it was checked."""
        place = self.folder_of(environment)
        ready = kept_json(place / READY_FILE)
        if ready.get("format") != READY_FORMAT:
            return None
        folder = ready.get("folder")
        if not isinstance(folder, str) or not folder or "/" in folder:
            return None
        # The interpreter that a virtual environment links to may have been uninstalled, or packages changed.
        if not python_of(place / folder).exists() or packages_stamp(place / folder) != ready.get("stamp"):
            return None
        return ready


def python_of(home: Path) -> Path:
    return home / "bin" / "python"


def interpreter(environment: EnvironmentInfo) -> Path:
    """Of an environment that is ready."""
    if environment.id.startswith(PYTHON):
        return Path(environment.id[len(PYTHON) :])
    return Path(sys.executable) if environment.id == CURRENT else python_of(Path(environment.location))


def packages_stamp(home: Path) -> dict[str, int]:
    """When a package was last added to or removed from each folder of packages: nanoseconds since 1970."""
    found = sorted((home / "lib").glob("python*/site-packages"))
    return {folder.relative_to(home).as_posix(): folder.stat().st_mtime_ns for folder in found}


_LIMIT_S = 120.0

_PROGRAM = """
import json, sys
wanted, package = json.loads(sys.argv[1]), sys.argv[2]
found = {"python": ".".join(map(str, sys.version_info[:3])), "missing": [], "error": ""}
if sys.version_info >= tuple(json.loads(sys.argv[3])):
    from importlib import metadata
    for name, version in wanted.items():
        try:
            present = metadata.version(name)
        except metadata.PackageNotFoundError:
            found["missing"].append(name)
        else:
            if version and present != version:
                found["missing"].append("%s==%s (it has %s)" % (name, version, present))
    try:
        import xxhash
        sys.path.append(package)
        import amlctl.runtime.node
    except Exception as error:
        found["error"] = "%s: %s" % (type(error).__name__, error)
print(json.dumps(found))
"""
"""The folder of amlctl is last in the path and added late, so that missing packages are not found there."""


class Found(NamedTuple):
    """`wrong` is empty for a usable environment; `python` is its version."""

    wrong: str
    python: str = ""


def ask_environment(python: Path, packages: Mapping[str, str], variables: Mapping[str, str]) -> Found:
    """`packages` are names with the version that is wanted, or empty."""
    shipped = str(Path(amlctl.__file__).resolve().parent.parent)
    command = [str(python), "-I", "-c", _PROGRAM, json.dumps(dict(packages)), shipped]
    try:
        done = answer_of([*command, json.dumps(OLDEST_PYTHON)], _LIMIT_S, variables=variables)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Found(f"its Python cannot be started: {error}")
    try:
        found = json.loads(done.stdout.strip().splitlines()[-1])
        version = tuple(int(part) for part in found["python"].split("."))
        missing, failure = list(found["missing"]), str(found["error"])
    except (ValueError, LookupError, TypeError):
        lines = done.stderr.strip().splitlines()
        return Found(f"its Python ended with exit code {done.returncode}{': ' + lines[-1] if lines else ''}")
    if version < OLDEST_PYTHON:
        return Found(f"it has Python {found['python']}; amlctl needs {'.'.join(map(str, OLDEST_PYTHON))} or newer")
    if missing:
        return Found(f"it lacks {', '.join(missing)}")
    return Found(f"amlctl's runtime cannot be imported: {failure}" if failure else "", found["python"])


@contextmanager
def _held(path: Path, otherwise: str) -> Iterator[None]:
    with open_regular(path, "ab") as file:
        if not try_lock(file.fileno()):
            raise Conflict(otherwise, hint="try again later")
        yield


def _kept(place: Path) -> KeptEnvironment:
    ready = kept_json(place / READY_FILE)
    used = place / USED_FILE
    times = [_modified_at(one) for one in (used, place / READY_FILE, place)]
    return KeptEnvironment(
        id=place.name,
        location=str(place / str(ready.get("folder", ""))),
        tool=str(ready.get("tool", "")),
        python=str(ready.get("python", "")),
        packages=len(ready.get("packages") or ()),
        lists=[str(line) for line in ready.get("lists") or ()],
        size_bytes=measured(place)[0],
        used_at=next((time for time in times if time), 0.0),
        is_in_use=is_held(used, fcntl.LOCK_EX),
        is_whole=bool(ready),
    )


def _modified_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _is_installed(home: Path, module: str) -> bool | None:
    folders = list(home.glob("lib/python*/site-packages"))
    for folder in folders:
        if (folder / module).exists() or any(folder.glob(f"{module}.*")):
            return True
    has_more = any(path.name != "distutils-precedence.pth" for folder in folders for path in folder.glob("*.pth"))
    return None if has_more or not folders else False
