"""A config as a tree that knows where in the text each value stands, so that one can be changed and all else kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from amlctl.core.depth import MAX_DEPTH
from amlctl.errors import BeyondBounds, SettingsError

MAX_CHARACTERS = 4 << 20
"""Of any text that is parsed: pure Python needs some ten seconds for so many."""
MAX_NODES = 200_000
MAX_EXPANDED = 100_000
"""Values after each alias is counted as what it stands for: nine aliases of nine aliases … come to billions."""
MAX_DIGITS = 300
"""Of a number; Python itself refuses to write those of 4,301 digits."""


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
