"""`compute/*.yaml`: what `az ml compute create -f` takes, and `type: local` of our own."""

from __future__ import annotations

import difflib
from dataclasses import fields
from pathlib import Path
from typing import Any

from amlctl.config.yaml_file import read_yaml
from amlctl.core.compute import ClusterTarget, ComputeTarget, LocalTarget
from amlctl.errors import NotFound, SettingsError
from amlctl.localfs.project import Project

_HANDED_ON = {
    "$schema",
    "tags",
    "identity",
    "ssh_public_access_enabled",
    "ssh_settings",
    "network_settings",
    "enable_node_public_ip",
    "schedules",
    "setup_scripts",
    "create_on_behalf_of",
    "idle_time_before_shutdown",
    "idle_time_before_shutdown_minutes",
    "enable_sso",
    "enable_os_patching",
    "enable_root_access",
    "release_quota_on_stop",
}


def read_compute(path: Path) -> ComputeTarget:
    """Raises NotFound, SettingsError naming file, line, key and the nearest key."""
    document, lines = read_yaml(path)
    if not isinstance(document, dict):
        raise SettingsError(f"{path} is no compute target: a mapping with name and type is needed")
    kind = document.get("type")
    if kind == "local":
        allowed = {field.name for field in fields(LocalTarget)} | {"$schema"}
    elif kind in ("amlcompute", "computeinstance"):
        allowed = {field.name for field in fields(ClusterTarget)} - {"rest"} | _HANDED_ON
    else:
        line = lines.get("type", 1)
        raise SettingsError(f"{path}, line {line}: type is {kind!r}", hint="local, amlcompute or computeinstance")
    for key in document:
        if key not in allowed:
            near = difflib.get_close_matches(str(key), sorted(allowed), n=1)
            raise SettingsError(
                f"{path}, line {lines.get(str(key), 1)}: a target of type {kind} has no key {key!r}",
                hint=f"did you mean {near[0]!r}?" if near else "its keys: " + ", ".join(sorted(allowed)),
            )
    name = document.get("name", path.stem)
    if not isinstance(name, str) or not name:
        raise SettingsError(f"{path}, line {lines.get('name', 1)}: name is no text")
    if kind == "local":
        gpus = None if document.get("gpus") is None else _whole(path, document, lines, "gpus", 0, 0)
        return LocalTarget(name, _whole(path, document, lines, "slots", 1, 1), gpus)
    return ClusterTarget(
        name,
        str(kind),
        size=str(document.get("size", "")),
        tier=str(document.get("tier", "dedicated")),
        location=str(document.get("location", "")),
        description=str(document.get("description", "")),
        min_instances=_whole(path, document, lines, "min_instances", 0, 0),
        max_instances=_whole(path, document, lines, "max_instances", 1, 1),
        idle_time_before_scale_down=_whole(path, document, lines, "idle_time_before_scale_down", 120, 0),
        rest=tuple((key, document[key]) for key in sorted(document) if key in _HANDED_ON and key != "$schema"),
    )


def _whole(path: Path, document: dict[str, Any], lines: dict[str, int], key: str, default: int, least: int) -> int:
    value = document.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SettingsError(
            f"{path}, line {lines.get(key, 1)}: {key} is {value!r}", hint=f"a whole number from {least} on"
        )
    return value


def list_compute_files(project: Project) -> list[ComputeTarget]:
    """Every target of `compute/`, by file name. Raises SettingsError; two files with one name, too."""
    found: dict[str, Path] = {}
    targets = []
    for path in sorted([*project.compute_dir.glob("*.yaml"), *project.compute_dir.glob("*.yml")]):
        try:
            target = read_compute(path)
        except NotFound:
            continue
        if target.name in found:
            raise SettingsError(f"{path} and {found[target.name]} both name the target {target.name!r}")
        found[target.name] = path
        targets.append(target)
    return targets
