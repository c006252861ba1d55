"""Environments on this machine, each made once: `<environments>/<id>/`.

<id>/env/            the virtual or conda environment; neither can be moved, so it is made in its place
<id>/ready.json      written last: an environment without it was not finished and is made anew
<id>.lock            held while it is made
"""

from __future__ import annotations

import fcntl
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from amlctl.core.environment import RUNTIME_REQUIREMENT, EnvironmentSpec
from amlctl.core.events import EventSink, Note
from amlctl.errors import AmlctlError, ServiceUnavailable, SettingsError
from amlctl.localfs.atomic import read_json, write_json
from amlctl.workspaces.contract import EnvironmentInfo
from amlctl.workspaces.local.conda_names import pip_requirements
from amlctl.workspaces.local.python_versions import find_python
from amlctl.workspaces.local.tools import ToolFailed, run_tool

CONDA_TOOLS = ("micromamba", "mamba", "conda")
"""Looked for on the PATH in this order: the quicker first."""
FOLDER_VARIABLE = "AMLCTL_ENVIRONMENTS_DIR"
_LOOK_S = 0.2
_NETWORK_SIGNS = ("NewConnectionError", "ConnectTimeoutError", "NameResolutionError", "Temporary failure in name")
_NOT_INHERITED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX", "__PYVENV_LAUNCHER__")
"""Variables of the caller's own environment that would mix it into another one."""


def never_stop() -> None:
    """The check of whoever waits until the environment is made."""


@dataclass(frozen=True)
class Environments:
    """`folder` may be shared by several projects and processes; `variables` are those of the caller."""

    folder: Path
    variables: Mapping[str, str]

    def find(self, spec: EnvironmentSpec) -> EnvironmentInfo:
        if spec.is_current:
            return EnvironmentInfo(spec.id, True, sys.prefix, "current")
        place = self.folder / spec.id
        try:
            ready = read_json(place / "ready.json")
        except (FileNotFoundError, SettingsError):
            ready = None
        # The interpreter that a virtual environment links to may have been uninstalled since.
        if isinstance(ready, dict) and _python(place).exists():
            return EnvironmentInfo(spec.id, True, str(place / "env"), str(ready.get("tool", "")))
        return EnvironmentInfo(spec.id, False, "", self._conda()[0] or "venv")

    def python(self, spec: EnvironmentSpec) -> Path:
        """The interpreter of an environment that is ready."""
        return Path(sys.executable) if spec.is_current else _python(self.folder / spec.id)

    def script_variables(self, spec: EnvironmentSpec) -> dict[str, str]:
        """The caller's variables, with the environment's programs first on the PATH."""
        if spec.is_current:
            return dict(self.variables)
        home = self.folder / spec.id / "env"
        variables = self._plain_variables()
        variables["PATH"] = f"{home / 'bin'}:{variables.get('PATH', '')}".rstrip(":")
        variables["CONDA_PREFIX" if (home / "conda-meta").is_dir() else "VIRTUAL_ENV"] = str(home)
        return variables

    def prepare(
        self, spec: EnvironmentSpec, sink: EventSink, *, check: Callable[[], None] = never_stop
    ) -> EnvironmentInfo:
        """Find it or make it; `check` is called now and then, and what it raises ends the making.

        Raises SettingsError (cannot be made), ServiceUnavailable (no network).
        """
        found = self.find(spec)
        if found.is_ready:
            return found
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked(spec.id, sink, check):
            found = self.find(spec)
            if found.is_ready:
                return found
            place = self.folder / spec.id
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            tool, path = self._conda()
            started = time.monotonic()
            sink(Note(f"making environment {spec.id} with {tool or 'venv and pip'}"))
            if tool:
                self._make_conda(spec, place, tool, path, sink, check)
            else:
                self._make_venv(spec, place, sink, check)
            write_json(place / "ready.json", {"id": spec.id, "tool": tool or "venv", "source": spec.source})
            sink(Note(f"environment {spec.id} is ready after {time.monotonic() - started:.0f} s"))
        return self.find(spec)

    def _conda(self) -> tuple[str, str]:
        for tool in CONDA_TOOLS:
            path = shutil.which(tool, path=self.variables.get("PATH"))
            if path is not None:
                return tool, path
        return "", ""

    def _make_conda(
        self, spec: EnvironmentSpec, place: Path, tool: str, path: str, sink: EventSink, check: Callable[[], None]
    ) -> None:
        file = place / "environment.yaml"
        document = {
            "channels": list(spec.channels) or ["conda-forge"],
            "dependencies": [
                f"python{_conda_version(spec.python)}",
                *spec.conda,
                "pip",
                {"pip": [*spec.pip, RUNTIME_REQUIREMENT]},
            ],
        }
        file.write_text(json.dumps(document, indent=2, ensure_ascii=False), encoding="utf-8")  # JSON is YAML
        create = ["create", "--yes"] if tool == "micromamba" else ["env", "create"]
        command = [path, *create, "--prefix", str(place / "env"), "--file", str(file)]
        self._run(command, place, tool, sink, check)

    def _make_venv(self, spec: EnvironmentSpec, place: Path, sink: EventSink, check: Callable[[], None]) -> None:
        requirements = [*pip_requirements(spec.conda), *spec.pip, RUNTIME_REQUIREMENT]
        base = find_python(spec.python, self.variables)
        (place / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
        self._run([base, "-m", "venv", str(place / "env")], place, "venv", sink, check)
        command = [str(_python(place)), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
        self._run([*command, "--requirement", str(place / "requirements.txt")], place, "pip", sink, check)

    def _run(self, command: Sequence[str], place: Path, tool: str, sink: EventSink, check: Callable[[], None]) -> None:
        try:
            run_tool(
                command,
                variables=self._plain_variables(),
                cwd=place,
                tell=lambda line: sink(Note(line)),
                check=check,
            )
        except ToolFailed as failed:
            raise _not_made(tool, failed) from failed
        except OSError as error:
            raise SettingsError(f"the environment cannot be made: {tool} cannot be started: {error}") from error

    def _plain_variables(self) -> dict[str, str]:
        return {name: value for name, value in self.variables.items() if name not in _NOT_INHERITED}

    @contextmanager
    def _locked(self, environment: str, sink: EventSink, check: Callable[[], None]) -> Iterator[None]:
        has_told = False
        with (self.folder / f"{environment}.lock").open("ab") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not has_told:
                        sink(Note(f"environment {environment} is being made by another amlctl; waiting for it"))
                        has_told = True
                    check()
                    time.sleep(_LOOK_S)
            yield


def _python(place: Path) -> Path:
    return place / "env" / "bin" / "python"


def _conda_version(wanted: str) -> str:
    if not wanted:
        return ""
    return wanted if wanted[0] in "<>=!~" else f"={wanted}"


def _not_made(tool: str, failed: ToolFailed) -> AmlctlError:
    told = "\n".join(failed.last_lines)
    if any(sign in told for sign in _NETWORK_SIGNS):
        return ServiceUnavailable(
            f"the environment cannot be made: {tool} reached no package index",
            hint="check the network and pip's settings (`pip config list`), then run it again",
            details=failed.last_lines,
        )
    errors = [line for line in failed.last_lines if line.startswith("ERROR:")]
    reason = f": {errors[-1].removeprefix('ERROR:').strip()}" if errors else ""
    return SettingsError(
        f"the environment cannot be made: {tool} ended with exit code {failed.exit_code}{reason}",
        hint="mend the environment file, then `amlctl env prepare`",
        details=failed.last_lines,
    )
