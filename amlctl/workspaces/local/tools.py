"""Programs that make environments: a tool such as pip or conda as a child process, Python interpreters, pip's settings.

pip itself is asked where its configuration is (`pip config list`). What says where packages come from is passed on as
variables, and `PIP_CONFIG_FILE` then names no file, so that nothing else of it counts.
"""

from __future__ import annotations

import ast
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from amlctl.config.environment_file import python_specifiers
from amlctl.core.environment import OLDEST_PYTHON
from amlctl.errors import SettingsError
from amlctl.localfs.tool_variables import PIP_KEPT, pip_setting, pip_variable, tool_variables

_KEPT_LINES = 40
_POLL_S = 0.2
"""How often `check` is called while the tool is silent."""


class ToolFailed(Exception):
    """`last_lines` of its output, without blank ones."""

    def __init__(self, exit_code: int, last_lines: Sequence[str]) -> None:
        super().__init__(f"exit code {exit_code}")
        self.exit_code = exit_code
        self.last_lines = tuple(last_lines)


@dataclass(frozen=True)
class ToolRunner:
    """`tell` gets each line of a tool's output; `check` is called at intervals, and what it raises kills the tool;
    `started` gets the id of its process, which leads a process group.
    """

    tell: Callable[[str], None] = lambda line: None
    check: Callable[[], None] = lambda: None
    started: Callable[[int], None] = lambda pid: None

    def run(self, name: str, command: Sequence[str], *, variables: Mapping[str, str], cwd: Path) -> None:
        """Raises ToolFailed, SettingsError (it cannot be started), what `check` raises."""
        lines: queue.Queue[str | None] = queue.Queue()
        kept: deque[str] = deque(maxlen=_KEPT_LINES)
        try:
            process = subprocess.Popen(
                list(command),
                cwd=cwd,
                env=dict(variables),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                process_group=0,
            )
        except OSError as error:
            raise SettingsError(f"the environment cannot be made: {name} cannot be started: {error}") from error
        with process:
            reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
            reader.start()
            try:
                self.started(process.pid)
                while True:
                    self.check()
                    try:
                        line = lines.get(timeout=_POLL_S)
                    except queue.Empty:
                        continue
                    if line is None:
                        break
                    if line.strip():
                        kept.append(line)
                        self.tell(line)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
            exit_code = process.wait()
            reader.join()
        if exit_code != 0:
            raise ToolFailed(exit_code, kept)


def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    for line in process.stdout or ():
        lines.put(line.rstrip())
    lines.put(None)


_MINORS = range(20, OLDEST_PYTHON[1] - 1, -1)
"""Minor versions of Python 3 looked up on the PATH, newest first."""
_ASK = """
import json, sys
from importlib.util import find_spec
venv, pip = bool(find_spec("venv") and find_spec("ensurepip")), bool(find_spec("pip"))
print(json.dumps([list(sys.version_info[:3]), venv, pip]))
"""
_PYTHON_LIMIT_S = 20.0


@dataclass(frozen=True)
class Python:
    """An interpreter of this machine. `makes_venvs`: Debian's needs the package python3-venv for that."""

    path: str
    version: str
    makes_venvs: bool
    has_pip: bool


def find_python(wanted: str, variables: Mapping[str, str]) -> Python:
    """A matching interpreter that can make virtual environments; this one if it matches. Raises SettingsError."""
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
        f"the environment requires Python {wanted}; this machine has {found or 'no Python that works'}",
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
    """None for a program that does not work (a launcher without a target, say), or is too old."""
    try:
        result = subprocess.run(
            [path, "-I", "-c", _ASK],
            env=tool_variables(variables),
            capture_output=True,
            text=True,
            timeout=_PYTHON_LIMIT_S,
            stdin=subprocess.DEVNULL,
            check=True,
        )
        version, makes_venvs, has_pip = json.loads(result.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    if tuple(version) < OLDEST_PYTHON:
        return None
    return Python(path, ".".join(map(str, version)), makes_venvs, has_pip)


_PIP_LIMIT_S = 60.0
_SECTIONS = ("global", "install")
"""Of a configuration file; the later one takes precedence, and variables over both."""
_LINE = re.compile(r"(?P<section>[a-z]+)\.(?P<name>[A-Za-z_-]+)=(?P<value>'.*'|\".*\")")
# fmt: off
_HARMLESS = frozenset((
    "disable-pip-version-check", "no-input", "root-user-action", "verbose", "quiet", "log",
    "no-python-version-warning",
))
# fmt: on
"""Not passed on, and not reported either."""
_OFF = frozenset(("", "0", "false", "no", "off", "n", "f"))


@dataclass(frozen=True)
class PipSettings:
    """`variables` for a pip that installs; `unused` names the settings that are ignored."""

    variables: Mapping[str, str]
    unused: tuple[str, ...]


def pip_settings(python: Path, inherited: Mapping[str, str]) -> PipSettings:
    """`python` is the interpreter whose pip will install. Raises SettingsError (a file that pip cannot read)."""
    found = _of_files(python, inherited)
    for name, value in inherited.items():
        setting = pip_setting(name)
        if setting:
            found[setting] = value
    kept = {pip_variable(name): value for name, value in found.items() if name in PIP_KEPT and value}
    if kept.get("PIP_RETRIES") == "0":
        kept["PIP_RETRIES"] = "1"  # without a retry pip does not report that it cannot reach an index
    unused = sorted(
        name
        for name, value in found.items()
        if name not in PIP_KEPT and name not in _HARMLESS and value.lower() not in _OFF
    )
    variables = {**tool_variables(inherited), **kept, "PIP_CONFIG_FILE": os.devnull}
    return PipSettings({**variables, "PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1"}, tuple(unused))


def _of_files(python: Path, inherited: Mapping[str, str]) -> dict[str, str]:
    variables = {**tool_variables(inherited), "PIP_QUIET": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    if "PIP_CONFIG_FILE" in inherited:
        variables["PIP_CONFIG_FILE"] = inherited["PIP_CONFIG_FILE"]
    try:
        done = subprocess.run(
            [str(python), "-m", "pip", "config", "list"],
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PIP_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SettingsError(f"pip's settings cannot be read: {error}", hint="pip config debug") from error
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise SettingsError(
            f"pip's settings cannot be read: {reason.removeprefix('ERROR: ')}", hint="pip config debug lists its files"
        )
    found: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for line in done.stdout.splitlines():
        match = _LINE.fullmatch(line.strip())
        if match is not None and match["section"] in found:
            found[match["section"]][match["name"].lower().replace("_", "-")] = str(ast.literal_eval(match["value"]))
    return {name: value for section in _SECTIONS for name, value in found[section].items()}
