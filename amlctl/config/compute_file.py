"""`compute/*.yaml`: what `az ml compute create -f` takes, and `type: local` of our own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from amlctl.config.text_file import file_error, read_text
from amlctl.config.yaml_file import YamlDocument, parse_yaml
from amlctl.core.compute import TIERS, ClusterTarget, ComputeTarget, LocalTarget
from amlctl.core.message import Command
from amlctl.core.settings import did_you_mean
from amlctl.errors import AmlctlError, NotFound, SettingsError
from amlctl.localfs.project import Project

_Check = Callable[[Any], Any]


def read_compute(path: Path) -> ComputeTarget:
    """Raises NotFound, RightsError, SettingsError naming file, line, key and the nearest key."""
    shown = f"{path.parent.name}/{path.name}"
    file = parse_yaml(read_text(path, shown, hint=Command("compute", "list")), shown)
    if not isinstance(file.value, dict):
        raise file.error("no compute target", hint="a file with at least name and type")
    kind = _kind(file)
    values = {key: _checked(file, kind, key) for key in file.value if key not in ("$schema", "type")}
    name = values.pop("name", path.stem)
    if kind == "local":
        return LocalTarget(name, **values)
    least, most = values.get("min_instances"), values.get("max_instances")
    if least is not None and most is not None and least > most:
        raise file.error(f"min_instances is {least}, more than max_instances", "min_instances")
    rest = {key: values.pop(key) for key in tuple(values) if key in _HANDED_ON[kind]}
    return ClusterTarget(name, kind, **values, rest=rest)


@dataclass(frozen=True)
class BrokenFile:
    """A file that is not a target amlctl can use; `name` is the one that it gives itself, else that of the file."""

    path: Path
    name: str
    error: AmlctlError


@dataclass(frozen=True)
class ComputeFiles:
    """All of `compute/`, by file name. One bad file matters only to those who ask for it by its name."""

    targets: Sequence[ComputeTarget]
    broken: Sequence[BrokenFile]

    def find(self, name: str) -> ComputeTarget | None:
        """Raises what is wrong with the file of that name."""
        for target in self.targets:
            if target.name == name:
                return target
        for one in self.broken:
            if one.name == name:
                raise one.error
        return None


def read_compute_files(project: Project) -> ComputeFiles:
    """Raises RightsError where the folder cannot be read."""
    found: dict[str, list[tuple[Path, ComputeTarget]]] = {}
    broken: list[BrokenFile] = []
    for path in _files(project.compute_dir):
        try:
            target = read_compute(path)
        except NotFound:
            continue  # a link that leads nowhere, or a file that was just removed
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


def _kind(file: YamlDocument) -> str:
    kind = file.value.get("type")
    folded = kind.lower() if isinstance(kind, str) else ""
    if folded in _CHECKS:
        return folded
    hint = did_you_mean(folded, _CHECKS) or f"it is one of {', '.join(_CHECKS)}"
    message = f"type cannot be {kind!r}" if folded else "there is no type"
    raise file.error(message, "type", hint=hint)


def _checked(file: YamlDocument, kind: str, key: str) -> Any:
    checks = _CHECKS[kind]
    if key not in checks:
        raise file.error(
            f"a target of type {kind} has no key {key!r}",
            key,
            hint=did_you_mean(key, checks) or f"its keys are {', '.join(sorted(checks))}",
        )
    try:
        return checks[key](file.value[key])
    except ValueError as error:
        raise file.error(f"{key}: {error}", key) from error


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a text is needed")
    return value


def _tier(value: Any) -> str:
    folded = value.lower() if isinstance(value, str) else ""
    if folded not in TIERS:
        raise ValueError(f"it is one of {', '.join(TIERS)}")
    return folded


def _whole(value: Any, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"a whole number from {least} on is needed")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false is needed")
    return value


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("keys and values of its own are needed")
    return value


def _ssh_settings(value: Any) -> dict[str, Any]:
    if "admin_password" in _mapping(value):
        raise ValueError("a password does not belong in a file that is committed: use ssh_key_value")
    return _mapping(value)


def _any(value: Any) -> Any:
    return value


# The fields of the schemas amlCompute and computeInstance in azure-ai-ml 1.35; a test compares them.
_COMMON: Mapping[str, _Check] = {"$schema": _any, "type": _any, "name": _text}
_AZURE: Mapping[str, _Check] = {**_COMMON, "size": _text, "location": _text, "description": _text}
_AZURE_REST: Mapping[str, _Check] = {
    "tags": _mapping,
    "resource_id": _text,
    "identity": _mapping,
    "network_settings": _mapping,
    "ssh_settings": _ssh_settings,
    "ssh_public_access_enabled": _truth,
    "enable_node_public_ip": _truth,
}
_HANDED_ON: Mapping[str, Mapping[str, _Check]] = {
    "amlcompute": _AZURE_REST,
    "computeinstance": {
        **_AZURE_REST,
        "create_on_behalf_of": _mapping,
        "schedules": _mapping,
        "setup_scripts": _mapping,
        "custom_applications": _any,
        "idle_time_before_shutdown": _text,
        "idle_time_before_shutdown_minutes": partial(_whole, least=0),
        "enable_sso": _truth,
        "enable_root_access": _truth,
        "enable_os_patching": _truth,
        "release_quota_on_stop": _truth,
    },
}
_CHECKS: Mapping[str, Mapping[str, _Check]] = {
    "local": {**_COMMON, "slots": partial(_whole, least=1), "gpus": partial(_whole, least=0)},
    "amlcompute": {
        **_AZURE,
        **_HANDED_ON["amlcompute"],
        "tier": _tier,
        "min_instances": partial(_whole, least=0),
        "max_instances": partial(_whole, least=0),
        "idle_time_before_scale_down": partial(_whole, least=0),
    },
    "computeinstance": {**_AZURE, **_HANDED_ON["computeinstance"]},
}
