"""YAML files with the line of every top-level key, so that an error can say where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from amlctl.errors import NotFound, RightsError, SettingsError


def read_yaml(path: Path) -> tuple[Any, dict[str, int]]:
    """The document and, for a mapping, the line of each top-level key. Raises NotFound, RightsError, SettingsError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is no UTF-8 text: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise RightsError(f"{path} cannot be read: {error.strerror}") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> tuple[Any, dict[str, int]]:
    """Raises SettingsError naming `source` and the line; a key that stands twice is an error."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        document = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise SettingsError(f"{source}{where}: {error.problem or 'no YAML'}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{source} is no YAML: {error}") from error
    lines: dict[str, int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, _ in node.value:
            name = str(getattr(key, "value", ""))
            if name in lines:
                raise SettingsError(f"{source}, line {key.start_mark.line + 1}: {name!r} stands twice")
            lines[name] = key.start_mark.line + 1
    return document, lines
