"""A script's own config: JSON or YAML, read, changed with `--set`, and kept in the run's record.

The record holds a JSON config as a document and a YAML one as text: its comments and its way to write numbers
survive, and the runtime, which knows no YAML, can write both.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amlctl.config.text_file import file_error
from amlctl.core.config_overrides import Hide, apply_overrides
from amlctl.errors import SettingsError

YAML_SUFFIXES = (".yaml", ".yml")


def read_config(path: Path, shown: str) -> str:
    """The config's text. Raises SettingsError (no UTF-8), RightsError; `shown` names it in errors."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{shown} is no UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise file_error(error, path, shown) from error


def parse_config(text: str, name: str) -> Any:
    """The document; `name` tells JSON from YAML. Raises SettingsError naming file, line and column."""
    if name.lower().endswith(YAML_SUFFIXES):
        return _parse_yaml(text, name)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise SettingsError(
            f"{name}:{error.lineno}:{error.colno}: no JSON: {error.msg}",
            hint="mend the file; a config is JSON (.json) or YAML (.yaml)",
        ) from error


def record_content(text: str, name: str, overrides: Sequence[str], hide: Hide) -> Any:
    """What the record keeps of a config, with `overrides` applied. Raises SettingsError, UsageError."""
    document = parse_config(text, name)
    if not name.lower().endswith(YAML_SUFFIXES):
        return apply_overrides(document, overrides, hide)
    if not overrides:
        return text
    import yaml

    return yaml.safe_dump(apply_overrides(document, overrides, hide), sort_keys=False, allow_unicode=True)


def _parse_yaml(text: str, name: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise SettingsError(f"{name}{place}: no YAML: {error.problem or error}", hint="mend the file") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{name}: no YAML: {error}", hint="mend the file") from error
