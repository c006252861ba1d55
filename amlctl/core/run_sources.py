"""Where a run's spec comes from: what several sources say of it, and which of them wins.

The order, from the strongest: the command line, a job file, the run that is repeated, the script's inline block, the
settings. It holds for each field by itself; `variables` and `tags` are merged name by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import tomllib

from amlctl.core.run import RunSpec
from amlctl.core.wording import did_you_mean
from amlctl.errors import AmlctlError, NotFound, SettingsError, UsageError

_BY_NAME = frozenset({"variables", "tags"})
_BELONGS_TO = {
    "config_content": "config",
    "config_file": "config",
    "environment_content": "environment",
    "manifests": "datasets",
}
"""These fields come from the source of another one, or from none."""


@dataclass(frozen=True)
class PartialSpec:
    """What one source says: values of fields of `RunSpec`, by name; None: it says nothing of that field.

    `lines` has the `file:line` of a field, or of a part of one (`inputs.data`).
    """

    source: str
    values: Mapping[str, Any]
    lines: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MergedSpec:
    """`sources` names the source of each field that has one; `lines` are those of the values that won."""

    spec: RunSpec
    sources: Mapping[str, str]
    lines: Mapping[str, str]

    def at(self, key: str) -> AbstractContextManager[None]:
        """An error about that value begins with its `file:line`, if it has one."""
        return at_line(self.lines.get(key, ""))


@contextmanager
def at_line(line: str) -> Iterator[None]:
    """An error about a value begins with the `file:line` of it; empty: it has none."""
    try:
        yield
    except AmlctlError as error:
        if not line or not isinstance(error, (NotFound, SettingsError, UsageError)):
            raise
        raise type(error)(f"{line}: {error.message}", hint=error.hint, details=error.details) from error


def merge(sources: Iterable[PartialSpec]) -> MergedSpec:
    """`sources` from the strongest to the weakest."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    lines: dict[str, str] = {}
    for one in sources:
        for name, value in one.values.items():
            if value is None or (name in _BY_NAME and not value):
                continue
            if name in _BY_NAME:
                values[name] = {**value, **values.get(name, {})}
            elif name not in values:
                values[name] = value
            origins.setdefault(name, one.source)
        lines.update(
            (key, line)
            for key, line in one.lines.items()
            if key not in lines and origins.get(key.partition(".")[0], one.source) == one.source
        )
    for name, main in _BELONGS_TO.items():
        if origins.get(name) != origins.get(main):
            values.pop(name, None)
            origins.pop(name, None)
    return MergedSpec(RunSpec(**values), origins, lines)


# --- the script's inline block (PEP 723), table [tool.amlctl] ---
# Grammar: https://packaging.python.org/en/latest/specifications/inline-script-metadata/

_BLOCK = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)[ \t]*$\n(?P<content>(?:^#(?:| .*)$\n)+?)^# ///[ \t]*$")
_OPENING = re.compile(r"(?m)^# /// script[ \t]*$")
_TOML_PLACE = re.compile(r"\s*\(at line (\d+), column (\d+)\)")
_KEYS = ("datasets", "produces", "compute")


def read_script_block(source: str, file: str) -> PartialSpec:
    """What `source` (a script's text) says of its runs, dataset names as written; `file` names it in errors.

    Raises SettingsError naming file and line: not closed, twice, invalid TOML, unknown key, wrong type.
    """
    source = source.replace("\r\n", "\n")
    openings = [_line_of(source, match.start()) for match in _OPENING.finditer(source)]
    blocks = [match for match in _BLOCK.finditer(source) if match["type"] == "script"]
    if not openings:
        return PartialSpec(file, {})
    if not blocks:
        raise SettingsError(
            f"{file}:{openings[0]}: the inline block is not closed",
            hint="end it with a line '# ///'; every line between begins with '# '",
        )
    if len(blocks) > 1:
        raise SettingsError(f"{file}:{_line_of(source, blocks[1].start())}: a second inline block 'script'")
    content = "\n".join(line[2:] if line.startswith("# ") else line[1:] for line in blocks[0]["content"].splitlines())
    return _read(content, file, _line_of(source, blocks[0].start()))


def _line_of(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _read(content: str, file: str, opening_line: int) -> PartialSpec:
    try:
        document = tomllib.loads(content)
    except RecursionError as error:
        raise SettingsError(f"{file}:{opening_line}: invalid TOML: nested too deep", hint="write it flatter") from error
    except ValueError as error:  # a TOMLDecodeError, or that of a number of 5,000 digits
        text, place = str(error), _TOML_PLACE.search(str(error))
        line = opening_line + (int(place[1]) if place else content.count("\n") + 1)
        column = f":{int(place[2]) + 2}" if place else ""
        raise SettingsError(f"{file}:{line}{column}: {_TOML_PLACE.sub('', text)}") from error
    table = document.get("tool", {}).get("amlctl", {}) if isinstance(document.get("tool", {}), dict) else {}
    if not isinstance(table, dict):
        raise SettingsError(f"{file}:{opening_line}: [tool.amlctl] must be a table")

    def line_of(key: str) -> str:
        for number, line in enumerate(content.splitlines(), start=1):
            if re.match(rf"\s*[\"']?(?:tool\.amlctl\.)?{re.escape(key)}[\"']?\s*=", line):
                return f"{file}:{opening_line + number}"
        return f"{file}:{opening_line}"

    for key in table:
        if key not in _KEYS:
            hint = did_you_mean(key, _KEYS) or f"known keys: {', '.join(_KEYS)}"
            raise SettingsError(f"{line_of(key)}: unknown key {key!r} in [tool.amlctl]", hint=hint)

    for key, value in table.items():
        is_text = isinstance(value, str) and value
        is_list = isinstance(value, list) and all(isinstance(name, str) and name for name in value)
        if key == "compute" and not is_text:
            raise SettingsError(f"{line_of(key)}: compute must be the name of a compute target", hint='compute = "gpu"')
        if key != "compute" and not is_list:
            hint = f'{key} = ["working/images"]'
            raise SettingsError(f"{line_of(key)}: {key} must be a list of dataset names", hint=hint)
    return PartialSpec(file, table, {key: line_of(key) for key in table})
