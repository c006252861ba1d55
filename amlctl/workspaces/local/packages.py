"""The packages of an environment: what is asked for, who installs it, and what its failures mean.

uv installs them, and pip where uv is missing or cannot do what a list asks for (`installers.unsupported`). Requirements
are passed in files, as in the environment file; `pip_settings` says where packages come from.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from amlctl.config.environment_file import check_runtime_python
from amlctl.core.environment import RUNTIME_REQUIREMENT, EnvironmentSpec
from amlctl.core.events import EventSink, Note
from amlctl.core.message import Command, Message
from amlctl.core.package_names import normalized, pip_requirements
from amlctl.core.run import at_line
from amlctl.core.secret_names import carries_secret
from amlctl.errors import AmlctlError, ServiceUnavailable, SettingsError
from amlctl.localfs.atomic import scratch_folder, write_bytes, write_json
from amlctl.localfs.tool_variables import find_uv, tool_variables
from amlctl.workspaces.local.environments import Environments, ask_environment
from amlctl.workspaces.local.installers import Pip, Uv, unsupported
from amlctl.workspaces.local.pip_settings import PipSettings, pip_settings
from amlctl.workspaces.local.tools import Python, ToolFailed, ToolRunner, find_python

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
    "Could not resolve host",
    "Failed to connect to",
    "error sending request",
    "dns error",
    "operation timed out",
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_REASONS = 6
"""Lines of a tool's own explanation that are shown."""


Installer = Uv | Pip
"""For one environment. Both have the same methods: `options` name the files of one list, a failure is ToolFailed."""


@dataclass(frozen=True)
class Packages:
    """Those of one environment."""

    environments: Environments
    spec: EnvironmentSpec

    @cached_property
    def settings(self) -> PipSettings:
        return pip_settings(self.environments.variables)

    @cached_property
    def needs_pip(self) -> str:
        """What uv cannot do of what is asked for; empty if it can do all of it."""
        if self.settings.is_on("prefer-binary"):
            return "prefer-binary"
        return unsupported([*self.spec.pip, *self.spec.constraints])

    @cached_property
    def uv(self) -> str:
        """The program; empty where pip takes its place."""
        return "" if self.needs_pip else find_uv(self.environments.variables)

    def conda(self) -> tuple[str, str]:
        """Name and path of the conda-like tool that makes it; empty where it lists no packages of conda, and this
        machine has a Python that fits."""
        tool = self.environments.conda()
        if tool[0] and not self.spec.conda_packages:
            with suppress(SettingsError):
                find_python(self.spec.python, self.environments.variables)
                return "", ""
        return tool

    def base_python(self) -> Python:
        """The interpreter that a virtual environment is made with. Raises SettingsError."""
        needs_venv = not self.uv  # read here: errors of pip's settings are not about that line
        with at_line(self.spec.places.get("python", "")):
            return find_python(self.spec.python, self.environments.variables, needs_venv=needs_venv)

    def installer(
        self,
        python: str,
        *,
        pip: Sequence[str] = (),
        runner: ToolRunner = ToolRunner(),  # noqa: B008  # it is frozen
    ) -> Installer:
        """For the environment of `python`; `pip` is the command that starts a pip for it, if it has none itself."""
        if self.uv:
            return Uv(self.uv, python, self.settings.for_uv, self.settings.uv_options, runner)
        runner.tell(
            f"using pip: {f'uv does not support {self.needs_pip}' if self.needs_pip else 'uv is not installed'}"
        )
        return Pip(pip or [python, "-m", "pip"], self.settings.for_pip, runner)

    def install(
        self, installer: Installer, folder: Path, *, brings_conda: bool, resolved: Sequence[Sequence[str]]
    ) -> dict[str, str]:
        """Install everything; the files for it go into `folder`. `brings_conda`: conda's packages come from an index,
        too. `resolved` is what `resolve` has found: then it is not resolved again.

        Returns names and versions. Raises SettingsError, ServiceUnavailable."""
        steps = self._steps(brings_conda=brings_conda)
        found = {name: "" for step in steps for name in _plain_names(step)}
        for number, lines in enumerate(steps, 1):
            pins = resolved[number - 1] if number <= len(resolved) else ()
            try:
                if pins:
                    options = self._written(installer, [*lines, *pins], folder, number)
                    try:
                        found.update(installer.install(options, folder, no_deps=True))
                        continue
                    except ToolFailed:  # an index has changed, say
                        installer.runner.tell("the versions resolved before cannot be installed; resolving them again")
                options = self._written(installer, lines, folder, number)
                found.update(installer.install(options, folder, no_deps=False))
            except ToolFailed as failed:
                raise self._failure(installer, failed) from failed
            finally:
                _remove_secrets(folder)
        return found

    def check(self, sink: EventSink) -> None:
        """Whether it can be made; the versions that were resolved are kept for the making. Packages of conda are left
        to conda, whose solver takes minutes.

        Raises SettingsError (cannot be made; which line, and why), ServiceUnavailable (no index can be reached)."""
        environments, spec = self.environments, self.spec
        if spec.interpreter:
            self._check_interpreter()
        if environments.find(spec.id).is_ready:
            return
        check_runtime_python(spec)
        if self.conda()[0]:
            return
        for line in spec.conda:
            with at_line(spec.places.get(line, "")):
                pip_requirements([line])
        python = self.base_python()
        if not (spec.conda or spec.pip or spec.constraints):
            return
        installer = self.installer(python.path, pip=_pip_command(python))
        if isinstance(installer, Pip) and not installer.command[0]:
            return
        sink(Note(f"checking that the packages of {spec.source or 'the environment'} can be installed"))
        resolved = self._resolve(installer)
        with suppress(OSError):  # then they are resolved again when the environment is made
            write_json(environments.resolved(spec.id, python.version), resolved)

    def _resolve(self, installer: Installer) -> list[list[str]]:
        """Whether all of it can be installed together; nothing is installed. Returns `name==version` of what was
        chosen, for each list of requirements; empty for one with hashes, and where pip is older than 22.2.

        Raises SettingsError (names what cannot be installed), ServiceUnavailable."""
        found: list[list[str]] = []
        with scratch_folder() as folder:
            for number, lines in enumerate(self._steps(brings_conda=True), 1):
                options = self._written(installer, lines, folder, number)
                try:
                    pins = installer.resolve(options, folder)
                except ToolFailed as failed:
                    raise self._failure(installer, failed) from failed
                found.append([] if any(" --hash" in line for line in lines) else pins)
        return found

    def _steps(self, *, brings_conda: bool) -> list[list[str]]:
        """Lists of requirements that are installed one after the other: where pip is to check hashes, it asks for one
        of every package, and amlctl's own has none."""
        lines = [*(pip_requirements(self.spec.conda) if brings_conda else ()), *self.spec.pip]
        if any(" --hash" in line or line == "--require-hashes" for line in lines):
            return [lines, [*(line for line in lines if _is_index(line)), RUNTIME_REQUIREMENT]]
        return [[*lines, RUNTIME_REQUIREMENT]]

    def _written(self, installer: Installer, lines: Sequence[str], folder: Path, number: int) -> list[str]:
        """The lines as a file, and the constraints; options that name them."""
        lines, more = installer.split(lines)
        file = folder / ("requirements.txt" if number == 1 else f"requirements-{number}.txt")
        write_bytes(file, "".join(f"{line}\n" for line in lines).encode())
        options = ["--requirement", str(file)]
        if self.spec.constraints:
            constraints = folder / "constraints.txt"
            write_bytes(constraints, "".join(f"{line}\n" for line in self.spec.constraints).encode())
            options += ["--constraint", str(constraints)]
        return [*options, *more]

    def _failure(self, installer: Installer, failed: ToolFailed) -> AmlctlError:
        """Which package, why, and its line in the environment file, as far as the tool says it."""
        if is_of_network(failed):
            return ServiceUnavailable(
                f"the environment cannot be made: {installer.name} cannot reach a package index",
                hint="check the network and pip's settings (`pip config list`), then run the command again",
                details=failed.last_lines,
            )
        reason, explained = installer.explain(failed.last_lines)
        reason = reason or f"{installer.name} ended with exit code {failed.exit_code}"
        explained = explained[:_REASONS]
        place = self._place_of(installer.naming(failed.last_lines))
        again = Command("env", "prepare")
        hint = Message(f"change that line{'' if place else ' of the environment file'}, then: ", again)
        details = explained if place else explained or failed.last_lines
        for name, value in self.settings.bounds.items():
            details = [*details, f"{name} ({value}) limits which versions may be installed"]
            if name.isupper():
                hint = Message(hint, f"; without {name}: env -u {name} ", again)
            else:
                hint = Message(hint, f"; pip config debug shows where {name} is set")
        return SettingsError(
            f"{place}: packages cannot be installed: {reason}" if place else f"packages cannot be installed: {reason}",
            hint=hint,
            details=details,
        )

    def _place_of(self, lines: Sequence[str]) -> str:
        """File and line of the first requirement that these lines name; empty without one."""
        words = {normalized(word) for line in lines for word in _NAME.findall(line)}
        for line, place in self.spec.places.items():
            names = {match[0] for match in [_NAME.match(line)] if match is not None and line != "python"}
            if line in self.spec.conda:
                names = {name for one in pip_requirements([line]) for name in _plain_names([one])}
            if any(normalized(name) in words for name in names):
                return place
        return ""

    def _check_interpreter(self) -> None:
        interpreter = self.spec.interpreter
        wrong = ask_environment(Path(interpreter), {}, tool_variables(self.environments.variables)).wrong
        if wrong:
            raise SettingsError(
                f"{interpreter} cannot run scripts of amlctl: {wrong}",
                hint=f"{interpreter} -m pip install '{RUNTIME_REQUIREMENT}', or use another --env-from",
            )


def _is_index(line: str) -> bool:
    return line.startswith("-") and line != "--require-hashes"


def _plain_names(lines: Sequence[str]) -> list[str]:
    """Packages that must be installed afterwards: without a marker, by name."""
    plain = [line for line in lines if not line.startswith("-") and "://" not in line and ";" not in line]
    return [match[0] for match in map(_NAME.match, plain) if match is not None]


def _remove_secrets(folder: Path) -> None:
    """The lists are kept for reading, unless the address of a package index in them has a password."""
    for file in folder.glob("*.txt"):
        if carries_secret(file.read_text(encoding="utf-8")):
            file.unlink(missing_ok=True)


def is_of_network(failed: ToolFailed) -> bool:
    return any(sign in line for line in failed.last_lines for sign in _NETWORK_SIGNS)


def _pip_command(python: Python) -> list[str]:
    """A pip that resolves for that interpreter; an empty word if none is found."""
    if python.has_pip:
        return [python.path, "-m", "pip"]
    from importlib.util import find_spec

    return [sys.executable, "-m", "pip", "--python", python.path] if find_spec("pip") else [""]
