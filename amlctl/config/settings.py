"""Settings from their layers: option, variable, `.amlctl.toml`, the user's `config.toml`, default.

In order: the files become keys with raw values and their lines; variables and the option replace some of them; every
value is checked, with errors that name its line and the nearest key; the result is the frozen `Settings`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from amlctl.config.text_file import Key, TextDocument, parse_toml, read_text
from amlctl.core.message import did_you_mean
from amlctl.core.secret_names import carries_secret, has_secret_name
from amlctl.core.settings import (
    DEFAULT_LOCAL_STORE,
    ENGINES,
    GIB,
    IDENTITIES,
    LAYOUTS,
    LOCAL_WORKSPACE,
    MIB,
    MODES,
    ON_INTERRUPT,
    CacheSettings,
    RunsSettings,
    Settings,
    SubmitSettings,
    SyncSettings,
    WorkspaceSettings,
)
from amlctl.errors import NotFound, SettingsError, UsageError
from amlctl.localfs.project import Project

_CREDENTIALS_HINT = (
    "credentials come from az login, or from the variables AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_KEY "
    "or AZURE_STORAGE_SAS_TOKEN"
)
_WORKSPACE_IN_USE: Key = ("default_workspace",)
_AZURE_NEEDS = ("subscription_id", "resource_group", "workspace_name")
_DEFAULT = "default"


@dataclass(frozen=True)
class _Value:
    """`value` is raw at first, then checked; `origin` is a file and line, a variable or an option."""

    value: Any
    origin: str


def load_settings(
    project: Project, variables: Mapping[str, str], *, user_file: Path | None, workspace: str | None = None
) -> Settings:
    """The settings of one command. `workspace` is the option; an empty variable counts as none.

    Raises SettingsError, RightsError (a file that cannot be read).
    """
    values: dict[Key, _Value] = {}
    for path in (user_file, project.settings_file):
        if path is not None:
            values.update(_read_file(path, path.name if path == project.settings_file else str(path)))
    sections = {key[1]: values.pop(key).origin for key in list(values) if _is_section(key)}
    in_use = _workspace_in_use(values, variables, workspace, {LOCAL_WORKSPACE, *sections})
    for pattern, known in _BY_KEY.items():
        if text := variables.get(known.variable):
            key = tuple(in_use.value if part == "NAME" else part for part in pattern)
            values[key] = _Value(_TRUTHS.get(text.lower(), text) if known.check is _truth else text, known.variable)
    values[_WORKSPACE_IN_USE] = in_use
    checked: dict[Key, _Value] = {}
    broken: dict[str, SettingsError] = {}
    for key, value in values.items():
        try:
            checked[key] = _checked(key, value)
        except SettingsError as error:
            if key[0] != "workspaces" or key[1] == in_use.value or has_secret_name(key[-1]):
                raise
            broken.setdefault(key[1], error)
    return _settings(checked, sections, broken)


def _workspace_in_use(
    values: Mapping[Key, _Value], variables: Mapping[str, str], option: str | None, known: set[str]
) -> _Value:
    if option is not None:
        found = _Value(option, "--workspace")
    elif variables.get("AMLCTL_WORKSPACE"):
        found = _Value(variables["AMLCTL_WORKSPACE"], "AMLCTL_WORKSPACE")
    else:
        found = values.get(_WORKSPACE_IN_USE, _Value(LOCAL_WORKSPACE, _DEFAULT))
    found = _checked(_WORKSPACE_IN_USE, found)
    if found.value not in known:
        raise SettingsError(
            f"{found.origin}: unknown workspace {found.value!r}, known: {', '.join(sorted(known))}",
            hint=did_you_mean(found.value, known) or f"add a section [workspaces.{found.value}] to .amlctl.toml",
        )
    return found


def _settings(values: Mapping[Key, _Value], sections: Mapping[str, str], broken: dict[str, SettingsError]) -> Settings:
    def section(*prefix: str) -> dict[str, Any]:
        depth = len(prefix)
        return {key[depth]: one.value for key, one in values.items() if key[:depth] == prefix and len(key) == depth + 1}

    workspaces = {}
    for name in sorted({LOCAL_WORKSPACE, *sections} - broken.keys()):
        try:
            workspaces[name] = _workspace(name, section("workspaces", name), sections.get(name, _DEFAULT))
        except SettingsError as error:
            broken[name] = error
    settings = Settings(
        **section(),
        workspaces=workspaces,
        sync=SyncSettings(**section("sync")),
        submit=SubmitSettings(**section("submit")),
        cache=CacheSettings(**section("cache")),
        runs=RunsSettings(**section("runs")),
        origins={".".join(key): one.origin for key, one in values.items()},
        broken=broken,
    )
    chosen = settings.workspace()
    if not chosen.runs_here:
        missing = [name for name in _AZURE_NEEDS if getattr(chosen, name) is None]
        if missing:
            raise SettingsError(
                f"{sections[chosen.name]}: [workspaces.{chosen.name}] has no {' and no '.join(missing)}",
                hint="az ml workspace show",
            )
    return settings


def _workspace(name: str, section: Mapping[str, Any], origin: str) -> WorkspaceSettings:
    compute = section.get("compute", ENGINES[0] if name == LOCAL_WORKSPACE else None)
    if compute is None:
        raise SettingsError(
            f"{origin}: [workspaces.{name}] has no compute", hint='compute = "local", or compute = "azureml"'
        )
    store = DEFAULT_LOCAL_STORE if compute == ENGINES[0] else None
    return WorkspaceSettings(name, **{"store": store, **section, "compute": compute})


def _read_file(path: Path, shown: str) -> Mapping[Key, _Value]:
    """The file's values by key; the key (`workspaces`, NAME) stands for the section. Empty without a file."""
    try:
        document = parse_toml(read_text(path, shown), shown)
    except NotFound:
        return {}
    values = {key: one for name, value in document.value.items() for key, one in _flat(document, (name,), value)}
    for key, one in values.items():
        texts = one.value if isinstance(one.value, list) else [one.value]
        if any(isinstance(text, str) and carries_secret(text) for text in texts):
            raise SettingsError(f"{one.origin}: {key[-1]} holds a secret in plain text", hint=_CREDENTIALS_HINT)
    return values


def _flat(document: TextDocument, key: Key, value: Any) -> Iterator[tuple[Key, _Value]]:
    pattern = _pattern(key)
    if not any(known[:-1][: len(key)] == pattern for known in _BY_KEY):
        yield key, _Value(value, document.where(*key))
        return
    if not isinstance(value, dict):
        example = ".".join([*key, "NAME"] if key == ("workspaces",) else key)
        raise document.error(f"{'.'.join(key)} is a section", *key, hint=f"write [{example}] on a line")
    if _is_section(key):
        yield key, _Value(None, document.where(*key))
    for name, inner in value.items():
        yield from _flat(document, (*key, name), inner)


def _is_section(key: Key) -> bool:
    return len(key) == 2 and key[0] == "workspaces"


# --- checks: from a raw value to the one in Settings; ValueError says what it must be ---


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a string, in quotes")
    if not value.strip():
        raise ValueError("must not be empty")
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


def _one_of(words: Sequence[str], value: Any) -> str:
    if value not in words:
        near = did_you_mean(value, words) if isinstance(value, str) else ""
        raise ValueError(f"must be one of {', '.join(words)}" + (f"; {near}" if near else ""))
    return str(value)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        is_quoted = isinstance(value, str) and value.lower() in _TRUTHS
        raise ValueError("must be true or false" + (", without quotes" if is_quoted else ""))
    return value


def _size(value: Any, *, most: int = GIB, shown: str = "1GiB") -> int:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError('must be a size such as "64MiB"')
    try:
        size_bytes = parse_size(str(value))
    except UsageError as error:
        raise ValueError(f'must be a size such as "64MiB", not {str(value)[:40]!r}') from error
    if not 1 <= size_bytes <= most:
        raise ValueError(f"must be from 1 byte to {shown}")
    return size_bytes


def _patterns(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and "\n" not in item for item in value):
        raise ValueError('must be a list of patterns, such as ["*.tmp"]')
    return tuple(value)


def _words(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + f" or {words[-1]}"


class Known(NamedTuple):
    """A setting by its dotted key, in which NAME stands for any workspace. `check` turns a raw value into that of
    Settings; ValueError says what it must be. `variable` replaces it, for the workspace in use."""

    key: str
    meaning: str
    check: Callable[[Any], Any] = _text
    variable: str = ""


KNOWN = (
    Known("default_workspace", "the workspace that commands use", variable="AMLCTL_WORKSPACE"),
    Known("experiment", "the experiment that runs belong to", variable="AMLCTL_EXPERIMENT"),
    Known(
        "environments_dir",
        "folder of the environments of local runs; without it the user's cache folder",
        variable="AMLCTL_ENVIRONMENTS_DIR",
    ),
    Known(
        "sync.layout", f"how the store keeps files: {_words(LAYOUTS)}", partial(_one_of, LAYOUTS), "AMLCTL_SYNC_LAYOUT"
    ),
    Known("sync.pack_below", "files smaller than this are packed", _size, "AMLCTL_SYNC_PACK_BELOW"),
    Known("sync.pack_size", "size of a full pack", _size, "AMLCTL_SYNC_PACK_SIZE"),
    Known("sync.ignore", "patterns of files that are not synced, as in .gitignore", _patterns),
    Known("submit.mode", f"how datasets reach a run: {_words(MODES)}", partial(_one_of, MODES), "AMLCTL_SUBMIT_MODE"),
    Known("submit.fetch", "download outputs when a run finishes", _truth, "AMLCTL_SUBMIT_FETCH"),
    Known(
        "submit.on_interrupt",
        f"what Ctrl-C does while submit follows a run: {_words(ON_INTERRUPT)}",
        partial(_one_of, ON_INTERRUPT),
        "AMLCTL_SUBMIT_ON_INTERRUPT",
    ),
    Known("runs.metric", "the metric that lists of runs show", variable="AMLCTL_METRIC"),
    Known(
        "cache.limit",
        "copies of a store on the network are evicted above this size",
        partial(_size, most=1 << 50, shown="1PiB"),
    ),
    Known("workspaces.NAME.compute", f"where runs execute: {_words(ENGINES)}", partial(_one_of, ENGINES)),
    Known(
        "workspaces.NAME.store",
        "folder or URL; without it the blob datastore of the Azure ML workspace",
        variable="AMLCTL_STORE",
    ),
    Known("workspaces.NAME.default_compute", "a file of compute/, or serverless", variable="AMLCTL_COMPUTE"),
    Known("workspaces.NAME.subscription_id", "of the Azure ML workspace"),
    Known("workspaces.NAME.resource_group", "of the Azure ML workspace"),
    Known("workspaces.NAME.workspace_name", "name of the Azure ML workspace"),
    Known("workspaces.NAME.tenant_id", "tenant to log in to"),
    Known("workspaces.NAME.cloud", "another Azure cloud, for example AzureUSGovernment"),
    Known("workspaces.NAME.endpoint", "address of Azure's management service in a private cloud"),
    Known(
        "workspaces.NAME.identity",
        f"what jobs use to reach data: {_words(IDENTITIES)}",
        partial(_one_of, IDENTITIES),
    ),
)
"""Other variables are read elsewhere: AMLCTL_PROJECT (the project's folder), and those that the runtime sets for
scripts (AMLCTL_RUN_ID, …)."""

_BY_KEY: Mapping[Key, Known] = {tuple(one.key.split(".")): one for one in KNOWN}
_TRUTHS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def _pattern(key: Key) -> Key:
    return ("workspaces", "NAME", *key[2:])[: len(key)] if key[0] == "workspaces" else key


def _checked(key: Key, one: _Value) -> _Value:
    known = _BY_KEY.get(_pattern(key))
    if known is None:
        raise _unknown(key, one)
    try:
        return _Value(known.check(one.value), one.origin)
    except ValueError as error:
        hint = "fix it and run the command again"
        raise SettingsError(f"{one.origin}: {'.'.join(key)} {error}", hint=hint) from error


def _unknown(key: Key, one: _Value) -> SettingsError:
    *above, last = _pattern(key)
    known = {pattern[len(above)] for pattern in _BY_KEY if pattern[: len(above)] == (*above,)}
    what = f"section [{key[0]}]" if len(key) == 1 and isinstance(one.value, dict) else f"key {'.'.join(key)}"
    hint = did_you_mean(last, known) or f"known here: {', '.join(sorted(known))}"
    return SettingsError(f"{one.origin}: unknown {what}", hint=_CREDENTIALS_HINT if has_secret_name(key[-1]) else hint)


_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*([a-zA-Z]*)", re.ASCII)
_UNITS: dict[str, int] = {"": 1, "b": 1} | {
    unit: base**power
    for power, letter in enumerate("kmgt", 1)
    for unit, base in ((f"{letter}ib", 1024), (f"{letter}b", 1000), (letter, 1024))
}


def parse_size(text: str) -> int:
    """Bytes of `64MiB` (1024²), `64MB` (1000²), `64M` (MiB) or `67108864`, in any case.

    Raises UsageError.
    """
    match = _SIZE.fullmatch(text.strip())
    factor = _UNITS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise UsageError(
            f"Invalid size {text[:40]!r}: expected a number with a unit", hint="for example 512KiB, 64MiB or 1GiB"
        )
    return round(float(match[1]) * factor) if "." in match[1] else int(match[1]) * factor


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
    for known in KNOWN:
        is_of_workspace = known.key.startswith("workspaces.")
        for name, holder in settings.workspaces.items() if is_of_workspace else [("", settings)]:
            key = known.key.replace("NAME", name)
            value = attrgetter(key.rpartition(".")[2] if is_of_workspace else key)(holder)
            if value is not None:
                shown = list(value) if isinstance(value, tuple) else value
                found.append(Setting(key, shown, settings.origins.get(key, _DEFAULT)))
    return found


def as_written(value: Any) -> str:
    """The value as it may stand in a settings file, text without quotes."""
    if isinstance(value, int) and not isinstance(value, bool):
        unit, factor = ("GiB", GIB) if value % GIB == 0 else ("MiB", MIB) if value % MIB == 0 else ("", 1)
        return f"{value // factor}{unit}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
