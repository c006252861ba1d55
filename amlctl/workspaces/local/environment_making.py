"""Makes environments, each once: with conda or one like it where there is one, else with venv and pip."""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from amlctl.core.environment import RUNTIME_REQUIREMENT, EnvironmentSpec
from amlctl.core.events import EventSink, Note
from amlctl.core.message import Command, Message
from amlctl.errors import AmlctlError, ServiceUnavailable, SettingsError
from amlctl.localfs.atomic import write_json
from amlctl.localfs.disk_errors import failing_disk
from amlctl.workspaces.contract import EnvironmentInfo
from amlctl.workspaces.local.conda_names import pip_requirements
from amlctl.workspaces.local.environments import FOLDER_VARIABLE, Environments
from amlctl.workspaces.local.python_versions import find_python
from amlctl.workspaces.local.tools import ToolFailed, run_tool

_LOOK_S = 0.2
_NETWORK_SIGNS = (
    "NewConnectionError",
    "ConnectTimeoutError",
    "NameResolutionError",
    "Temporary failure in name resolution",
    "CondaHTTPError",
)


def never_stop() -> None:
    """The check of whoever waits until the environment is made."""


def prepare_environment(
    environments: Environments, spec: EnvironmentSpec, sink: EventSink, *, check: Callable[[], None] = never_stop
) -> EnvironmentInfo:
    """Find it or make it; `check` is called now and then, and what it raises ends the making.

    Raises SettingsError (cannot be made), ServiceUnavailable (no network).
    """
    found = environments.find(spec)
    if found.is_ready:
        return found
    environments.folder.mkdir(parents=True, exist_ok=True)
    with _locked(environments.folder / f"{spec.id}.lock", spec.id, sink, check):
        found = environments.find(spec)
        if found.is_ready:
            return found
        _Maker(environments, spec, sink, check).make()
    return environments.find(spec)


@dataclass(frozen=True)
class _Maker:
    environments: Environments
    spec: EnvironmentSpec
    sink: EventSink
    check: Callable[[], None]

    @property
    def place(self) -> Path:
        return self.environments.place(self.spec)

    def make(self) -> None:
        self._check_place()
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()
        tool, path = self.environments.conda()
        started = time.monotonic()
        self.sink(Note(f"making environment {self.spec.id} with {tool or 'venv and pip'}"))
        if tool:
            self._with_conda(tool, path)
        else:
            self._with_venv()
        write_json(self.place / "ready.json", {"id": self.spec.id, "tool": tool or "venv"})
        self.sink(Note(f"environment {self.spec.id} is ready after {time.monotonic() - started:.0f} s"))

    def _check_place(self) -> None:
        """Raises SettingsError: an environment holds its own path in text files."""
        try:
            str(self.place).encode()
        except UnicodeEncodeError as error:
            raise SettingsError(
                f"no environment can be made in {self.environments.folder}: a part of that path is no UTF-8",
                hint=f"let {FOLDER_VARIABLE} name another folder, or use --env-from current",
            ) from error

    def _with_conda(self, tool: str, path: str) -> None:
        document = {
            "channels": list(self.spec.channels) or ["conda-forge"],
            "dependencies": [
                f"python{_conda_version(self.spec.python)}",
                *self.spec.conda,
                "pip",
                {"pip": [*self.spec.pip, RUNTIME_REQUIREMENT]},
            ],
        }
        file = self.place / "environment.yaml"
        file.write_text(json.dumps(document, indent=2, ensure_ascii=False), encoding="utf-8")  # JSON is YAML
        create = ["create", "--yes"] if tool == "micromamba" else ["env", "create"]
        self._run(tool, [path, *create, "--prefix", str(self.place / "env"), "--file", str(file)])

    def _with_venv(self) -> None:
        requirements = [*pip_requirements(self.spec.conda), *self.spec.pip, RUNTIME_REQUIREMENT]
        base = find_python(self.spec.python, self.environments.variables)
        file = self.place / "requirements.txt"
        file.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        self._run("venv", [base, "-m", "venv", str(self.place / "env")])
        # No option that says where packages come from: pip's own settings and variables do.
        pip = [str(self.environments.python(self.spec)), "-m", "pip", "install"]
        self._run("pip", [*pip, "--disable-pip-version-check", "--no-input", "--requirement", str(file)])

    def _run(self, tool: str, command: Sequence[str]) -> None:
        variables = self.environments.plain_variables()
        try:
            run_tool(command, variables=variables, cwd=self.place, tell=self._tell, check=self.check)
        except ToolFailed as failed:
            raise _not_made(tool, failed) from failed
        except OSError as error:
            what = f"the environment cannot be made: {tool} cannot be started"
            raise failing_disk(error, what) or SettingsError(f"{what}: {error}") from error

    def _tell(self, line: str) -> None:
        self.sink(Note(line))


@contextmanager
def _locked(path: Path, environment: str, sink: EventSink, check: Callable[[], None]) -> Iterator[None]:
    has_told = False
    with path.open("ab") as lock:
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
        hint=Message("correct the environment file, then ", Command("env", "prepare")),
        details=failed.last_lines,
    )
