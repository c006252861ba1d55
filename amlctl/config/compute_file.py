"""`compute/*.yaml`: what `az ml compute create -f` takes, and `type: local` of our own.

For a cluster or an instance only keys that amlctl uses are checked here: `azure.ai.ml` knows the whole schema, takes
a second to import, and checks the file when a target is created from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amlctl.config.nodes import parse_yaml
from amlctl.config.text_file import TextDocument, file_error, read_text
from amlctl.core.compute import TIERS, ClusterTarget, ComputeTarget, LocalTarget
from amlctl.core.message import Command, did_you_mean
from amlctl.errors import AmlctlError, NotFound, SettingsError
from amlctl.localfs.project import Project

_KINDS = ("local", "amlcompute", "computeinstance")
_TEXTS = ("size", "tier", "location", "description")
_COUNTS = ("min_instances", "max_instances", "idle_time_before_scale_down")
_LOCAL = {"slots": 1, "gpus": 0}
"""Keys of a local target, with their smallest value."""


def read_compute(path: Path) -> ComputeTarget:
    """Raises NotFound, RightsError, SettingsError with file, line and key."""
    shown = f"{path.parent.name}/{path.name}"
    file = parse_yaml(read_text(path, shown, hint=Command("compute", "list")), shown)
    if not isinstance(file.value, dict):
        raise file.error("not a compute target", hint="a file with at least name and type")
    kind = _kind(file)
    values = {key: value for key, value in file.value.items() if key not in ("$schema", "type")}
    name = values.pop("name", path.stem)
    if not isinstance(name, str) or not name:
        raise file.error("name must be a string", "name")
    return _local(file, name, values) if kind == "local" else _cluster(file, path, name, kind, values)


def _kind(file: TextDocument) -> str:
    kind = file.value.get("type")
    folded = kind.lower() if isinstance(kind, str) else ""
    if folded in _KINDS:
        return folded
    hint = did_you_mean(folded, _KINDS) or f"must be one of {', '.join(_KINDS)}"
    raise file.error(f"Invalid type {kind!r}" if folded else "type is missing", "type", hint=hint)


def _local(file: TextDocument, name: str, values: Mapping[str, Any]) -> LocalTarget:
    for key, value in values.items():
        if key not in _LOCAL:
            hint = did_you_mean(key, _LOCAL) or f"its keys are {', '.join(sorted(('name', 'type', *_LOCAL)))}"
            raise file.error(f"a target of type local has no key {key!r}", key, hint=hint)
        if isinstance(value, bool) or not isinstance(value, int) or value < _LOCAL[key]:
            raise file.error(f"{key} must be a whole number of at least {_LOCAL[key]}", key)
    return LocalTarget(name, **values)


def _cluster(file: TextDocument, path: Path, name: str, kind: str, values: dict[str, Any]) -> ClusterTarget:
    counts: dict[str, Any] = {key: _count(file, key) for key in _COUNTS if values.pop(key, None) is not None}
    texts = {key: file.value[key] for key in _TEXTS if values.pop(key, None) is not None}
    for key, value in texts.items():
        if not isinstance(value, str):
            raise file.error(f"{key} must be a string", key)
    if "tier" in texts:
        texts["tier"] = texts["tier"].lower()
        if texts["tier"] not in TIERS:
            raise file.error(f"tier must be one of {', '.join(TIERS)}", "tier")
    least, most = counts.get("min_instances"), counts.get("max_instances")
    if least is not None and most is not None and least > most:
        raise file.error(f"min_instances is {least}, more than max_instances", "min_instances")
    ssh = values.get("ssh_settings")
    if isinstance(ssh, dict) and "admin_password" in ssh:
        raise file.error("ssh_settings: do not put a password into a committed file; use ssh_key_value", "ssh_settings")
    return ClusterTarget(name, kind, **texts, **counts, rest=values, file=str(path))


def _count(file: TextDocument, key: str) -> int:
    """Azure ML accepts digits in quotes, too."""
    value = file.value[key]
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise file.error(f"{key} must be a whole number of at least 0", key)
    return value


@dataclass(frozen=True)
class BrokenFile:
    """A file that amlctl cannot use; `name` is its own or the file's."""

    path: Path
    name: str
    error: AmlctlError


@dataclass(frozen=True)
class ComputeFiles:
    """All of `compute/`, by file name. A broken file is an error only for its own name."""

    targets: Sequence[ComputeTarget]
    broken: Sequence[BrokenFile]

    def find(self, name: str) -> ComputeTarget | None:
        """Raises the error of a broken file of that name."""
        for target in self.targets:
            if target.name == name:
                return target
        for one in self.broken:
            if one.name == name:
                raise one.error
        return None


def read_compute_files(project: Project) -> ComputeFiles:
    """Raises RightsError if the folder cannot be read."""
    found: dict[str, list[tuple[Path, ComputeTarget]]] = {}
    broken: list[BrokenFile] = []
    for path in _files(project.compute_dir):
        try:
            target = read_compute(path)
        except NotFound:
            continue  # a broken link, or a file that was just removed
        except AmlctlError as error:
            broken.append(BrokenFile(path, _own_name(path), error))
        else:
            found.setdefault(target.name, []).append((path, target))
    targets = []
    for name, same in found.items():
        if len(same) == 1:
            targets.append(same[0][1])
            continue
        twins = " and ".join(f"compute/{path.name}" for path, _ in same[:2])
        clash = SettingsError(f"{twins} are both named {name!r}", hint="give one of them another name")
        broken += [BrokenFile(path, name, clash) for path, _ in same]
    return ComputeFiles(targets, broken)


def _own_name(path: Path) -> str:
    try:
        value = parse_yaml(read_text(path, path.name), path.name).value
    except AmlctlError:
        return path.stem
    name = value.get("name") if isinstance(value, dict) else None
    return name if isinstance(name, str) else path.stem


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml"))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise file_error(error, folder, str(folder)) from error
