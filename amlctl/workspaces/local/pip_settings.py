"""What pip is told by its configuration files and `PIP_` variables, as far as it may count for our environments.

pip itself is asked where its files are (`pip config list`). What says where packages come from is handed on as
variables, and `PIP_CONFIG_FILE` then names no file, so that nothing else of them counts.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from amlctl.errors import SettingsError
from amlctl.localfs.tool_variables import PIP_KEPT, pip_setting, pip_variable, tool_variables

_LIMIT_S = 60.0
_SECTIONS = ("global", "install")
"""Of a configuration file; the later one counts more, and variables count most."""
_LINE = re.compile(r"(?P<section>[a-z]+)\.(?P<name>[A-Za-z_-]+)=(?P<value>'.*'|\".*\")")
# fmt: off
_HARMLESS = frozenset((
    "disable-pip-version-check", "no-input", "root-user-action", "verbose", "quiet", "log",
    "no-python-version-warning",
))
# fmt: on
"""Not handed on, and not worth a word either."""
_OFF = frozenset(("", "0", "false", "no", "off", "n", "f"))


@dataclass(frozen=True)
class PipSettings:
    """`variables` for a pip that installs; `unused` names the settings that were left out."""

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
        kept["PIP_RETRIES"] = "1"  # without a retry pip does not say that it reached no index
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
            timeout=_LIMIT_S,
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
