"""Every setting by its dotted key: what it means, and its value and origin in the settings of a command."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from amlctl.core.settings import ENGINES, GIB, IDENTITIES, LAYOUTS, MIB, MODES, ON_INTERRUPT, Settings


def _words(words: tuple[str, ...]) -> str:
    return ", ".join(words[:-1]) + f" or {words[-1]}"


MEANINGS = {
    "default_workspace": "the workspace that commands use",
    "experiment": "the experiment that runs belong to",
    "environments_dir": "folder of the environments of local runs; without it the user's cache folder",
    "sync.layout": f"how the store keeps files: {_words(LAYOUTS)}",
    "sync.pack_below": "files smaller than this are packed",
    "sync.pack_size": "size of a full pack",
    "sync.ignore": "patterns of files that are not synced, as in .gitignore",
    "submit.mode": f"how datasets reach a run: {_words(MODES)}",
    "submit.fetch": "download outputs when a run finishes",
    "submit.on_interrupt": f"what Ctrl-C does while submit follows a run: {_words(ON_INTERRUPT)}",
    "runs.metric": "the metric that lists of runs show",
    "cache.limit": "copies of a store on the network are evicted above this size",
    "workspaces.NAME.compute": f"where runs execute: {_words(ENGINES)}",
    "workspaces.NAME.store": "folder or URL; without it the blob datastore of the Azure ML workspace",
    "workspaces.NAME.default_compute": "a file of compute/, or serverless",
    "workspaces.NAME.subscription_id": "of the Azure ML workspace",
    "workspaces.NAME.resource_group": "of the Azure ML workspace",
    "workspaces.NAME.workspace_name": "name of the Azure ML workspace",
    "workspaces.NAME.tenant_id": "tenant to log in to",
    "workspaces.NAME.cloud": "another Azure cloud, for example AzureUSGovernment",
    "workspaces.NAME.endpoint": "address of Azure's management service in a private cloud",
    "workspaces.NAME.identity": f"what jobs use to reach data: {_words(IDENTITIES)}",
}


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
    for pattern in MEANINGS:
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
