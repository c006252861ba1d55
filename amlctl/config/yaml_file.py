"""YAML documents that know the line of every value, for errors."""

from __future__ import annotations

from typing import Any

from amlctl.config.nodes import (
    Kind,
    Node,
    check,
    is_merge,
    merged_mappings,
    yaml_documents,
)
from amlctl.config.text_file import FIX_LINE, Document, Place
from amlctl.config.yaml_scalars import old_value
from amlctl.errors import SettingsError


def parse_yaml(text: str, source: str) -> Document:
    """Raises SettingsError with `source` and the line: not YAML, too large, a key that is repeated or not a string, a
    scalar that does not match its tag or its form."""
    documents = yaml_documents(text, source)
    if len(documents) > 1:
        raise SettingsError(f"{source}:{documents[1].line}: a second document begins here", hint="keep one of them")
    reader = _Reader(source)
    if not documents:
        return Document(source, None, reader.lines)
    check(documents[0], source)
    return Document(source, reader.read(documents[0], ()), reader.lines)


class _Reader:
    def __init__(self, source: str) -> None:
        self.lines: dict[Place, int] = {}
        self._source = source
        self._read: dict[int, Any] = {}  # by node: an alias is read once

    def read(self, node: Node, path: Place) -> Any:
        self.lines.setdefault(path, node.line)
        node = node.resolved
        if id(node) not in self._read:
            self._read[id(node)] = self._value(node, path)
        return self._read[id(node)]

    def _value(self, node: Node, path: Place) -> Any:
        if node.kind is Kind.MAPPING:
            return self._mapping(node, path)
        if node.kind is Kind.SEQUENCE:
            return [self.read(item, (*path, position)) for position, item in enumerate(node.items)]
        try:
            return old_value(node.text, tag=node.tag, is_quoted=bool(node.quote))
        except ValueError as error:  # a date such as 2026-13-01
            raise self._error(node, str(error)) from error

    def _mapping(self, node: Node, path: Place) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, item in zip(node.keys, node.items, strict=True):
            if is_merge(key_node):
                for one in merged_mappings(item.resolved):
                    if one.resolved.kind is not Kind.MAPPING:
                        raise self._error(item, "<< requires a mapping")
                    values = {**self._mapping(one.resolved, path), **values}
        for key_node, item in zip(node.keys, node.items, strict=True):
            if is_merge(key_node):
                continue
            key = self._value(key_node, path) if key_node.kind is Kind.SCALAR else None
            if not isinstance(key, str):
                raise self._error(key_node, "a key must be a string")
            self.lines[(*path, key)] = key_node.line
            values[key] = self.read(item, (*path, key))
        return values

    def _error(self, node: Node, message: str) -> SettingsError:
        return SettingsError(f"{self._source}:{node.line}: {message}", hint=FIX_LINE)
