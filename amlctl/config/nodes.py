"""A config as a tree that knows where in the text each value stands, so that one can be changed and all else kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import yaml

from amlctl.config.yaml_scalars import DATE, NOTHING, NUMBER, TEXT, TRUTH, core_value, plain_kinds
from amlctl.core.run_schema import MAX_DEPTH
from amlctl.errors import BeyondBounds, SettingsError

MAX_CHARACTERS = 4 << 20
"""Of any text that is parsed: pure Python needs some ten seconds for so many."""
MAX_NODES = 200_000
MAX_EXPANDED = 100_000
"""Values after each alias is counted as what it stands for: nine aliases of nine aliases … come to billions."""


class Kind(Enum):
    SCALAR = "scalar"
    SEQUENCE = "sequence"
    MAPPING = "mapping"
    ALIAS = "alias"


@dataclass(eq=False)
class Node:
    """`start` and `end` are offsets in the text; those of a value with a tag or an anchor begin with it. `line` and
    `column` count from 1. `text` is a scalar's content or an alias's name; `tag` stands only where the text has one.
    `quote` is the character that a scalar begins with, or empty. `keys` and `items` are parallel in a mapping.
    """

    kind: Kind
    start: int
    end: int
    line: int
    column: int
    text: str = ""
    tag: str = ""
    anchor: str = ""
    quote: str = ""
    is_flow: bool = False
    keys: list[Node] = field(default_factory=list)
    items: list[Node] = field(default_factory=list)
    target: Node | None = None

    @property
    def resolved(self) -> Node:
        """What an alias stands for; any other node itself."""
        return self if self.target is None else self.target

    def walk(self) -> Iterator[Node]:
        """This node and all below it in the text; aliases are not followed."""
        pending = [self]
        while pending:
            node = pending.pop()
            yield node
            pending += [*node.keys, *node.items]


def check_expanded(root: Node, source: str, limit: int = MAX_EXPANDED) -> None:
    """Raises SettingsError: a value that contains itself. Raises BeyondBounds: more values than `limit`, or deeper
    than `MAX_DEPTH`, when each alias is replaced by what it stands for."""
    known: dict[int, tuple[int, int]] = {}

    def measure(node: Node, inside: frozenset[int]) -> tuple[int, int]:
        node = node.resolved
        if id(node) in inside:
            raise SettingsError(f"{source}:{node.line}: a value cannot contain itself", hint=f"see &{node.anchor}")
        if id(node) not in known:
            if len(inside) > MAX_DEPTH:
                raise BeyondBounds(f"{source}:{node.line}: nested more than {MAX_DEPTH} levels deep")
            below = inside | {id(node)} if node.keys or node.items else inside
            found = [measure(one, below) for one in [*node.keys, *node.items]]
            known[id(node)] = 1 + sum(count for count, _ in found), 1 + max((deep for _, deep in found), default=0)
        count, deep = known[id(node)]
        if count > limit:
            raise BeyondBounds(f"{source}:{node.line}: its aliases stand for more than {limit:,} values")
        if deep + len(inside) > MAX_DEPTH + 1:
            raise BeyondBounds(f"{source}:{node.line}: nested more than {MAX_DEPTH} levels deep")
        return known[id(node)]

    measure(root, frozenset())


def check_duplicates(root: Node, source: str) -> None:
    """Raises SettingsError that names both lines of a key."""
    for node in root.walk():
        seen: dict[tuple[str, str], Node] = {}
        for key in node.keys:
            if key.kind is Kind.SCALAR and not is_merge(key):
                first = seen.setdefault((key.tag, key.text), key)
                if first is not key:
                    raise SettingsError(
                        f"{source}:{key.line}: the key {key.text!r} is there twice, first on line {first.line}",
                        hint="remove one of the two",
                    )


def is_merge(key: Node) -> bool:
    """`<<`: the mapping also has what its value, a mapping or a list of them, has."""
    return key.kind is Kind.SCALAR and key.text == "<<" and not key.quote


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


A_LIST, A_TABLE = "a list", "a table"
_CORE = "tag:yaml.org,2002:"
_TAG_KINDS = {"str": TEXT, "int": NUMBER, "float": NUMBER, "bool": TRUTH, "null": NOTHING, "timestamp": DATE}


def plain_value(node: Node) -> Any:
    """What JSON can hold, with texts as keys; `check_expanded` comes before."""
    node = node.resolved
    if node.kind is Kind.SEQUENCE:
        return [plain_value(item) for item in node.items]
    if node.kind is Kind.SCALAR:
        is_text = node.quote or node.tag == f"{_CORE}str"
        return node.text if is_text else core_value(_json_number(node.text))
    values: dict[str, Any] = {}
    for key, item in zip(node.keys, node.items, strict=True):
        if is_merge(key):
            values = {**_merged(item.resolved), **values}
    for key, item in zip(node.keys, node.items, strict=True):
        if not is_merge(key):
            values[key_text(key)] = plain_value(item)
    return values


def kinds(node: Node) -> set[str]:
    """What the value is to one loader or another; empty where its tag leaves that open."""
    node = node.resolved
    if node.tag.removeprefix(_CORE) in _TAG_KINDS:
        return {_TAG_KINDS[node.tag.removeprefix(_CORE)]}
    if node.kind is not Kind.SCALAR:
        return {A_LIST if node.kind is Kind.SEQUENCE else A_TABLE}
    if node.tag and node.tag != "!":
        return set()
    return {TEXT} if node.quote or node.tag else plain_kinds(_json_number(node.text))


def key_text(key: Node) -> str:
    key = key.resolved
    return key.text if key.kind is Kind.SCALAR else json.dumps(plain_value(key))


def merged_mappings(node: Node) -> Sequence[Node]:
    """What stands at `<<`, as it stands in the text: one mapping or several, of which the first wins."""
    return node.items if node.kind is Kind.SEQUENCE else [node]


def _merged(node: Node) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for one in merged_mappings(node):
        if one.resolved.kind is Kind.MAPPING:
            values = {**plain_value(one), **values}
    return values


def _json_number(text: str) -> str:
    """Python's JSON has these as well."""
    return {"NaN": ".nan", "Infinity": ".inf", "+Infinity": ".inf", "-Infinity": "-.inf"}.get(text, text)
