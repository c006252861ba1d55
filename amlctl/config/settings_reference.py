"""Every setting with its value and origin in the settings of a command."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from amlctl.config.settings import KNOWN
from amlctl.core.settings import GIB, MIB, Settings


class Setting(NamedTuple):
    """`origin` is `default`, a variable, an option, or `file:line`."""

    key: str
    value: Any
    origin: str

    def to_json(self) -> dict[str, Any]:
        return self._asdict()


def settings_in_use(settings: Settings) -> list[Setting]:
    """Every setting that has a value, in the order of the reference."""
    found = []
    for pattern in (one.key for one in KNOWN):
        for name in settings.workspaces if "NAME" in pattern else ("",):
            key = pattern.replace("NAME", name)
            value = _value(settings, pattern.split("."), name)
            if value is not None:
                found.append(Setting(key, value, settings.origins.get(key, "default")))
    return found


def as_written(value: Any) -> str:
    """The value as it may stand in a settings file, text without quotes."""
    if isinstance(value, int) and not isinstance(value, bool):
        unit, factor = ("GiB", GIB) if value % GIB == 0 else ("MiB", MIB) if value % MIB == 0 else ("", 1)
        return f"{value // factor}{unit}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _value(settings: Settings, parts: list[str], workspace: str) -> Any:
    holder: Any = settings
    if parts[0] == "workspaces":
        holder, parts = settings.workspaces[workspace], parts[2:]
    for part in parts:
        holder = getattr(holder, part)
    return list(holder) if isinstance(holder, tuple) else holder
