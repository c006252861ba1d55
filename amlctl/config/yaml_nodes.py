"""YAML text as trees of `Node`, one a document, within bounds and without judging tags."""

from __future__ import annotations

import re
from typing import Any

import yaml

from amlctl.config.config_node import MAX_CHARACTERS, MAX_NODES, Kind, Node
from amlctl.core.depth import MAX_DEPTH
from amlctl.errors import BeyondBounds, SettingsError

_yaml: Any = yaml
_HAS_C = hasattr(yaml, "CSafeLoader")
_UNPRINTABLE = re.compile("[^\\t\\n\\r\\x20-\\x7e\\x85\\xa0-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")
_MARK = "\ufeff"
_BREAK = "\n"
_HINT = "fix it and run the command again"


def yaml_documents(text: str, source: str) -> list[Node]:
    """Raises SettingsError naming `source`, line and column; BeyondBounds."""
    if len(text) > MAX_CHARACTERS:
        raise BeyondBounds(f"{source} has more than {MAX_CHARACTERS >> 20} million characters")
    skipped = 1 if text.startswith(_MARK) else 0  # libyaml does not count it
    text = text[skipped:]
    bad = _UNPRINTABLE.search(text)
    if bad is not None:
        line = text.count("\n", 0, bad.start()) + 1
        raise SettingsError(
            f"{source}:{line}: invalid YAML: the character {bad.group()!a} is not allowed", hint="remove it"
        )
    try:
        return _Builder(source, skipped).documents(text)
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark or error.context_mark
        where = f":{min(mark.line, text.count(_BREAK)) + 1}" if mark else ""  # libyaml counts the end as a line
        column = f" (column {mark.column + 1})" if mark else ""
        problem = error.problem or error.context or "cannot be parsed"
        if "nesting" in problem:  # libyaml's own bound; it looks ahead
            raise BeyondBounds(f"{source}{where}: nested more than {MAX_DEPTH} levels deep") from error
        raise SettingsError(
            f"{source}{where}: invalid YAML: {problem}{column}", hint="fix that line and run the command again"
        ) from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{source}: invalid YAML: {error}", hint=_HINT) from error


class _Builder:
    def __init__(self, source: str, skipped: int) -> None:
        self._source = source
        self._skipped = skipped
        self._count = 0

    def documents(self, text: str) -> list[Node]:
        documents: list[Node] = []
        anchors: dict[str, Node] = {}
        open_nodes: list[Node] = []
        waiting: list[Node | None] = []  # the key that has no value yet, for each open node

        def add(node: Node) -> None:
            if not open_nodes:
                documents.append(node)
            elif open_nodes[-1].kind is Kind.SEQUENCE:
                open_nodes[-1].items.append(node)
            elif (key := waiting[-1]) is None:
                waiting[-1] = node
            else:
                open_nodes[-1].keys.append(key)
                open_nodes[-1].items.append(node)
                waiting[-1] = None

        for event in self._events(text):
            if isinstance(event, _yaml.DocumentStartEvent):
                anchors.clear()
            elif isinstance(event, _yaml.AliasEvent):
                target = anchors.get(event.anchor)
                if target is None:
                    line = event.start_mark.line + 1
                    raise SettingsError(
                        f"{self._source}:{line}: invalid YAML: the anchor of *{event.anchor} is missing"
                    )
                node = self._node(Kind.ALIAS, event, text=event.anchor)
                node.target = target
                add(node)
            elif isinstance(event, _yaml.ScalarEvent):
                node = self._node(Kind.SCALAR, event, text=event.value)
                node.quote = event.style or ""
                self._named(node, event, anchors)
                add(node)
            elif isinstance(event, (_yaml.SequenceStartEvent, _yaml.MappingStartEvent)):
                kind = Kind.SEQUENCE if isinstance(event, _yaml.SequenceStartEvent) else Kind.MAPPING
                node = self._node(kind, event)
                node.is_flow = bool(event.flow_style)
                self._named(node, event, anchors)
                add(node)
                open_nodes.append(node)
                waiting.append(None)
                if len(open_nodes) > MAX_DEPTH:
                    raise BeyondBounds(f"{self._source}:{node.line}: nested more than {MAX_DEPTH} levels deep")
            elif isinstance(event, (_yaml.SequenceEndEvent, _yaml.MappingEndEvent)):
                node = open_nodes.pop()
                waiting.pop()
                below = node.items[-1].end if node.items else node.start
                # That of a block mapping is where the next value begins, after blank lines and comments.
                node.end = event.end_mark.index + self._skipped if node.is_flow else below
        return documents

    def _events(self, text: str) -> Any:
        return yaml.parse(text, Loader=yaml.CSafeLoader if _HAS_C else yaml.SafeLoader)

    def _node(self, kind: Kind, event: Any, text: str = "") -> Node:
        self._count += 1
        if self._count > MAX_NODES:
            raise BeyondBounds(f"{self._source} has more than {MAX_NODES:,} values")
        start, end = event.start_mark, event.end_mark
        return Node(
            kind, start.index + self._skipped, end.index + self._skipped, start.line + 1, start.column + 1, text
        )

    def _named(self, node: Node, event: Any, anchors: dict[str, Node]) -> None:
        node.tag = event.tag or ""
        node.anchor = event.anchor or ""
        if node.anchor:
            anchors[node.anchor] = node
