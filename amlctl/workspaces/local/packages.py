"""The packages of an environment by pip: resolved beforehand, installed, and what pip's failures mean.

Requirements go to pip in files, as in the environment file; `tools.pip_settings` says where packages come from.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from amlctl.config.environment_file import check_runtime_python, pinned_python
from amlctl.core.environment import RUNTIME_REQUIREMENT, EnvironmentSpec
from amlctl.core.events import EventSink, Note
from amlctl.core.message import Command, Message
from amlctl.core.secret_names import carries_secret
from amlctl.errors import AmlctlError, ServiceUnavailable, SettingsError
from amlctl.localfs.atomic import scratch_folder, write_bytes, write_json
from amlctl.workspaces.local.conda_names import pip_requirements
from amlctl.workspaces.local.environments import Environments
from amlctl.workspaces.local.tools import Python, ToolFailed, ToolRunner, find_python, pip_settings

_NETWORK_SIGNS = (
    "NewConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "NameResolutionError",
    "Temporary failure in name resolution",
    "ProxyError",
    "CondaHTTPError",
    "Connection refused",
    "Network is unreachable",
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EXPLAINS = re.compile(r"ERROR: |\s+\S.* (?:depends on|requested|requires) |.*error: |.*Requires-Python")
_OUR_LINE = re.compile(r"-r (/.*?/requirements[-0-9]*\.txt) \(line (\d+)\)")
_FROM_OUR_LINE = re.compile(rf" \(from {_OUR_LINE.pattern}\)")
_NO_OPTION = "no such option: --"
_NOISE = (
    "Collecting ",
    "  ",
    "Requirement already satisfied",
    "Looking in ",
    "Processing ",
    "Obtaining ",
    "Using cached ",
)
"""Lines of pip that are not logged. Downloads, builds, installed packages and errors are."""
_REASONS = 6
"""Lines of pip's own explanation that are shown."""


@dataclass(frozen=True)
class Pip:
    """`command` starts pip (`python -m pip`) with `variables`."""

    command: Sequence[str]
    variables: Mapping[str, str]
    runner: ToolRunner = field(default_factory=ToolRunner)

    def install(
        self, spec: EnvironmentSpec, folder: Path, *, brings_conda: bool, resolved: Sequence[Sequence[str]] = ()
    ) -> dict[str, str]:
        """Install everything; the files for it go into `folder`. `brings_conda`: conda's packages come from pip, too.
        `resolved` is what `resolve` has found: pip then need not look for dependencies again.

        Returns names and versions; without versions from a pip before 22.2. Raises SettingsError, ServiceUnavailable.
        """
        steps = _steps(spec, brings_conda=brings_conda)
        found = {name: "" for step in steps for name in _plain_names(step)}
        for number, lines in enumerate(steps, 1):
            report = folder / f"installed-{number}.json"
            pins = resolved[number - 1] if number <= len(resolved) else ()
            try:
                if pins:
                    options = _written(spec, [*lines, *pins], folder, number)
                    try:
                        found.update(self._run(spec, ["install", "--no-deps", *options], report, folder))
                        continue
                    except (SettingsError, ServiceUnavailable):  # an index has changed, say
                        self.runner.tell("the versions resolved before cannot be installed; resolving them again")
                options = _written(spec, lines, folder, number)
                found.update(self._run(spec, ["install", *options], report, folder))
            finally:
                _remove_secrets(folder)
        return found

    def resolve(self, spec: EnvironmentSpec) -> list[list[str]]:
        """Whether all of it can be installed together; nothing is installed. Returns `name==version` of what pip has
        chosen, for each list of requirements; empty for one with hashes, and where pip is older than 22.2.

        Raises SettingsError (names what cannot be installed), ServiceUnavailable.
        """
        found: list[list[str]] = []
        with scratch_folder() as folder:
            for number, lines in enumerate(_steps(spec, brings_conda=True), 1):
                options = [*_written(spec, lines, folder, number), "--dry-run", "--ignore-installed"]
                report = folder / f"resolved-{number}.json"
                self._run(spec, ["install", *options], report, folder)
                found.append([] if any(" --hash" in line for line in lines) else _pins(report))
        return found

    def _run(self, spec: EnvironmentSpec, arguments: Sequence[str], report: Path, folder: Path) -> dict[str, str]:
        command = [*self.command, *arguments, "--disable-pip-version-check", "--no-input"]
        runner = replace(self.runner, tell=self._tell)
        try:
            try:
                runner.run("pip", [*command, "--report", str(report)], variables=self.variables, cwd=folder)
            except ToolFailed as failed:
                if not any(_NO_OPTION in line for line in failed.last_lines):
                    raise
                if "--dry-run" in arguments:
                    return {}
                runner.run("pip", command, variables=self.variables, cwd=folder)
        except ToolFailed as failed:
            readable = ToolFailed(failed.exit_code, [_with_requirement(line) for line in failed.last_lines])
            raise pip_failure(spec, readable) from failed
        return {str(one["name"]): str(one["version"]) for _, one in _chosen(report)}

    def _tell(self, line: str) -> None:
        if not line.startswith(_NOISE):
            self.runner.tell(_with_requirement(line))


def expected_names(spec: EnvironmentSpec) -> list[str]:
    """Packages that an environment made by pip alone must have."""
    return [name for step in _steps(spec, brings_conda=True) for name in _plain_names(step)]


def _steps(spec: EnvironmentSpec, *, brings_conda: bool) -> list[list[str]]:
    """Lists of requirements that are installed one after the other: where pip is to check hashes, it asks for one of
    every package, and amlctl's own has none."""
    lines = [*(pip_requirements(spec.conda) if brings_conda else ()), *spec.pip]
    if any(" --hash" in line or line == "--require-hashes" for line in lines):
        return [lines, [*(line for line in lines if _is_index(line)), RUNTIME_REQUIREMENT]]
    return [[*lines, RUNTIME_REQUIREMENT]]


def _is_index(line: str) -> bool:
    return line.startswith("-") and line != "--require-hashes"


def _plain_names(lines: Sequence[str]) -> list[str]:
    """Packages that must be installed afterwards: without a marker, by name."""
    plain = [line for line in lines if not line.startswith("-") and "://" not in line and ";" not in line]
    return [match[0] for match in map(_NAME.match, plain) if match is not None]


def _written(spec: EnvironmentSpec, lines: Sequence[str], folder: Path, number: int) -> list[str]:
    """The lines as a file for pip, and the constraints; options that name them."""
    file = folder / ("requirements.txt" if number == 1 else f"requirements-{number}.txt")
    write_bytes(file, "".join(f"{line}\n" for line in lines).encode())
    options = ["--requirement", str(file)]
    if spec.constraints:
        constraints = folder / "constraints.txt"
        write_bytes(constraints, "".join(f"{line}\n" for line in spec.constraints).encode())
        options += ["--constraint", str(constraints)]
    return options


def _remove_secrets(folder: Path) -> None:
    """The lists are kept for reading, unless the address of a package index in them has a password."""
    for file in folder.glob("*.txt"):
        if carries_secret(file.read_text(encoding="utf-8")):
            file.unlink(missing_ok=True)


def _with_requirement(line: str) -> str:
    """A line of pip's output, with the requirement itself instead of its line in our file."""

    def requirement(match: re.Match[str]) -> str:
        try:
            return Path(match[1]).read_text(encoding="utf-8").splitlines()[int(match[2]) - 1]
        except (OSError, IndexError):
            return match[0]

    return _OUR_LINE.sub(requirement, _FROM_OUR_LINE.sub("", line))


def _chosen(report: Path) -> list[tuple[bool, Mapping[str, Any]]]:
    """What pip installs (https://pip.pypa.io/en/stable/reference/installation-report/): whether each package
    comes from an address of its own, and its name and version."""
    try:
        chosen = json.loads(report.read_bytes())["install"]
        return [
            (bool(one["is_direct"]), {name: one["metadata"][name] for name in ("name", "version")}) for one in chosen
        ]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def _pins(report: Path) -> list[str]:
    return [f"{one['name']}=={one['version']}" for is_direct, one in _chosen(report) if not is_direct]


def pip_failure(spec: EnvironmentSpec, failed: ToolFailed) -> AmlctlError:
    """Which package, why, and its line in the environment file, as far as pip says it."""
    errors = [line.strip().removeprefix("ERROR: ") for line in failed.last_lines if line.startswith("ERROR: ")]
    if is_of_network(failed):
        return ServiceUnavailable(
            "the environment cannot be made: pip cannot reach a package index",
            hint="check the network and pip's settings (`pip config list`), then run the command again",
            details=failed.last_lines,
        )
    reason = next((line for line in errors if not line.startswith(("No matching distribution", "ResolutionImp"))), "")
    reason = reason or (errors[-1] if errors else f"pip ended with exit code {failed.exit_code}")
    place = _place_of(spec, failed.last_lines)
    said = (reason, "No matching distribution", "ResolutionImpossible")
    explained = [
        line
        for line in failed.last_lines
        if _EXPLAINS.match(line) and not line.strip().removeprefix("ERROR: ").startswith(said)
    ][:_REASONS]
    return SettingsError(
        f"{place}: packages cannot be installed: {reason}" if place else f"packages cannot be installed: {reason}",
        hint=Message(
            f"change that line{'' if place else ' of the environment file'}, then: ", Command("env", "prepare")
        ),
        details=explained if place else explained or failed.last_lines,
    )


def is_of_network(failed: ToolFailed) -> bool:
    return any(sign in line for line in failed.last_lines for sign in _NETWORK_SIGNS)


def _place_of(spec: EnvironmentSpec, lines: Sequence[str]) -> str:
    """File and line of the first requirement that pip names in its errors; empty without one."""
    words = {_normal(word) for line in lines if _EXPLAINS.match(line) for word in _NAME.findall(line)}
    for line, place in spec.places.items():
        names = {match[0] for match in [_NAME.match(line)] if match is not None and line != "python"}
        if line in spec.conda:
            names = {name for one in pip_requirements([line]) for name in _plain_names([one])}
        if any(_normal(name) in words for name in names):
            return place
    return ""


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def check_environment(environments: Environments, spec: EnvironmentSpec, sink: EventSink) -> None:
    """Whether it can be made; the versions that pip has resolved are kept for the making. Packages of conda are left to
    conda, whose solver takes minutes.

    Raises SettingsError (cannot be made; which line, and why), ServiceUnavailable (no index can be reached).
    """
    if environments.find(spec.id).is_ready:
        return
    check_runtime_python(spec)
    if environments.conda()[0]:
        return
    for line in spec.conda:
        with _located(spec.places.get(line, "")):
            pip_requirements([line])
    with _located(spec.places.get("python", "")):
        python = find_python(spec.python, environments.variables)
    command = _pip_command(python)
    if not command or not (spec.conda or spec.pip or spec.constraints):
        return
    settings = pip_settings(Path(command[0]), environments.variables)
    sink(Note(f"checking that the packages of {spec.source or 'the environment'} can be installed"))
    resolved = Pip(command, settings.variables).resolve(spec)
    with suppress(OSError):  # then pip resolves them again when the environment is made
        write_json(environments.resolved(spec.id, python.version), resolved)


def python_version(environments: Environments, spec: EnvironmentSpec) -> tuple[int, int] | None:
    """Major and minor version of an environment that is ready, or of the Python that it would be made with."""
    if spec.is_current:
        return sys.version_info[:2]
    version = environments.python_version(spec.id)
    if not version:
        if environments.conda()[0]:
            return pinned_python(spec)
        try:
            version = find_python(spec.python, environments.variables).version
        except SettingsError:
            return None
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _pip_command(python: Python) -> list[str]:
    """A pip that resolves for that interpreter; empty if none is found."""
    if python.has_pip:
        return [python.path, "-m", "pip"]
    from importlib.util import find_spec

    return [sys.executable, "-m", "pip", "--python", python.path] if find_spec("pip") else []


@contextmanager
def _located(place: str) -> Iterator[None]:
    try:
        yield
    except SettingsError as error:
        if not place:
            raise
        raise SettingsError(f"{place}: {error.message}", hint=error.hint, details=error.details) from error
