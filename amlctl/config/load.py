"""Settings from their layers: default, the user's `config.toml`, `.amlctl.toml`, variables, option.

Every value is checked where it is read, so an error names the file, the line and the key, and the nearest key
that exists. Each value's origin is kept.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from amlctl.config.sizes import parse_size
from amlctl.config.variables import VARIABLES
from amlctl.core.settings import (
    DEFAULT_LOCAL_STORE,
    ENGINES,
    GIB,
    LAYOUTS,
    LOCAL_WORKSPACE,
    MODES,
    ON_INTERRUPT,
    Settings,
    SubmitSettings,
    SyncSettings,
    WorkspaceSettings,
    did_you_mean,
)
from amlctl.errors import RightsError, SettingsError
from amlctl.localfs.project import Project

_SECRET = re.compile(r"[?&](?:sig|se|sp)=|AccountKey=|SharedAccessSignature=", re.IGNORECASE)


def load_settings(
    project: Project, variables: Mapping[str, str], *, user_file: Path | None, workspace: str | None = None
) -> Settings:
    """Raises SettingsError, RightsError."""
    values: dict[str, _Value] = {}
    for path in [user_file, project.settings_file]:
        if path is not None and path.is_file():
            values.update(_read_file(path, _shown(path, project)))
    if workspace is not None:
        values["default_workspace"] = _Value(workspace, "--workspace")
    elif "AMLCTL_WORKSPACE" in variables:
        values["default_workspace"] = _Value(variables["AMLCTL_WORKSPACE"], "AMLCTL_WORKSPACE")
    chosen = str(values.get("default_workspace", _Value(LOCAL_WORKSPACE, "default")).value)
    for variable in VARIABLES:
        if variable.name in variables and variable.name != "AMLCTL_WORKSPACE":
            key = variable.key.format(workspace=chosen)
            values[key] = _Value(_from_text(key, variables[variable.name]), variable.name)
    checked = {key: _check(key, value) for key, value in values.items()}
    return _settings(checked, {key: value.origin for key, value in values.items()})


@dataclass(frozen=True)
class _Value:
    value: Any
    origin: str


def _settings(values: Mapping[str, Any], origins: Mapping[str, str]) -> Settings:
    names = {key.split(".")[1] for key in values if key.startswith("workspaces.")} | {LOCAL_WORKSPACE}
    workspaces = {}
    for name in sorted(names):
        section = _section(values, f"workspaces.{name}.")
        if section.get("compute", "local") == "local":
            section.setdefault("store", DEFAULT_LOCAL_STORE)
        workspaces[name] = WorkspaceSettings(name, **section)
    top = {key: value for key, value in values.items() if "." not in key}
    settings = Settings(
        **top,
        workspaces=workspaces,
        sync=SyncSettings(**_section(values, "sync.")),
        submit=SubmitSettings(**_section(values, "submit.")),
        origins=dict(origins),
    )
    settings.workspace()
    return settings


def _section(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {key[len(prefix) :]: value for key, value in values.items() if key.startswith(prefix)}


# --- reading a file -------------------------------------------------------------------------------------


def _shown(path: Path, project: Project) -> str:
    return path.name if path.parent == project.root else str(path)


def _read_file(path: Path, shown: str) -> dict[str, _Value]:
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise SettingsError(f"{shown} is no UTF-8 text: {error.reason} at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{shown}: {error}", hint="TOML: key = value, texts in double quotes") from error
    except OSError as error:
        raise RightsError(f"{shown} cannot be read: {error.strerror}", hint="check its rights") from error
    lines = _lines(text)
    values: dict[str, _Value] = {}
    for key, value in document.items():
        if key == "workspaces" and isinstance(value, dict):
            for name, section in value.items():
                _flatten(values, f"workspaces.{name}", section, shown, lines)
        elif isinstance(value, dict):
            _flatten(values, key, value, shown, lines)
        else:
            values[key] = _Value(value, f"{shown}, line {lines.get(key, 1)}")
    return values


def _flatten(values: dict[str, _Value], prefix: str, section: Any, shown: str, lines: Mapping[str, int]) -> None:
    origin = f"{shown}, line {lines.get(prefix, 1)}"
    if not isinstance(section, dict):
        raise SettingsError(f"{origin}: {prefix} is no section", hint=f"write [{prefix}] on a line of its own")
    if not section and prefix.startswith("workspaces."):
        values[f"{prefix}.compute"] = _Value("local", origin)
    for key, value in section.items():
        dotted = f"{prefix}.{key}"
        values[dotted] = _Value(value, f"{shown}, line {lines.get(dotted, lines.get(prefix, 1))}")


def _lines(text: str) -> dict[str, int]:
    """The line of each section and key, as far as plain TOML goes."""
    found: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
            section = re.sub(r"\s*\.\s*", ".", match[1].replace('"', "").replace("'", ""))
            found.setdefault(section, number)
        elif match := re.match(r"\s*([\w.\"'-]+)\s*=", line):
            key = match[1].replace('"', "").replace("'", "")
            found.setdefault(f"{section}.{key}" if section else key, number)
    return found


# --- checking values ------------------------------------------------------------------------------------

_Check = Callable[[Any], Any]


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a text is needed, in quotes")
    if _SECRET.search(value):
        raise ValueError("a secret does not belong in a file: set AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_KEY instead")
    return value


def _one_of(words: tuple[str, ...]) -> _Check:
    def check(value: Any) -> Any:
        if value not in words:
            near = did_you_mean(str(value), words)
            raise ValueError(f"it is one of {', '.join(words)}" + (f"; {near}" if near else ""))
        return value

    return check


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false, without quotes, is needed")
    return value


def _size(limit: int) -> _Check:
    def check(value: Any) -> int:
        if not isinstance(value, (str, int)) or isinstance(value, bool):
            raise ValueError('a size such as "64MiB" is needed')
        size = parse_size(value)
        if not 1 <= size <= limit:
            raise ValueError(f"it is from 1 to {limit} bytes")
        return size

    return check


def _patterns(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError('a list of patterns is needed, such as ["*.tmp"]')
    return tuple(value)


_CHECKS: dict[str, _Check] = {
    "default_workspace": _text,
    "experiment": _text,
    "sync.layout": _one_of(LAYOUTS),
    "sync.pack_below": _size(GIB),
    "sync.pack_size": _size(GIB),
    "sync.ignore": _patterns,
    "submit.mode": _one_of(MODES),
    "submit.fetch": _truth,
    "submit.on_interrupt": _one_of(ON_INTERRUPT),
    **{f"workspaces.*.{field.name}": _text for field in fields(WorkspaceSettings) if field.name != "name"},
    "workspaces.*.compute": _one_of(ENGINES),
}


def _check(key: str, value: _Value) -> Any:
    parts = key.split(".")
    pattern = f"workspaces.*.{'.'.join(parts[2:])}" if parts[0] == "workspaces" else key
    check = _CHECKS.get(pattern)
    if check is None:
        section, _, word = pattern.rpartition(".")
        known = [name.rpartition(".")[2] for name in _CHECKS if name.rpartition(".")[0] == section]
        if not known:
            known = ["workspaces", *sorted({name.split(".")[0] for name in _CHECKS})]
            word = parts[0]
        raise SettingsError(
            f"{value.origin}: unknown key {key}",
            hint=did_you_mean(word, known) or "known here: " + ", ".join(sorted(known)),
        )
    try:
        return check(value.value)
    except ValueError as error:
        raise SettingsError(f"{value.origin}: {key} cannot be used: {error}") from error


def _from_text(key: str, text: str) -> Any:
    if _CHECKS.get(key) is _truth:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(text.lower(), text)
    return text
