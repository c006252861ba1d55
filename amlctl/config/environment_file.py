"""`pptdaml.yaml`: a conda environment file, as `conda env create -f` takes it.

The text of a run's environment that is not the project's is an environment of Azure ML: `image` and `conda_file`.

`pylock.toml` or `uv.lock` beside it has the packages that it was resolved to. Versions are taken, hashes are not: pip
asks for a hash of every package once it sees one, and amlctl's own has none.
Formats: https://packaging.python.org/en/latest/specifications/pylock-toml/ (read 2026-11); uv reads its own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amlctl.config.nodes import parse_yaml
from amlctl.config.pip_list import PipList
from amlctl.config.text_file import Place, TextDocument, parse_toml, read_text
from amlctl.core.environment import DEFAULT_IMAGE, OLDEST_PYTHON, EnvironmentSpec, environment_without_file
from amlctl.core.hidden_values import filled
from amlctl.core.message import Command, Message, did_you_mean
from amlctl.core.run import RunRecord
from amlctl.errors import SettingsError
from amlctl.localfs.tool_variables import answer_of, find_uv

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

_KEYS = ("name", "channels", "dependencies", "prefix")
_PYTHON = re.compile(r"python(?![\w.-])\s*(.*)")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_RECORDED = "x-amlctl"
"""Key in a record of an environment whose file named other files: see `recorded_text`."""


def read_environment(path: Path) -> EnvironmentSpec:
    """Raises NotFound, RightsError, SettingsError with the line."""
    text = read_text(path, path.name, hint=Message(Command("init"), " writes a starter"))
    return parse_environment(text, path.name, folder=path.absolute().parent)


def parse_environment(text: str, source: str, *, folder: Path | None = None) -> EnvironmentSpec:
    """The environment in a file's text; `source` names it in errors. Files in it are relative to `folder`, and not
    allowed without one. Raises SettingsError.

    `name` and `prefix`, by which conda chooses a folder, are ignored.
    """
    file = parse_yaml(text, source)
    if isinstance(file.value, dict) and "conda_file" in file.value:
        image = _text(file, file.value.get("image") or DEFAULT_IMAGE, ("image",))
        return replace(conda_environment(file.below("conda_file"), folder), image=image)
    return conda_environment(file, folder)


def recorded_text(text: str, spec: EnvironmentSpec) -> str:
    """The `text` that `spec` was read from, for the record; with the content of other files that it names, so that it
    can be read anywhere."""
    if not spec.has_files:
        return text
    document: dict[str, Any] = {
        "channels": list(spec.channels),
        "dependencies": [spec.conda_python, *spec.conda, {"pip": list(spec.pip)}],
        _RECORDED: {"constraints": list(spec.constraints), "local_files": dict(spec.local_files)},
    }
    if spec.image != DEFAULT_IMAGE:
        document = {"image": spec.image, "conda_file": document}
    return json.dumps(document, indent=2, ensure_ascii=False)


def conda_environment(file: TextDocument, folder: Path | None = None) -> EnvironmentSpec:
    """The environment of a parsed conda file. Raises SettingsError."""
    document = {} if file.value is None else file.value
    if not isinstance(document, dict):
        raise file.error("not a conda environment file", hint="it must have a list named dependencies")
    for key in document:
        if key == "variables":
            raise file.error(
                "variables are not part of a shared environment", key, hint=Command("submit", "--env", "K=V", "SCRIPT")
            )
        if key not in _KEYS and key != _RECORDED:
            hint = did_you_mean(key, _KEYS) or f"the keys are {', '.join(_KEYS)}"
            raise file.error(f"unknown key {key!r}", key, hint=hint)
    recorded = _mapping(file, document.get(_RECORDED), _RECORDED)
    local = _mapping(file, recorded.get("local_files"), _RECORDED, "local_files")
    identified = {path: _text(file, local[path], (_RECORDED, "local_files", path)) for path in local}
    constraints = _list(file, recorded.get("constraints"), _RECORDED, "constraints")
    listed = _list(file, document.get("dependencies"), "dependencies")
    pip = PipList(folder, identified)
    python, conda, places = "", list[str](), dict[str, str]()
    for at, item in enumerate(listed):
        place: Place = ("dependencies", at)
        if isinstance(item, dict):
            key = "`- pip:`"
            _read_pip(file, item, place, pip)
        else:
            key = _text(file, item, place)
            name = key.rpartition("::")[2]
            if match := _PYTHON.fullmatch(name):
                key, python = "python", _python_version(file, match[1], place)
            elif _NAME.match(name):
                conda.append(key)
            else:
                raise file.error(f"{key!r} is not a package", *place, hint="for example numpy=2.1")
        if key in places:
            raise file.error(f"{key} is in dependencies twice", *place)
        places[key] = file.where(*place)
    channels = _list(file, document.get("channels"), "channels")
    return EnvironmentSpec(
        python=python,
        channels=tuple(_text(file, item, ("channels", at)) for at, item in enumerate(channels)),
        conda=tuple(conda),
        pip=tuple(pip.lines),
        constraints=tuple(_text(file, item, (_RECORDED,)) for item in constraints) or tuple(pip.constraints),
        local_files=pip.local,
        source=file.source,
        places={**places, **pip.places},
        has_files=pip.has_files or bool(recorded),
    )


def _read_pip(file: TextDocument, table: Mapping[str, Any], place: Place, pip: PipList) -> None:
    """`table` is an item of `dependencies` that is not text."""
    for key in table:
        if key != "pip":
            raise file.error(f"{key!r} has a list in dependencies", *place, hint="only `- pip:` may have one")
    seen: set[str] = set()
    for position, entry in enumerate(_list(file, table.get("pip"), *place, "pip")):
        line = _text(file, entry, (*place, "pip", position))
        if line in seen:
            raise file.error(f"{line!r} is there twice", *place, "pip", position)
        seen.add(line)
        pip.add(line, file.where(*place, "pip", position))


def _python_version(file: TextDocument, text: str, place: Place) -> str:
    """`3.11` of conda's `=3.11`, `3.11`, `3.11.*`, `=3.11=build`; anything else as written, without spaces."""
    joined = re.sub(r"\s*([,|<>=!~]+)\s*", r"\1", text).partition(" ")[0]
    if plain := re.fullmatch(r"=?(\d+(?:\.\d+)*)(?:\.\*)?(?:=[^=]+)?", joined):
        return plain[1]
    if joined and not re.fullmatch(r"(?:(?:^|[,|])[<>=!~]{0,2}\d[\w.*]*)+", joined):
        raise file.error(f"python {text!r} is not a version", *place, hint="for example python=3.11 or python>=3.9")
    return joined


def _list(file: TextDocument, value: Any, *place: str | int) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise file.error(f"{place[-1]} must be a list", *place, hint="each item on its own line, after `- `")
    return value


def _mapping(file: TextDocument, value: Any, *place: str) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise file.error(f"{place[-1]} must be a mapping", *place)
    return value or {}


def _text(file: TextDocument, value: Any, place: Place) -> str:
    if not isinstance(value, str) or not value.strip():
        what = "this" if isinstance(value, (list, dict)) else repr(value)
        raise file.error(f"{what} must be a string", *place, hint="put it in quotes")
    return value.strip()


def recorded_environment(record: RunRecord, secrets: Mapping[str, str]) -> tuple[EnvironmentSpec, str | None]:
    """The environment of a record, and its text with the `secrets` filled in. Raises SettingsError."""
    known = environment_without_file(record.spec.environment)
    if known is not None or record.spec.environment_content is None:
        return known or EnvironmentSpec(), None
    text = filled(record.spec.environment_content, secrets)
    return parse_environment(text, f"the environment of run {record.run}"), text


_NEWEST_MINOR = 40
_NEWEST_PATCH = 40
"""Versions that are tried to check whether a range has one that the runtime supports."""


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
    """Major and minor version, if the environment file has just one."""
    match = re.fullmatch(r"={0,2}(\d+)\.(\d+)(\.\d+|\.\*)*", spec.python)
    return None if match is None else (int(match[1]), int(match[2]))


def check_runtime_python(spec: EnvironmentSpec) -> None:
    """Raises SettingsError for an environment whose Python is certainly too old for amlctl's runtime."""
    if spec.is_current or not spec.python:
        return
    ranges = [python_specifiers(wanted) for wanted in spec.python.split("|")]  # conda's "or"
    newer = (f"3.{minor}.{patch}" for minor in range(OLDEST_PYTHON[1], _NEWEST_MINOR) for patch in range(_NEWEST_PATCH))
    if any(one.contains(version) for version in (*newer, "4.0") for one in ranges):
        return
    older = (f"3.{minor}.{patch}" for minor in range(OLDEST_PYTHON[1]) for patch in range(_NEWEST_PATCH))
    if not any(one.contains(version) for version in (*older, "2.7", "2.7.18") for one in ranges):
        return  # a version that does not exist (yet) is refused by the tool that searches for it
    oldest = ".".join(map(str, OLDEST_PYTHON))
    place = spec.places.get("python", "")
    raise SettingsError(
        f"{place}: Python {spec.python} is too old: amlctl's runtime requires {oldest} or newer".removeprefix(": "),
        hint=f"use python>={oldest}, or the newest version that the scripts support",
    )


_EXPORT = (
    *("export", "--frozen", "--no-hashes", "--no-header", "--no-annotate", "--no-emit-workspace", "--no-dev"),
    *("--format", "requirements.txt", "--quiet"),
)
_LIMIT_S = 60.0


@dataclass(frozen=True)
class Lock:
    """`lines` for pip; `python` as the file asks for it, or empty."""

    name: str
    python: str
    lines: tuple[str, ...]


def read_lock(folder: Path) -> Lock | None:
    """The lock file of the folder; None without one. Raises SettingsError."""
    for name in ("pylock.toml", "uv.lock"):
        if (folder / name).is_file():
            document = parse_toml(read_text(folder / name, name), name)
            lines = _of_pylock(document) if name == "pylock.toml" else _of_uv(folder)
            return Lock(name, str(document.value.get("requires-python", "")).replace(" ", ""), lines)
    return None


def _of_pylock(document: TextDocument) -> tuple[str, ...]:
    packages = document.value.get("packages", [])
    if not isinstance(packages, list):
        raise SettingsError("pylock.toml: packages must be a list of tables", hint="write it again with uv or pip")
    return tuple(_line(package) for package in packages)


def _line(package: Any) -> str:
    name = str(package.get("name", "")) if isinstance(package, Mapping) else ""
    if not name:
        raise SettingsError("pylock.toml: a package has no name", hint="write it again with uv or pip")
    archive, vcs = (one if isinstance(one, Mapping) else {} for one in (package.get("archive"), package.get("vcs")))
    if archive.get("url"):
        line = f"{name} @ {archive['url']}"
    elif vcs.get("url"):
        line = f"{name} @ {vcs.get('type', 'git')}+{vcs['url']}@{vcs.get('commit-id', '')}"
    elif package.get("version"):
        line = f"{name}=={package['version']}"
    else:
        raise SettingsError(
            f"pylock.toml: {name} is a folder of this machine, which can change later",
            hint="build a wheel of it, or move it below pipeline/",
        )
    marker = str(package.get("marker", ""))
    return f"{line} ; {marker}" if marker else line


def _of_uv(folder: Path) -> tuple[str, ...]:
    uv = find_uv(os.environ)
    if not uv:
        raise SettingsError("uv.lock cannot be read: uv is not installed", hint="pip install uv")
    try:
        done = answer_of([uv, *_EXPORT], _LIMIT_S, variables=os.environ, folder=folder)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SettingsError(f"uv.lock cannot be read: {error}", hint="uv lock") from error
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0].removeprefix("error: ")
        raise SettingsError(f"uv.lock cannot be read: {reason}", hint="uv lock")
    return tuple(line.strip() for line in done.stdout.splitlines() if line.strip() and not line.startswith("#"))
