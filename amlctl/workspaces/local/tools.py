"""Programs that make environments: a tool such as uv, pip or conda as a child process, and Python interpreters."""

from __future__ import annotations

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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from amlctl.config.environment_file import python_specifiers
from amlctl.core.environment import OLDEST_PYTHON
from amlctl.errors import SettingsError
from amlctl.localfs.tool_variables import answer_of, find_uv, tool_variables, uv_variables

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
import glob, json, os, sys, sysconfig
from importlib.util import find_spec
bundle, pip = find_spec("ensurepip"), bool(find_spec("pip"))
bundled = bundle and os.path.join(os.path.dirname(bundle.origin), "_bundled")
folders = [sysconfig.get_config_var("WHEEL_PKG_DIR"), bundled]
wheels = [wheel for folder in folders if folder for wheel in sorted(glob.glob(os.path.join(folder, "pip-*.whl")))]
print(json.dumps([list(sys.version_info[:3]), bool(find_spec("venv") and bundle), pip, wheels[-1] if wheels else ""]))
"""
_PYTHON_LIMIT_S = 20.0


@dataclass(frozen=True)
class Python:
    """An interpreter of this machine. `makes_venvs`: Debian's needs the package python3-venv for that. `pip_wheel` is
    the pip that it would put into one; empty without."""

    path: str
    version: str
    makes_venvs: bool
    has_pip: bool
    pip_wheel: str


def find_python(wanted: str, variables: Mapping[str, str], *, needs_venv: bool = False) -> Python:
    """A matching interpreter; this one if it matches. `needs_venv`: it has to make virtual environments by itself,
    without uv. Raises SettingsError."""
    specifiers = python_specifiers(wanted)
    seen: list[str] = []
    without_venv: list[Python] = []
    for path in _candidates(wanted, variables):
        python = _ask(path, variables)
        if python is None:
            continue
        if not specifiers.contains(python.version, prereleases=True):
            seen.append(python.version)
        elif needs_venv and not python.makes_venvs:
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
        hint=f"uv python install {minor[0] if minor else '3.12'}, or install it so that "
        f"`python{minor[0] if minor else '3'}` is on the PATH, or use --env-from current",
    )


def _candidates(wanted: str, variables: Mapping[str, str]) -> Iterator[str]:
    yield sys.executable
    for name in (*(f"python3.{minor}" for minor in _MINORS), "python3"):
        path = shutil.which(name, path=variables.get("PATH"))
        if path is not None:
            yield path
    yield from _installed_by_pyenv(wanted, variables)
    yield from _installed_by_uv(wanted, variables)


def _installed_by_pyenv(wanted: str, variables: Mapping[str, str]) -> Iterator[str]:
    """The newest that matches: what pyenv has on the PATH starts only versions that are chosen in this folder."""
    root = variables.get("PYENV_ROOT") or (variables["HOME"] + "/.pyenv" if variables.get("HOME") else "")
    found = [path.parent.parent.name for path in Path(root).glob("versions/3.*/bin/python")] if root else []
    versions = [one for one in found if re.fullmatch(r"3\.\d+\.\d+", one) and python_specifiers(wanted).contains(one)]
    for version in sorted(versions, key=lambda one: [int(part) for part in one.split(".")], reverse=True)[:1]:
        yield f"{root}/versions/{version}/bin/python"


def _installed_by_uv(wanted: str, variables: Mapping[str, str]) -> Iterator[str]:
    """Those of `uv python install`, which need not be on the PATH."""
    uv = find_uv(variables)
    if not uv:
        return
    command = [uv, "python", "find", "--managed-python", "--no-python-downloads", "--no-project", wanted]
    with suppress(OSError, subprocess.SubprocessError):
        asked = {**tool_variables(variables), **uv_variables(variables)}
        done = answer_of([word for word in command if word], _PYTHON_LIMIT_S, variables=asked)
        done.check_returncode()
        yield done.stdout.strip()


def _ask(path: str, variables: Mapping[str, str]) -> Python | None:
    """None for a program that does not work (a launcher without a target, say), or is too old."""
    try:
        done = answer_of([path, "-I", "-c", _ASK], _PYTHON_LIMIT_S, variables=tool_variables(variables))
        done.check_returncode()
        version, makes_venvs, has_pip, pip_wheel = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    if tuple(version) < OLDEST_PYTHON:
        return None
    return Python(path, ".".join(map(str, version)), makes_venvs, has_pip, pip_wheel)
