"""`pptdaml.yaml`: a conda environment file, as `conda env create -f` takes it."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

from amlctl.config.yaml_file import parse_yaml
from amlctl.core.environment import EnvironmentSpec
from amlctl.errors import NotFound, RightsError, SettingsError

_KEYS = ("name", "channels", "dependencies", "prefix", "variables")
_PYTHON = re.compile(r"python\s*(?P<spec>[=<>!~ ].*)?$")


def read_environment(path: Path) -> EnvironmentSpec:
    """Raises NotFound, RightsError, SettingsError naming the line."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist", hint="amlctl init writes a starter") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is no UTF-8 text: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise RightsError(f"{path} cannot be read: {error.strerror}") from error
    return parse_environment(text, path.name)


def parse_environment(text: str, source: str) -> EnvironmentSpec:
    """The environment of a file's text; `source` names it in errors. Raises SettingsError."""
    document, lines = parse_yaml(text, source)
    if document is None:
        return EnvironmentSpec(source=text)
    if not isinstance(document, dict):
        raise SettingsError(f"{source} is no conda environment file: it needs a list named dependencies")
    for key in document:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, n=1)
            raise SettingsError(
                f"{source}, line {lines.get(str(key), 1)}: unknown key {key!r}",
                hint=f"did you mean {near[0]!r}?" if near else "the keys: " + ", ".join(_KEYS),
            )
    channels = _texts(document.get("channels"), source, "channels", lines)
    dependencies = document.get("dependencies") or []
    if not isinstance(dependencies, list):
        raise SettingsError(f"{source}, line {lines['dependencies']}: dependencies is no list")
    python, conda, pip = "", [], []
    for item in dependencies:
        if isinstance(item, dict):
            if list(item) != ["pip"]:
                raise SettingsError(
                    f"{source}, line {lines['dependencies']}: {', '.join(map(str, item))!r} in dependencies",
                    hint="only `- pip:` may have a list of its own",
                )
            pip += _texts(item["pip"], source, "pip", lines)
        elif not isinstance(item, str):
            raise SettingsError(f"{source}, line {lines['dependencies']}: {item!r} is no package")
        elif match := _PYTHON.fullmatch(item.strip().rpartition("::")[2]):
            python = (match["spec"] or "").strip()
        else:
            conda.append(item.strip())
    return EnvironmentSpec(python=python, channels=tuple(channels), conda=tuple(conda), pip=tuple(pip), source=text)


def _texts(value: Any, source: str, key: str, lines: dict[str, int]) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        line = lines.get(key, lines.get("dependencies", 1))
        raise SettingsError(f"{source}, line {line}: {key} is no list of texts")
    return [item.strip() for item in value]
