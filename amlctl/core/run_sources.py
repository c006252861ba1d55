"""Where a run's spec comes from: what several sources say of it, and which of them wins.

The order, from the strongest: the command line, a job file, the run that is repeated, the script's inline block, the
settings. It holds for each field by itself; `variables` and `tags` are merged name by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from amlctl.core.run import RunSpec
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
            if value is None:
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
