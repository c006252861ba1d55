"""JSON text as trees of `Node`, within bounds.

Comments, trailing commas, single quotes, keys without quotes and several documents in a file are common in configs
(JSON with comments, JSON5, JSON lines). They are accepted.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress

from amlctl.config.nodes import MAX_CHARACTERS, MAX_NODES, Kind, Node, too_deep
from amlctl.core.run_schema import MAX_DEPTH
from amlctl.errors import BeyondBounds, SettingsError

_TOKEN = re.compile(
    r"""(?:[ \t\n\r\ufeff\xa0\u2028\u2029\f\v]+|//[^\n]*|\#[^\n]*|/\*(?:[^*]|\*(?!/))*\*/)
    |(?P<sign>[{}\[\]:,])
    |(?P<string>"[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*"|'[^'\\\n]*(?:\\.[^'\\\n]*)*')
    |(?P<word>[^\s{}\[\]:,"'\#/]+)
    |(?P<end>\Z)
    |(?P<wrong>.)""",
    re.VERBOSE | re.DOTALL,
)
_NAME = re.compile(r"[^\W\d][\w$-]*|\$[\w$-]*")
_LITERAL = re.compile(
    r"true|false|null|"
    r"[-+]?(?:NaN|Infinity|0[xX][0-9a-fA-F]+|\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+\.?[0-9]*(?:[eE][-+]?[0-9]+)?)"
)


def json_documents(text: str, source: str) -> list[Node]:
    """Raises SettingsError with `source`, line and column; BeyondBounds."""
    if len(text) > MAX_CHARACTERS:
        raise BeyondBounds(f"{source} has more than {MAX_CHARACTERS >> 20} million characters")
    return _Reader(text, source).read()


class _Reader:
    def __init__(self, text: str, source: str) -> None:
        self._text = text
        self._source = source
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._count = 0
        self._tokens = self._all_tokens()
        self._token = next(self._tokens)

    def read(self) -> list[Node]:
        documents = [self._value(0)]
        while self._token.lastgroup != "end":
            documents.append(self._value(0))
        return documents

    def _value(self, depth: int) -> Node:
        token = self._next()
        if token[0] in ("{", "["):
            return self._collection(token, depth + 1)
        if token.lastgroup == "string" or _LITERAL.fullmatch(token[0]):
            return self._scalar(token)
        raise self._error(token.start(), "expected a value")

    def _collection(self, token: re.Match[str], depth: int) -> Node:
        is_mapping = token[0] == "{"
        node = self._node(Kind.MAPPING if is_mapping else Kind.SEQUENCE, token)
        node.is_flow = True
        if depth > MAX_DEPTH:
            raise too_deep(self._source, node.line)
        closing = "}" if is_mapping else "]"
        while not self._is_sign(closing):
            if is_mapping:
                node.keys.append(self._key())
                if not self._is_sign(":"):
                    raise self._error(self._token.start(), "expected ':'")
                self._next()
            node.items.append(self._value(depth))
            if self._is_sign(","):
                self._next()
            elif not self._is_sign(closing):
                raise self._error(self._token.start(), f"expected ',' or '{closing}'")
        node.end = self._next().end()
        return node

    def _key(self) -> Node:
        token = self._next()
        if token.lastgroup == "string" or _NAME.fullmatch(token[0]):
            return self._scalar(token)
        raise self._error(token.start(), "expected a key in double quotes")

    def _is_sign(self, text: str) -> bool:
        if self._token.lastgroup == "end":
            raise self._error(self._token.start(), "unexpected end")
        return self._token[0] == text

    def _next(self) -> re.Match[str]:
        token = self._token
        if token.lastgroup == "end":
            raise self._error(token.start(), "unexpected end")
        self._token = next(self._tokens)
        return token

    def _all_tokens(self) -> Iterator[re.Match[str]]:
        for token in _TOKEN.finditer(self._text):
            if token.lastgroup == "wrong":
                what = "unterminated string" if token[0] in "\"'" else "unexpected character"
                raise self._error(token.start(), what)
            if token.lastgroup is not None:
                yield token

    def _scalar(self, token: re.Match[str]) -> Node:
        if token.lastgroup == "word":
            return self._node(Kind.SCALAR, token, token[0])
        return self._node(Kind.SCALAR, token, _unquoted(token[0]), token[0][0])

    def _node(self, kind: Kind, token: re.Match[str], text: str = "", quote: str = "") -> Node:
        self._count += 1
        if self._count > MAX_NODES:
            raise BeyondBounds(f"{self._source} has more than {MAX_NODES:,} values")
        return Node(kind, *token.span(), *self._position(token.start()), text, quote=quote)

    def _position(self, at: int) -> tuple[int, int]:
        line = bisect_right(self._starts, at)
        return line, at - self._starts[line - 1] + 1

    def _error(self, at: int, message: str) -> SettingsError:
        line, column = self._position(at)
        return SettingsError(
            f"{self._source}:{line}:{column}: invalid JSON: {message}",
            hint="fix the file; a config is JSON (.json) or YAML (.yaml)",
        )


def _unquoted(text: str) -> str:
    if text[0] == '"':
        with suppress(ValueError):  # an escape of JSON5
            return str(json.loads(text))
    return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
