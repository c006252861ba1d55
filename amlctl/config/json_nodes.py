"""JSON text as trees of `Node`, within bounds.

Comments, trailing commas, single quotes, keys without quotes and several documents in a file are common in configs
(JSON with comments, JSON5, JSON lines). They are accepted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from amlctl.config.nodes import MAX_CHARACTERS, MAX_NODES, Kind, Node, too_deep
from amlctl.core.run_schema import MAX_DEPTH
from amlctl.errors import BeyondBounds, SettingsError

_TOKEN = re.compile(
    r"""(?P<space>[ \t\n\r\ufeff\xa0\u2028\u2029\f\v]+)
    |(?P<comment>//[^\n]*|\#[^\n]*|/\*(?:[^*]|\*(?!/))*\*/)
    |(?P<sign>[{}\[\]:,])
    |(?P<string>"[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*")
    |(?P<single>'[^'\\\n]*(?:\\.[^'\\\n]*)*')
    |(?P<word>[^\s{}\[\]:,"'\#/]+)""",
    re.VERBOSE | re.DOTALL,
)
_NAME = re.compile(r"[^\W\d][\w$-]*|\$[\w$-]*")
_WORD = re.compile(r"true|false|null")
_NUMBER = re.compile(
    r"[-+]?(?:NaN|Infinity|0[xX][0-9a-fA-F]+|\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+\.?[0-9]*(?:[eE][-+]?[0-9]+)?)"
)


class _Token(NamedTuple):
    kind: str
    text: str
    start: int


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
        self._line = 0
        self._count = 0
        self._tokens = self._all_tokens()
        self._token = next(self._tokens)

    def read(self) -> list[Node]:
        documents = [self._value(0)]
        while self._token.kind != "end":
            documents.append(self._value(0))
        return documents

    def _value(self, depth: int) -> Node:
        token = self._next()
        if token.kind == "sign" and token.text in "{[":
            return self._collection(token, depth + 1)
        if token.kind in ("string", "single"):
            return self._scalar(token, self._string(token))
        if token.kind == "word" and (_NUMBER.fullmatch(token.text) or _WORD.fullmatch(token.text)):
            return self._scalar(token, token.text)
        raise self._error(token.start, "expected a value")

    def _collection(self, token: _Token, depth: int) -> Node:
        is_mapping = token.text == "{"
        node = self._node(Kind.MAPPING if is_mapping else Kind.SEQUENCE, token)
        node.is_flow = True
        if depth > MAX_DEPTH:
            raise too_deep(self._source, node.line)
        closing = "}" if is_mapping else "]"
        while not self._is_sign(closing):
            if is_mapping:
                node.keys.append(self._key(self._next()))
                if not self._is_sign(":"):
                    raise self._error(self._token.start, "expected ':'")
                self._next()
            node.items.append(self._value(depth))
            if self._is_sign(","):
                self._next()
            elif not self._is_sign(closing):
                raise self._error(self._token.start, f"expected ',' or '{closing}'")
        node.end = self._next().start + 1
        return node

    def _is_sign(self, text: str) -> bool:
        if self._token.kind == "end":
            raise self._error(self._token.start, "unexpected end")
        return self._token.kind == "sign" and self._token.text == text

    def _next(self) -> _Token:
        token = self._token
        if token.kind == "end":
            raise self._error(token.start, "unexpected end")
        self._token = next(self._tokens)
        return token

    def _all_tokens(self) -> Iterator[_Token]:
        at = 0
        while at < len(self._text):
            match = _TOKEN.match(self._text, at)
            if match is None:
                raise self._error(at, "unterminated string" if self._text[at] in "\"'" else "unexpected character")
            token = _Token(str(match.lastgroup), match.group(), at)
            at = match.end()
            if token.kind not in ("space", "comment"):
                yield token
        yield _Token("end", "", len(self._text))

    def _key(self, token: _Token) -> Node:
        if token.kind == "word" and _NAME.fullmatch(token.text):
            return self._node(Kind.SCALAR, token, token.text)
        if token.kind in ("string", "single"):
            return self._scalar(token, self._string(token))
        raise self._error(token.start, "expected a key in double quotes")

    def _string(self, token: _Token) -> str:
        if token.kind == "string":
            with suppress(ValueError):  # an escape of JSON5
                return str(json.loads(token.text))
        return re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL)

    def _scalar(self, token: _Token, text: str) -> Node:
        return self._node(Kind.SCALAR, token, text, "" if token.kind == "word" else token.text[0])

    def _node(self, kind: Kind, token: _Token, text: str = "", quote: str = "") -> Node:
        self._count += 1
        if self._count > MAX_NODES:
            raise BeyondBounds(f"{self._source} has more than {MAX_NODES:,} values")
        line, column = self._position(token.start)
        return Node(kind, token.start, token.start + len(token.text), line, column, text, quote=quote)

    def _position(self, at: int) -> tuple[int, int]:
        """Line and column; positions mostly increase, so the line is found at once."""
        while self._line and self._starts[self._line] > at:
            self._line -= 1
        while self._line + 1 < len(self._starts) and self._starts[self._line + 1] <= at:
            self._line += 1
        return self._line + 1, at - self._starts[self._line] + 1

    def _error(self, at: int, message: str) -> SettingsError:
        line, column = self._position(at)
        return SettingsError(
            f"{self._source}:{line}:{column}: invalid JSON: {message}",
            hint="fix the file; a config is JSON (.json) or YAML (.yaml)",
        )
