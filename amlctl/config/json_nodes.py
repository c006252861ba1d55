"""JSON text as trees of `Node`, within bounds.

Comments, trailing commas, single quotes, keys without quotes and several documents in one file are common in configs
(JSON with comments, JSON5, JSON lines). They are read, and the first is remembered as what makes the text not strict.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from amlctl.config.nodes import MAX_CHARACTERS, MAX_NODES, Kind, Node
from amlctl.core.run_schema import MAX_DEPTH
from amlctl.errors import BeyondBounds, SettingsError

_TOKEN = re.compile(
    r"""(?P<space>[ \t\n\r]+)
    |(?P<other_space>[\ufeff\xa0\u2028\u2029\f\v]+)
    |(?P<comment>//[^\n]*|\#[^\n]*|/\*(?:[^*]|\*(?!/))*\*/)
    |(?P<sign>[{}\[\]:,])
    |(?P<string>"[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*")
    |(?P<single>'[^'\\\n]*(?:\\.[^'\\\n]*)*')
    |(?P<word>[^\s{}\[\]:,"'\#/]+)""",
    re.VERBOSE | re.DOTALL,
)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_WORDS = ("true", "false", "null")
_NAME = re.compile(r"[^\W\d][\w$-]*|\$[\w$-]*")
_NUMBER_5 = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+\.?[0-9]*(?:[eE][-+]?[0-9]+)?)")
_CONSTANTS = re.compile(r"[-+]?(?:NaN|Infinity)")


@dataclass(frozen=True)
class JsonText:
    """`oddity` is the error that a strict reader would raise; None: it is JSON."""

    documents: list[Node]
    oddity: SettingsError | None


class _Token(NamedTuple):
    kind: str
    text: str
    start: int


def json_documents(text: str, source: str) -> JsonText:
    """Raises SettingsError naming `source`, line and column; BeyondBounds."""
    if len(text) > MAX_CHARACTERS:
        raise BeyondBounds(f"{source} has more than {MAX_CHARACTERS >> 20} million characters")
    return _Reader(text, source).read()


class _Reader:
    def __init__(self, text: str, source: str) -> None:
        self._text = text
        self._source = source
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]
        self._line = 0
        self._oddity: SettingsError | None = None
        self._count = 0

    def read(self) -> JsonText:
        documents: list[Node] = []
        open_nodes: list[Node] = []
        expected = "value"
        for token in self._tokens():
            here = open_nodes[-1] if open_nodes else None
            closing = {Kind.MAPPING: "}", Kind.SEQUENCE: "]"}.get(here.kind, "") if here else ""
            is_sign = token.kind == "sign"
            if is_sign and token.text == closing and expected != "colon" and not self._lacks_value(here):
                if expected in ("key", "value") and here is not None and here.items:
                    self._is_odd(token, "a comma before the end")
                assert here is not None
                here.end = token.start + 1
                open_nodes.pop()
                expected = "comma"
            elif expected == "comma" and is_sign and token.text == "," and here is not None:
                expected = "key" if here.kind is Kind.MAPPING else "value"
            elif expected == "comma" and here is None:
                self._is_odd(token, "a second document")
                expected = "value"
                self._open(self._value(token), documents, open_nodes)
                expected = self._after(documents[-1], open_nodes)
            elif expected == "colon" and is_sign and token.text == ":":
                expected = "value"
            elif expected == "key" and here is not None:
                here.keys.append(self._key(token))
                expected = "colon"
            elif expected == "value":
                node = self._value(token)
                self._open(node, documents if here is None else here.items, open_nodes)
                expected = self._after(node, open_nodes)
            else:
                what = {"comma": f"',' or '{closing}'", "colon": "':'"}.get(expected, f"a {expected}")
                raise self._error(token.start, f"expected {what}")
        if open_nodes or not documents or expected != "comma":
            raise self._error(len(self._text), "it ends too early")
        return JsonText(documents, self._oddity)

    @staticmethod
    def _lacks_value(here: Node | None) -> bool:
        return here is not None and len(here.keys) > len(here.items)

    def _open(self, node: Node, into: list[Node], open_nodes: list[Node]) -> None:
        into.append(node)
        if node.kind is not Kind.SCALAR:
            open_nodes.append(node)
            if len(open_nodes) > MAX_DEPTH:
                raise BeyondBounds(f"{self._source}:{node.line}: nested more than {MAX_DEPTH} levels deep")

    @staticmethod
    def _after(node: Node, open_nodes: list[Node]) -> str:
        return {Kind.MAPPING: "key", Kind.SEQUENCE: "value"}.get(node.kind, "comma")

    def _tokens(self) -> Iterator[_Token]:
        at = 0
        while at < len(self._text):
            match = _TOKEN.match(self._text, at)
            if match is None:
                raise self._error(at, "a string without end" if self._text[at] in "\"'" else "this stands for nothing")
            kind = str(match.lastgroup)
            token = _Token(kind, match.group(), at)
            at = match.end()
            if kind == "comment":
                self._is_odd(token, "a comment")
            elif kind == "other_space":
                if token.start or token.text != "\ufeff":
                    self._is_odd(token, "a space that is not JSON's")
            elif kind != "space":
                yield token

    def _key(self, token: _Token) -> Node:
        if token.kind == "word" and _NAME.fullmatch(token.text):
            self._is_odd(token, "a key without quotes")
            return self._node(Kind.SCALAR, token, token.text)
        if token.kind in ("string", "single"):
            return self._node(Kind.SCALAR, token, self._string(token), quote=token.text[0])
        raise self._error(token.start, "expected a key in double quotes")

    def _value(self, token: _Token) -> Node:
        if token.kind == "sign" and token.text in "{[":
            node = self._node(Kind.MAPPING if token.text == "{" else Kind.SEQUENCE, token)
            node.is_flow = True
            return node
        if token.kind in ("string", "single"):
            return self._node(Kind.SCALAR, token, self._string(token), quote=token.text[0])
        if token.kind == "word":
            if token.text in _WORDS or _NUMBER.fullmatch(token.text) or _CONSTANTS.fullmatch(token.text):
                return self._node(Kind.SCALAR, token, token.text)
            if _NUMBER_5.fullmatch(token.text):
                self._is_odd(token, "such a number")
                return self._node(Kind.SCALAR, token, token.text)
        raise self._error(token.start, "expected a value")

    def _string(self, token: _Token) -> str:
        if token.kind == "string":
            try:
                return str(json.loads(token.text))
            except ValueError:
                self._is_odd(token, "such an escape")
        else:
            self._is_odd(token, "a string in single quotes")
        return re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL)

    def _node(self, kind: Kind, token: _Token, text: str = "", quote: str = "") -> Node:
        self._count += 1
        if self._count > MAX_NODES:
            raise BeyondBounds(f"{self._source} has more than {MAX_NODES:,} values")
        line, column = self._place(token.start)
        end = token.start + len(token.text)
        return Node(kind, token.start, end, line, column, text, quote=quote)

    def _place(self, at: int) -> tuple[int, int]:
        """Tokens come in order, so the line is found in no time."""
        while self._line + 1 < len(self._lines) and self._lines[self._line + 1] <= at:
            self._line += 1
        return self._line + 1, at - self._lines[self._line] + 1

    def _is_odd(self, token: _Token, what: str) -> None:
        self._oddity = self._oddity or self._error(token.start, f"JSON does not allow {what}")

    def _error(self, at: int, message: str) -> SettingsError:
        line, column = self._place(at)
        return SettingsError(
            f"{self._source}:{line}:{column}: invalid JSON: {message}",
            hint="fix the file; a config is JSON (.json) or YAML (.yaml)",
        )
