"""YAML documents that remember the line of every value, so that an error can say where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Union

import yaml
from yaml.constructor import SafeConstructor

from amlctl.errors import SettingsError

MEND = "mend that line, then run the same command again"

Place = tuple[Union[str, int], ...]
"""The keys and list positions that lead to a value, from the document down."""


@dataclass(frozen=True)
class YamlDocument:
    """Plain values (mappings have texts as keys); `source` names the file in errors."""

    source: str
    value: Any
    lines: Mapping[Place, int]

    def error(self, message: str, *place: str | int, hint: str = "") -> SettingsError:
        """An error with the line of that place, or of the nearest place above it."""
        return SettingsError(f"{self.where(*place)}: {message}", hint=hint or MEND)

    def where(self, *place: str | int) -> str:
        """`file:line` of that place, or of the nearest place above it."""
        while place not in self.lines and place:
            place = place[:-1]
        return f"{self.source}:{self.lines.get(place, 1)}"

    def below(self, *place: str | int) -> YamlDocument:
        """The value there as a document of its own, with its lines. Raises KeyError."""
        value, depth = self.value, len(place)
        for key in place:
            value = value[key]
        lines = {at[depth:]: line for at, line in self.lines.items() if at[:depth] == place}
        return YamlDocument(self.source, value, lines)


def parse_yaml(text: str, source: str) -> YamlDocument:
    """Raises SettingsError naming `source` and the line: no YAML, a key that stands twice or is no text."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        reader = _Reader(source)
        return YamlDocument(source, None if node is None else reader.read(node, ()), reader.lines)
    except yaml.MarkedYAMLError as error:
        where = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise SettingsError(f"{source}{where}: no YAML: {error.problem}", hint=MEND) from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{source}: no YAML: {error}", hint=MEND) from error
    except RecursionError as error:
        raise SettingsError(f"{source}: no YAML that can be read: nested too deep", hint=MEND) from error


class _Reader:
    def __init__(self, source: str) -> None:
        self.lines: dict[Place, int] = {}
        self._source = source
        self._scalars = SafeConstructor()
        self._read: dict[int, Any] = {}  # by node, so that an alias is read once
        self._open: set[int] = set()

    def read(self, node: yaml.Node, place: Place) -> Any:
        self.lines.setdefault(place, node.start_mark.line + 1)
        if id(node) in self._open:
            raise self._error(node, "a value that holds itself")
        if id(node) not in self._read:
            self._open.add(id(node))
            self._read[id(node)] = self._value(node, place)
            self._open.discard(id(node))
        return self._read[id(node)]

    def _value(self, node: yaml.Node, place: Place) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*place, position)) for position, item in enumerate(node.value)]
        try:
            return self._scalars.construct_object(node)
        except ValueError as error:  # a date such as 2026-13-01
            raise self._error(node, str(error)) from error

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._scalars.construct_object(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                raise self._error(key_node, "a key has to be a text")
            if key in values:
                raise self._error(key_node, f"the key {key!r} stands twice")
            self.lines[(*place, key)] = key_node.start_mark.line + 1
            values[key] = self.read(value_node, (*place, key))
        return values

    def _error(self, node: yaml.Node, message: str) -> SettingsError:
        return SettingsError(f"{self._source}:{node.start_mark.line + 1}: {message}", hint=MEND)
