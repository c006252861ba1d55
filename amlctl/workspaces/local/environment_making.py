"""Makes environments, each once: with conda or a similar tool where the file lists packages of conda, else by uv.

Each attempt gets a folder of its own, and `ready.json` names it only after its own interpreter was asked what it has.
So a killed maker leaves no half environment that counts, and what it left running writes into a folder that is not
used. The lock of an environment is free again when its holder dies. A mark beside the attempt's folder says the rest:
whether a holder still works (it renews the mark), which tool of a dead one still writes, and which folders are
leftovers.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from amlctl.core.environment import EnvironmentSpec
from amlctl.core.events import EventSink, Note, ToolSaid
from amlctl.core.message import Command, Message
from amlctl.core.secret_names import carries_secret, masked
from amlctl.errors import AmlctlError, RightsError, ServiceUnavailable, SettingsError
from amlctl.localfs.atomic import kept_json, read_json, remove_left_behind, write_bytes, write_json
from amlctl.localfs.disk_errors import disk_error
from amlctl.localfs.folders import make_private_folder
from amlctl.localfs.locks import try_lock
from amlctl.localfs.machine import ProcessIdentity, read_identity
from amlctl.localfs.regular_file import open_regular
from amlctl.localfs.tool_variables import tool_variables
from amlctl.runtime.process_tree import identity_of, is_alive
from amlctl.workspaces.contract import EnvironmentInfo
from amlctl.workspaces.local.environments import (
    FOLDER_VARIABLE,
    READY_FILE,
    READY_FORMAT,
    Environments,
    ask_environment,
    packages_stamp,
    python_of,
)
from amlctl.workspaces.local.packages import Packages, is_of_network
from amlctl.workspaces.local.tools import Python, ToolFailed, ToolRunner

EXPIRES_S = 120.0
"""A mark that was not renewed for so long belongs to a machine that was switched off, or to a suspended process."""
_SUFFIX = ".making"


class Mark:
    """Of one attempt: who makes it with which tool, and by its time that the maker is at work. A full disk is reported
    by the tool that writes to it."""

    def __init__(self, home: Path) -> None:
        self._path = home.with_name(home.name + _SUFFIX)
        self.write()

    def write(self, tool: Optional[int] = None) -> None:
        """`tool` is the process that works now."""
        makers = {"owner": identity_of(os.getpid()), "tool": None if tool is None else identity_of(tool)}
        with contextlib.suppress(OSError):
            write_json(self._path, {name: one and one._asdict() for name, one in makers.items()})

    def renew(self) -> None:
        """Called often."""
        with contextlib.suppress(OSError):
            os.utime(self._path)

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def is_being_made(place: Path) -> bool:
    """Whether the maker of an attempt in `place` is alive and has renewed its mark."""
    return any(_is_in_force(mark) for mark in place.glob(f"*{_SUFFIX}"))


def remove_leftovers(environments: Path, place: Path) -> None:
    """Of makers that have ended: their tools are ended, then their folders removed.

    `place` is of the environment whose lock is held. In others an expired mark of a living process, which was
    suspended, is in force.
    """
    for folder in (environments, *(one for one in environments.iterdir() if one.is_dir())):
        remove_left_behind(folder)
    for mark in environments.glob(f"*/*{_SUFFIX}"):
        tool, owner = (_process(mark, name) for name in ("tool", "owner"))
        if _is_in_force(mark) or (mark.parent != place and owner is not None and is_alive(owner)):
            continue
        if tool is not None and owner is not None and owner.is_gone() and is_alive(tool):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(tool.process, signal.SIGKILL)  # tools are started as leaders of a process group
        shutil.rmtree(mark.with_name(mark.name.removesuffix(_SUFFIX)), ignore_errors=True)
        mark.unlink(missing_ok=True)


def _is_in_force(mark: Path) -> bool:
    owner = _process(mark, "owner")
    try:
        # A clock that was set back must not keep a mark in force for long.
        return (owner is None or not owner.is_gone()) and abs(time.time() - mark.stat().st_mtime) <= EXPIRES_S
    except OSError:
        return False


def _process(mark: Path, name: str) -> Optional[ProcessIdentity]:
    """The `owner` of a mark, or its `tool`; None where that cannot be read."""
    return read_identity(kept_json(mark).get(name))


_POLL_S = 0.2
_SILENT_S = 10.0
"""A lock whose holder has no valid mark for so long is ignored."""
_RESOLVED_S = 3600.0
"""How long the versions that were resolved before a submit are used."""
_PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+_-]+")


def prepare_environment(
    environments: Environments, spec: EnvironmentSpec, sink: EventSink, *, check: Callable[[], None] = lambda: None
) -> EnvironmentInfo:
    """Find it or make it; `check` is called at intervals, and what it raises stops the making.

    Raises SettingsError (cannot be made), RightsError, ServiceUnavailable (no network, disk full).
    """
    found = environments.find(spec.id)
    if found.is_ready:
        return found
    place = environments.folder_of(spec.id)
    _check_path(place)
    try:
        make_private_folder(place)
        with _locked(place, spec.id, sink, check):
            found = environments.find(spec.id)
            if found.is_ready:
                return found
            remove_leftovers(environments.folder, place)
            if not _is_confirmed(environments, spec):
                _Maker(environments, spec, sink, check, place / f"env-{os.urandom(4).hex()}").make()
    except OSError as error:
        hint = f"set {FOLDER_VARIABLE} to another folder"
        known = disk_error(error, str(error.filename or place), rights_hint=hint)
        raise known or RightsError(f"cannot make an environment in {place}: {error.strerror}", hint=hint) from error
    return environments.find(spec.id)


@dataclass(frozen=True)
class _Maker:
    """One attempt, in the folder `home`."""

    environments: Environments
    spec: EnvironmentSpec
    sink: EventSink
    check: Callable[[], None]
    home: Path

    def make(self) -> None:
        mark = Mark(self.home)
        try:
            self._make(mark)
        except BaseException:
            shutil.rmtree(self.home, ignore_errors=True)
            raise
        finally:
            mark.remove()

    def _make(self, mark: Mark) -> None:
        environments, spec = self.environments, self.spec
        wanted = Packages(environments, spec)
        tool, path = wanted.conda()
        started = time.monotonic()
        self.sink(Note(f"making environment {spec.id} with {tool or ('uv' if wanted.uv else 'venv and pip')}"))
        if wanted.settings.unused:
            self.sink(Note(f"pip's settings that environments ignore: {', '.join(wanted.settings.unused)}"))

        def check() -> None:
            mark.renew()
            self.check()

        runner = ToolRunner(lambda line: self.sink(ToolSaid(line)), check, mark.write)

        def run(name: str, command: Sequence[str]) -> None:
            variables = tool_variables(environments.variables)
            try:
                runner.run(name, command, variables=variables, cwd=self.home.parent)
            except ToolFailed as failed:
                raise _not_made(name, failed) from failed

        resolved: list[list[str]] = []
        if tool:
            with self._conda_file() as file:
                create = ["create", "--yes"] if tool == "micromamba" else ["env", "create"]
                run(tool, [path, *create, "--prefix", str(self.home), "--file", str(file)])
        else:
            base = wanted.base_python()
            resolved = _taken(environments.resolved(spec.id, base.version))
            if wanted.uv:
                for command in _by_uv(wanted.uv, base, self.home):
                    run("uv", command)
            else:
                run("venv", [base.path, "-m", "venv", str(self.home)])
        installer = wanted.installer(str(python_of(self.home)), runner=runner)
        packages = wanted.install(installer, self.home, brings_conda=not tool, resolved=resolved)
        _confirm(environments, spec, self.home, tool or ("uv" if wanted.uv else "venv"), packages)
        self.sink(Note(f"environment {spec.id} is ready after {time.monotonic() - started:.1f} s"))

    @contextmanager
    def _conda_file(self) -> Iterator[Path]:
        """The request to conda; it is kept for reading, unless the address of a channel in it has a password."""
        document = {
            "channels": list(self.spec.channels) or ["conda-forge"],
            "dependencies": [self.spec.conda_python, *self.spec.conda, "pip"],
        }
        file = self.home.with_name("environment.yaml")
        text = json.dumps(document, indent=2, ensure_ascii=False)  # JSON is YAML
        write_bytes(file, text.encode())
        try:
            yield file
        finally:
            if carries_secret(text):
                file.unlink(missing_ok=True)


def _by_uv(uv: str, base: Python, home: Path) -> list[list[str]]:
    """Commands that make a virtual environment. It has pip, which scripts may call; from the interpreter's own wheel,
    which needs no network."""
    commands = [[uv, "venv", "--quiet", "--no-project", "--python", base.path, str(home)]]
    if base.pip_wheel:
        install = [uv, "pip", "install", "--quiet", "--no-index", "--no-deps", "--python", str(python_of(home))]
        commands.append([*install, base.pip_wheel])
    return commands


def _taken(file: Path) -> list[list[str]]:
    """Read and remove the file; empty where it is damaged, missing or old."""
    try:
        is_young = time.time() - file.stat().st_mtime < _RESOLVED_S
        found = read_json(file)
        file.unlink()
    except (OSError, SettingsError):
        return []
    is_whole = isinstance(found, list) and all(
        isinstance(pins, list) and all(isinstance(pin, str) and _PIN.fullmatch(pin) for pin in pins) for pins in found
    )
    return found if is_whole and is_young else []


def _confirm(
    environments: Environments, spec: EnvironmentSpec, home: Path, tool: str, packages: dict[str, str]
) -> None:
    """Check the environment's packages and write `ready.json`. Raises SettingsError."""
    found = ask_environment(python_of(home), packages, tool_variables(environments.variables))
    if found.wrong:
        raise SettingsError(
            f"the environment cannot be used: {found.wrong}",
            hint=Message(Command("doctor"), "; pip's own settings are listed by: pip config list"),
        )
    for packages_dir in (home / "lib").glob("python*/site-packages"):
        with contextlib.suppress(OSError):  # else the first import would add it, and change the stamp
            (packages_dir / "__pycache__").mkdir(exist_ok=True)
    ready = {
        "format": READY_FORMAT,
        "id": spec.id,
        "tool": tool,
        "folder": home.name,
        "python": found.python,
        "packages": packages,
        "stamp": packages_stamp(home),
        "lists": [masked(line) for line in (*spec.conda_packages, *spec.pip)],
    }
    write_json(environments.folder_of(spec.id) / READY_FILE, ready)


def _is_confirmed(environments: Environments, spec: EnvironmentSpec) -> bool:
    """Whether an environment that was changed since has all that is asked for."""
    place = environments.folder_of(spec.id)
    ready = kept_json(place / READY_FILE)
    if ready.get("format") != READY_FORMAT:
        return False
    try:
        home, tool = place / Path(ready["folder"]).name, str(ready["tool"])
        packages = {str(name): str(version) for name, version in ready["packages"].items()}
    except (LookupError, TypeError, AttributeError):
        return False
    try:
        _confirm(environments, spec, home, tool, packages)
    except SettingsError:
        (place / READY_FILE).unlink(missing_ok=True)
        if home != place and not python_of(home).exists():
            shutil.rmtree(home, ignore_errors=True)  # without Python it cannot be in use
        return False
    return True


@contextmanager
def _locked(place: Path, environment: str, sink: EventSink, check: Callable[[], None]) -> Iterator[None]:
    """One maker at a time; a holder of the lock without a valid mark is not waited for."""
    since_s, is_reported = time.monotonic(), False
    with open_regular(place.with_name(f"{place.name}.lock"), "ab") as lock:
        while not try_lock(lock.fileno()):
            if is_being_made(place):
                since_s = time.monotonic()
            elif time.monotonic() - since_s > _SILENT_S:
                break  # each attempt has a folder of its own, so both may continue
            if not is_reported:
                sink(Note(f"waiting for another amlctl that is making environment {environment}"))
                is_reported = True
            check()
            time.sleep(_POLL_S)
        yield


def _check_path(place: Path) -> None:
    """An environment has its own path in text files. Raises SettingsError."""
    try:
        str(place).encode()
    except UnicodeEncodeError as error:
        raise SettingsError(
            f"cannot make an environment in {place.parent}: the path is not valid UTF-8",
            hint=f"set {FOLDER_VARIABLE} to another folder, or use --env-from current",
        ) from error


def _not_made(tool: str, failed: ToolFailed) -> AmlctlError:
    if is_of_network(failed):
        return ServiceUnavailable(
            f"the environment cannot be made: {tool} cannot reach a package index",
            hint="check the network and the settings of the tool, then run the command again",
            details=failed.last_lines,
        )
    errors = [line.strip() for line in failed.last_lines if re.match(r"\s*(error|critical)", line, re.IGNORECASE)]
    reason = f": {errors[-1]}" if errors else ""
    return SettingsError(
        f"the environment cannot be made: {tool} ended with exit code {failed.exit_code}{reason}",
        hint=Message("correct the environment file, then ", Command("env", "prepare")),
        details=failed.last_lines,
    )
