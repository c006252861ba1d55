"""YAML documents that remember the line of every value, so that an error can say where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Union

from amlctl.config.nodes import Kind, Node, check_duplicates, check_expanded, is_merge, merged_mappings, yaml_documents
from amlctl.config.yaml_scalars import old_value
from amlctl.errors import SettingsError

MEND = "fix that line and run the command again"

YamlPath = tuple[Union[str, int], ...]
"""The keys and list positions that lead to a value, from the document down."""


@dataclass(frozen=True)
class YamlDocument:
    """Plain values (mappings have texts as keys); `source` names the file in errors."""

    source: str
    value: Any
    lines: Mapping[YamlPath, int]

    def error(self, message: str, *place: str | int, hint: str = "") -> SettingsError:
        """An error with the line of that place, or of the nearest place above it."""
        return SettingsError(f"{self.where(*place)}: {message}", hint=hint or MEND)

    def where(self, *place: str | int) -> str:
        """`file:line` of that place, or of the nearest place above it."""
        while place not in self.lines and place:
            place = place[:-1]
        return f"{self.source}:{self.lines.get(place, 1)}"

    def value_at(self, *place: str | int) -> Any:
        """Raises KeyError."""
        value = self.value
        for key in place:
            value = value[key]
        return value

    def below(self, *place: str | int) -> YamlDocument:
        """The value there as a document of its own, with its lines. Raises KeyError."""
        value, depth = self.value_at(*place), len(place)
        lines = {at[depth:]: line for at, line in self.lines.items() if at[:depth] == place}
        return YamlDocument(self.source, value, lines)


def parse_yaml(text: str, source: str) -> YamlDocument:
    """Raises SettingsError naming `source` and the line: not YAML, beyond the bounds of `config_node`, a key that is
    there twice or is not text, a scalar that is not what its tag or its form says."""
    documents = yaml_documents(text, source)
    if len(documents) > 1:
        raise SettingsError(f"{source}:{documents[1].line}: a second document begins here", hint="keep one of them")
    reader = _Reader(source)
    if not documents:
        return YamlDocument(source, None, reader.lines)
    check_expanded(documents[0], source)
    check_duplicates(documents[0], source)
    return YamlDocument(source, reader.read(documents[0], ()), reader.lines)


class _Reader:
    def __init__(self, source: str) -> None:
        self.lines: dict[YamlPath, int] = {}
        self._source = source
        self._read: dict[int, Any] = {}  # by node, so that an alias is read once

    def read(self, node: Node, place: YamlPath) -> Any:
        self.lines.setdefault(place, node.line)
        node = node.resolved
        if id(node) not in self._read:
            self._read[id(node)] = self._value(node, place)
        return self._read[id(node)]

    def _value(self, node: Node, place: YamlPath) -> Any:
        if node.kind is Kind.MAPPING:
            return self._mapping(node, place)
        if node.kind is Kind.SEQUENCE:
            return [self.read(item, (*place, position)) for position, item in enumerate(node.items)]
        try:
            return old_value(node.text, tag=node.tag, is_quoted=bool(node.quote))
        except ValueError as error:  # a date such as 2026-13-01
            raise self._error(node, str(error)) from error

    def _mapping(self, node: Node, place: YamlPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, item in zip(node.keys, node.items, strict=True):
            if is_merge(key_node):
                for one in merged_mappings(item.resolved):
                    if one.resolved.kind is not Kind.MAPPING:
                        raise self._error(item, "<< needs a mapping")
                    values = {**self._mapping(one.resolved, place), **values}
        for key_node, item in zip(node.keys, node.items, strict=True):
            if is_merge(key_node):
                continue
            key = self._value(key_node, place) if key_node.kind is Kind.SCALAR else None
            if not isinstance(key, str):
                raise self._error(key_node, "a key has to be a text")
            self.lines[(*place, key)] = key_node.line
            values[key] = self.read(item, (*place, key))
        return values

    def _error(self, node: Node, message: str) -> SettingsError:
        return SettingsError(f"{self._source}:{node.line}: {message}", hint=MEND)
