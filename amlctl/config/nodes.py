"""A YAML or JSON text as a tree that knows the position of each value, so that one can be changed and all else kept;
and plain values of such a tree, with the line of each for errors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import yaml

from amlctl.config.text_file import FIX_LINE, Place, TextDocument
from amlctl.config.yaml_scalars import DATE, NOTHING, NUMBER, TEXT, TRUTH, core_value, old_value, plain_kinds
from amlctl.core.run_schema import MAX_DEPTH
from amlctl.errors import BeyondBounds, SettingsError

MAX_CHARACTERS = 4 << 20
"""Of any text that is parsed: pure Python takes about ten seconds for that."""
MAX_NODES = 200_000
MAX_EXPANDED = 100_000
"""Values with each alias counted as what it stands for: nine aliases of nine aliases … are billions."""
A_LIST, A_TABLE = "a list", "a table"
_CORE = "tag:yaml.org,2002:"
_TAG_KINDS = {"str": TEXT, "int": NUMBER, "float": NUMBER, "bool": TRUTH, "null": NOTHING, "timestamp": DATE}
_yaml: Any = yaml
_Loader: Any = yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader
_UNPRINTABLE = yaml.reader.Reader.NON_PRINTABLE  # compiling one of our own takes 4 ms
_HEXADECIMAL = re.compile(r"[-+]?0[xX][0-9a-fA-F]{1,200}")
_BYTE_ORDER_MARK = "\ufeff"


class Kind(Enum):
    SCALAR = "scalar"
    SEQUENCE = "sequence"
    MAPPING = "mapping"
    ALIAS = "alias"


@dataclass(eq=False)
class Node:
    """`start` and `end` are offsets in the text, including a tag or an anchor; `line` and `column` count from 1. `text`
    is a scalar's content or an alias's name; `tag` only a tag in the text; `quote` the first character of a scalar in
    quotes or of a block. `keys` and `items` are parallel in a mapping; `target` is what an alias stands for.
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
        """This node and all below it; aliases are not followed."""
        pending = [self]
        while pending:
            node = pending.pop()
            yield node
            pending += [*node.keys, *node.items]


def yaml_documents(text: str, source: str) -> list[Node]:
    """One tree per document; tags are not interpreted. Raises SettingsError with `source`, line and column;
    BeyondBounds."""
    if len(text) > MAX_CHARACTERS:
        raise BeyondBounds(f"{source} has more than {MAX_CHARACTERS >> 20} million characters")
    skipped = 1 if text.startswith(_BYTE_ORDER_MARK) else 0  # libyaml does not count it
    text = text[skipped:]
    bad = _UNPRINTABLE.search(text)
    if bad is not None:
        line = text.count("\n", 0, bad.start()) + 1
        raise SettingsError(
            f"{source}:{line}: invalid YAML: the character {bad.group()!a} is not allowed", hint="remove it"
        )
    try:
        return _Builder(source, skipped, yaml.parse(text, Loader=_Loader)).documents()
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark or error.context_mark
        line = min(mark.line, text.count("\n")) + 1 if mark else 1  # libyaml counts the end as a line
        column = f" (column {mark.column + 1})" if mark else ""
        problem = error.problem or error.context or "cannot be parsed"
        if "nesting" in problem:  # libyaml's own limit
            raise too_deep(source, line) from error
        raise SettingsError(f"{source}:{line}: invalid YAML: {problem}{column}", hint=FIX_LINE) from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{source}: invalid YAML: {error}", hint="fix it and run the command again") from error


class _Builder:
    def __init__(self, source: str, skipped: int, events: Iterator[Any]) -> None:
        self._source = source
        self._skipped = skipped
        self._events = events
        self._anchors: dict[str, Node] = {}
        self._count = 0

    def documents(self) -> list[Node]:
        found = []
        for event in self._events:
            if isinstance(event, _yaml.DocumentStartEvent):
                self._anchors.clear()
                found.append(self._build(next(self._events), 0))
        return found

    def _build(self, event: Any, depth: int) -> Node:
        if isinstance(event, _yaml.AliasEvent):
            node = self._node(Kind.ALIAS, event, event.anchor)
            node.target = self._anchors.get(event.anchor)
            if node.target is None:
                missing = f"the anchor of *{event.anchor} is missing"
                raise SettingsError(f"{self._source}:{node.line}: invalid YAML: {missing}", hint=FIX_LINE)
            return node
        if isinstance(event, _yaml.ScalarEvent):
            node = self._node(Kind.SCALAR, event, event.value)
            node.quote = event.style or ""
        else:
            is_mapping = isinstance(event, _yaml.MappingStartEvent)
            node = self._node(Kind.MAPPING if is_mapping else Kind.SEQUENCE, event)
            node.is_flow = bool(event.flow_style)
        node.tag = event.tag or ""
        node.anchor = event.anchor or ""
        if node.anchor:
            self._anchors[node.anchor] = node
        if node.kind is not Kind.SCALAR:
            self._fill(node, depth + 1)
        return node

    def _fill(self, node: Node, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise too_deep(self._source, node.line)
        for event in self._events:
            if isinstance(event, (_yaml.SequenceEndEvent, _yaml.MappingEndEvent)):
                # A block mapping ends, for libyaml, where the next value begins, after blank lines and comments.
                last = node.items[-1].end if node.items else node.start
                node.end = event.end_mark.index + self._skipped if node.is_flow else last
                return
            if node.kind is Kind.MAPPING:
                node.keys.append(self._build(event, depth))
                event = next(self._events)
            node.items.append(self._build(event, depth))

    def _node(self, kind: Kind, event: Any, text: str = "") -> Node:
        self._count += 1
        if self._count > MAX_NODES:
            raise BeyondBounds(f"{self._source} has more than {MAX_NODES:,} values")
        start, end = event.start_mark, event.end_mark
        offsets = start.index + self._skipped, end.index + self._skipped
        return Node(kind, *offsets, start.line + 1, start.column + 1, text)


def too_deep(source: str, line: int) -> BeyondBounds:
    return BeyondBounds(f"{source}:{line}: nested more than {MAX_DEPTH} levels deep")


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
                raise too_deep(source, node.line)
            below = inside | {id(node)} if node.keys or node.items else inside
            found = [measure(one, below) for one in [*node.keys, *node.items]]
            known[id(node)] = 1 + sum(count for count, _ in found), 1 + max((deep for _, deep in found), default=0)
        count, deep = known[id(node)]
        if count > limit:
            raise BeyondBounds(f"{source}:{node.line}: its aliases stand for more than {limit:,} values")
        if deep + len(inside) > MAX_DEPTH + 1:
            raise too_deep(source, node.line)
        return known[id(node)]

    measure(root, frozenset())


def check(root: Node, source: str) -> None:
    """Raises what `check_expanded` raises, and SettingsError with both lines of a repeated key."""
    check_expanded(root, source)
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
    """`<<`: the mapping also has the keys of its value, a mapping or a list of mappings."""
    return key.kind is Kind.SCALAR and key.text == "<<" and not key.quote


def merged_mappings(node: Node) -> Sequence[Node]:
    """The value of `<<`, not resolved: one mapping or several, of which the first wins."""
    return node.items if node.kind is Kind.SEQUENCE else [node]


def _pairs(node: Node) -> Iterator[tuple[Node, Node]]:
    """Keys and values of a mapping. Those of `<<` come before what replaces them; `<<` itself only with a value that is
    not a mapping."""
    pairs = list(zip(node.keys, node.items, strict=True))
    merged = [(pair, one.resolved) for pair in pairs if is_merge(pair[0]) for one in merged_mappings(pair[1].resolved)]
    for pair, one in reversed(merged):
        yield from _pairs(one) if one.kind is Kind.MAPPING else [pair]
    yield from (pair for pair in pairs if not is_merge(pair[0]))


def plain_value(node: Node) -> Any:
    """In YAML 1.2 or JSON, with strings as keys; other tags are ignored. Call `check_expanded` before."""
    node = node.resolved
    if node.kind is Kind.SEQUENCE:
        return [plain_value(item) for item in node.items]
    if node.kind is Kind.SCALAR:
        is_text = node.quote or node.tag == f"{_CORE}str"
        return node.text if is_text else core_value(_json_number(node.text))
    return {key_text(key): plain_value(item) for key, item in _pairs(node) if not is_merge(key)}


def kinds(node: Node) -> set[str]:
    """The kinds of the value in different loaders; empty if its tag leaves that open."""
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


def _json_number(text: str) -> str:
    """JSON5 and Python's JSON have more numbers than YAML 1.2."""
    if _HEXADECIMAL.fullmatch(text):
        return str(int(text, 16))
    word = text.lstrip("+")
    return {"NaN": ".nan", "-NaN": ".nan", "Infinity": ".inf", "-Infinity": "-.inf"}.get(word, text)


def parse_yaml(text: str, source: str) -> TextDocument:
    """Raises SettingsError with `source` and the line: not YAML, too large, a key that is repeated or not a string, a
    scalar that does not match its tag or its form."""
    documents = yaml_documents(text, source)
    if len(documents) > 1:
        raise SettingsError(f"{source}:{documents[1].line}: a second document begins here", hint="keep one of them")
    reader = _Reader(source)
    if not documents:
        return TextDocument(source, None, reader.lines)
    check(documents[0], source)
    return TextDocument(source, reader.read(documents[0], ()), reader.lines)


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
        for key_node, item in _pairs(node):
            if is_merge(key_node):
                raise self._error(item, "<< requires a mapping")
            key = self._value(key_node, path) if key_node.kind is Kind.SCALAR else None
            if not isinstance(key, str):
                raise self._error(key_node, "a key must be a string")
            self.lines[(*path, key)] = key_node.line
            values[key] = self.read(item, (*path, key))
        return values

    def _error(self, node: Node, message: str) -> SettingsError:
        return SettingsError(f"{self._source}:{node.line}: {message}", hint=FIX_LINE)
