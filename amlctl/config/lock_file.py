"""`pylock.toml` or `uv.lock` beside `pptdaml.yaml`: the packages that it has resolved, as lines for pip.

Versions are taken, hashes are not: pip asks for a hash of every package once it sees one, and amlctl's own has none.
Formats: https://packaging.python.org/en/latest/specifications/pylock-toml/ (read 2026-11); uv reads its own.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amlctl.config.text_file import TomlDocument, parse_toml, read_text
from amlctl.errors import SettingsError
from amlctl.localfs.tool_variables import answer_of, find_uv

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
            return Lock(name, str(document.values.get("requires-python", "")).replace(" ", ""), lines)
    return None


def _of_pylock(document: TomlDocument) -> tuple[str, ...]:
    packages = document.values.get("packages", [])
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
