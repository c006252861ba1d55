"""`--set key=value`: change one value in the text of a config, and no other character.

A key is dotted (`model.layers.0.width`), with indices for lists, and must exist, so that a typing mistake cannot make a
run that looks changed. The new value is typed by YAML 1.2's rules and must fit the old one. After a change the text is
read again and compared, value by value.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from amlctl.config.json_nodes import json_documents
from amlctl.config.nodes import (
    A_LIST,
    A_TABLE,
    Kind,
    Node,
    check,
    is_merge,
    key_text,
    kinds,
    merged_mappings,
    plain_value,
    yaml_documents,
)
from amlctl.config.yaml_scalars import (
    DATE,
    NOTHING,
    NUMBER,
    TEXT,
    TRUTH,
    core_value,
    date_error,
    is_date,
    is_plain,
    plain_kinds,
    written,
)
from amlctl.core.hidden_values import quoted
from amlctl.core.message import count, similar, some
from amlctl.errors import BeyondBounds, SettingsError, UsageError

Hide = Callable[[str, Any, Any], Any]
"""The text in the config instead of a value, from its key, itself and the old value."""

_PROPERTIES = re.compile(r"(?:[!&]\S*(?:\s+|$))*")
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_MOST_COPIES = 1_000


def with_overrides(text: str, source: str, overrides: Sequence[str], hide: Hide, *, is_yaml: bool) -> str:
    """The changed text. Raises UsageError, and SettingsError if the text cannot be read."""
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator or not key.strip():
            raise UsageError(f"--set {override!r} is not key=value", hint="for example --set training.epochs=3")
        text = _Edit(text, source, key.strip(), is_yaml).set(value, hide)
    return text


class _Edit:
    def __init__(self, text: str, source: str, key: str, is_yaml: bool) -> None:
        self._text = text
        self._source = source
        self._key = key
        self._is_yaml = is_yaml

    def set(self, value: str, hide: Hide) -> str:
        before, way = self._with_own_text()
        old = way[-1]
        new = new_value(self._key, value, old, is_yaml=self._is_yaml)
        hidden = hide(self._key, new.value, plain_value(old) if kinds(old) == {NOTHING} else "")
        if hidden != new.value and not (isinstance(hidden, float) and hidden != hidden):
            new = NewValue(hidden)
        text = self._replaced(old, way[-2] if len(way) > 1 else None, new)
        try:
            after = self._document(text)
            changed = self._find(after)[-1]
            is_right = _shape(before, old) == _shape(after, changed) and _is_value(changed, new)
        except (SettingsError, UsageError):
            is_right = False
        if not is_right:
            raise UsageError(
                f"--set {self._key}: the value at {self._source}:{old.line} cannot be changed in place",
                hint="edit the file",
            )
        return text

    def _document(self, text: str) -> Node:
        documents = (yaml_documents if self._is_yaml else json_documents)(text, self._source)
        if len(documents) != 1:
            what = "has no values" if not documents else f"has {len(documents)} documents, and --set changes one"
            raise UsageError(f"--set {self._key}: {self._source} {what}", hint="edit the file")
        check(documents[0], self._source)
        return documents[0]

    def _with_own_text(self) -> tuple[Node, list[Node]]:
        """The document, and the way to the value, which has a text of its own there: aliases are replaced by copies of
        what they stand for."""
        for _ in range(_MOST_COPIES):
            root = self._document(self._text)
            way = self._find(root)
            aliases = _shared(root, way)
            if not aliases:
                return root, way
            for alias in sorted(aliases, key=lambda one: one.start, reverse=True):
                self._text = self._text[: alias.start] + _flow(alias.resolved) + self._text[alias.end :]
        raise BeyondBounds(f"{self._source}: its aliases refer to each other too often for --set")

    def _find(self, root: Node) -> list[Node]:
        """The nodes from the document to the value, with aliases not resolved."""
        way = [root]
        parts = self._key.split(".")
        done = 0
        while done < len(parts):
            for end in range(len(parts), done, -1):  # a key may have dots
                if steps := _steps(way[-1].resolved, ".".join(parts[done:end])):
                    break
            else:
                raise self._missing(way[-1].resolved, parts[done], parts[:done])
            way += steps
            done = end
        return way

    def _missing(self, node: Node, part: str, above: Sequence[str]) -> UsageError:
        what = repr(".".join(above)) if above else "the config"
        if node.kind is Kind.SEQUENCE:
            items = count(len(node.items), "item")
            return UsageError(f"--set {self._key}: {what} is a list of {items}; {part!r} is not an index of it")
        if node.kind is not Kind.MAPPING:
            kind = " or ".join(sorted(kinds(node))) or "a value with a tag"
            return UsageError(f"--set {self._key}: {what} is {kind}, which has no keys")
        names = [str(name) for name in plain_value(node)]
        nearest = similar(part, names)
        full = ".".join([*above, nearest[0]]) if nearest else ""
        return UsageError(
            f"--set {self._key}: the key {part!r} is not in {what}",
            hint=f"did you mean {full}?" if full else f"keys there: {some(names, 20) or 'none'}",
        )

    def _replaced(self, old: Node, parent: Node | None, new: NewValue) -> str:
        text = self._text
        start, end = old.start, old.end
        if not self._is_yaml:
            return text[:start] + _json(new) + text[end:]
        written_new = self._written(old, new)
        value = new.value
        kind = Kind.SEQUENCE if isinstance(value, list) else Kind.MAPPING if isinstance(value, dict) else Kind.SCALAR
        if old.tag and old.kind is kind:
            properties = _PROPERTIES.match(text, start)
            start = properties.end() if properties else start
        if old.quote in ("|", ">"):
            end = start + len(text[start:end].rstrip())
        if start == end:  # `key:` without a value
            is_joined = start and not text[start - 1].isspace()
            return text[:start] + (" " if is_joined else "") + written_new + text[end:]
        if old.kind in (Kind.MAPPING, Kind.SEQUENCE) and not old.is_flow:
            # On the line of its key: a list may have the indentation of its key, other values may not.
            begin = len(text[:start].rstrip())
            if (
                parent is not None
                and "\n" in text[begin:start]
                and "#" not in text[text.rfind("\n", 0, begin) + 1 : begin]
            ):
                return text[:begin] + " " + written_new + text[end:]
        return text[:start] + written_new + text[end:]

    def _written(self, old: Node, new: NewValue) -> str:
        value = new.value
        if isinstance(value, str) and not new.typed:
            if value.startswith("<secret:"):
                return quoted(value)  # the runtime replaces a quoted text
            if old.quote == "'" and value.isprintable():
                return "'" + value.replace("'", "''") + "'"
            return quoted(value) if old.quote == '"' or not is_plain(value) else value
        return new.typed if isinstance(value, str) else written(value, new.typed)


def _steps(node: Node, part: str) -> list[Node]:
    """From a mapping or list to the value of `part`: one step, or several if a mapping has it from `<<`."""
    if node.kind is Kind.SEQUENCE:
        size = len(node.items)
        is_index = re.fullmatch(r"-?[0-9]{1,9}", part) and -size <= int(part) < size
        return [node.items[int(part)]] if is_index else []
    if node.kind is not Kind.MAPPING:
        return []
    pairs = list(zip(node.keys, node.items, strict=True))
    for key, value in pairs:
        if not is_merge(key) and key_text(key) == part:
            return [value]
    for key, value in pairs:
        for one in merged_mappings(value.resolved) if is_merge(key) else ():
            if inside := _steps(one.resolved, part):
                return [value, *([one] if one is not value.resolved else []), *inside]
    return []


def _shared(root: Node, way: Sequence[Node]) -> list[Node]:
    """Aliases that must be replaced before the value can be changed alone."""
    on_the_way = [node for node in way[:-1] if node.kind is Kind.ALIAS]
    if on_the_way:
        return on_the_way[:1]
    own = {id(node) for node in [*way, *way[-1].walk()] if node.anchor}
    inside = {id(node) for node in way[-1].walk()}
    return [node for node in root.walk() if id(node.target) in own and id(node) not in inside] if own else []


def _flow(node: Node) -> str:
    """A node on one line, with aliases resolved."""
    node = node.resolved
    tag = f"!<{node.tag}> " if node.tag and node.tag != "!" else ""
    if node.kind is Kind.SEQUENCE:
        return f"{tag}[{', '.join(map(_flow, node.items))}]"
    if node.kind is Kind.MAPPING:
        pairs = zip(node.keys, node.items, strict=True)
        return f"{tag}{{{', '.join(f'{_flow(key)}: {_flow(item)}' for key, item in pairs)}}}"
    if is_merge(node):
        return node.text
    if node.quote or node.tag == "!" or not re.fullmatch(r"[\w.+-][\w.+-]*(?::[\w.+-]+)*", node.text):
        is_nothing = not node.quote and not node.tag and node.text in ("", "~")
        return "null" if is_nothing else tag + quoted(node.text)
    return tag + node.text


def _json(new: NewValue) -> str:
    if new.typed and _JSON_NUMBER.fullmatch(new.typed):
        return new.typed
    return json.dumps(new.value, ensure_ascii=False)


def _is_value(node: Node, new: NewValue) -> bool:
    found = plain_value(node)
    return found == new.value or (isinstance(found, float) and found != found) or found == new.typed


def _shape(node: Node, but: Node) -> Any:
    """What loaders may read in a document, without the value `but`."""
    if node is but:
        return None
    node = node.resolved
    if node.kind is Kind.SCALAR:
        return node.tag, kinds(node), node.text if kinds(node) != {NOTHING} else ""
    return node.kind, node.tag, *([_shape(one, but) for one in each] for each in (node.keys, node.items))


_CONSTANTS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True)
class NewValue:
    """`typed` is the text as it was typed, if it can be written without quotes."""

    value: Any
    typed: str = ""


def new_value(key: str, text: str, old: Node, *, is_yaml: bool) -> NewValue:
    """Raises UsageError if it does not fit `old`."""
    value, is_quoted = _typed(key, text)
    if isinstance(value, str):
        _check_text(key, value)
    before = kinds(old)
    if not is_quoted and isinstance(value, str) and is_yaml and value and plain_kinds(value) == before != {TEXT}:
        if DATE in before and (reason := date_error(value)):
            raise UsageError(f"--set {key}: {text!r} is not a date: {reason}", hint=f"--set {key}=2026-01-31")
        return NewValue(value, text)  # a date, or a boolean of YAML 1.1 (`yes`), written as in the file
    kind = _kind(value)
    if kind == NOTHING or before == {NOTHING} or kind in before or (not before and kind not in (A_LIST, A_TABLE)):
        return NewValue(value, text if kind == NUMBER else "")
    if kind == TEXT and DATE in before and is_quoted:
        return NewValue(value)
    if TEXT in before and kind in (NUMBER, DATE):
        return NewValue(text)  # a version or a name that looks like one
    hint = ""
    if TEXT in before:
        hint = f"quote it to mean text: --set '{key}={json.dumps(text)}'"
    elif TRUTH in before:
        hint = f"--set {key}=true or --set {key}=false"
    elif DATE in before:
        hint = f"--set {key}=2026-01-31, or quote it to mean text: --set '{key}={json.dumps(text)}'"
    elif kind == TEXT and "," in text:
        hint = "add --sweep for a run with each value"
    there = " or ".join(sorted(before)) or "a value with a tag"
    shown = f" ({json.dumps(plain_value(old), ensure_ascii=False)[:60]})"
    raise UsageError(f"--set {key}: {text!r} is {kind}, but the config has {there} there{shown}", hint=hint)


def _typed(key: str, text: str) -> tuple[Any, bool]:
    """The value, and whether it is a string because of quotes."""
    if text.startswith('"'):
        try:
            return str(json.loads(text)), True
        except (ValueError, RecursionError):
            return text, False
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'"), True
    if text.startswith(("[", "{")):
        return _collection(key, text), False
    if text in _CONSTANTS:
        return _CONSTANTS[text], False
    return (core_value(text) if text else ""), False


def _collection(key: str, text: str) -> Any:
    """A list or mapping in JSON or YAML, else the text."""
    source = f"--set {key}"
    for read in (json_documents, yaml_documents):
        try:
            documents = read(text, source)
        except BeyondBounds as error:
            raise UsageError(error.message) from error
        except SettingsError:
            continue
        if len(documents) != 1 or documents[0].kind is Kind.SCALAR:
            continue
        try:
            check(documents[0], source)
        except SettingsError as error:
            raise UsageError(error.message, hint=error.hint) from error
        for one in documents[0].walk():
            _check_text(key, one.text)
        return plain_value(documents[0])
    return text


def _check_text(key: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"--set {key}: the value is not valid text (half of a character)", hint="type it again"
        ) from None


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return TRUTH
    if isinstance(value, (int, float)):
        return NUMBER
    if isinstance(value, str):
        return DATE if is_date(value) and not date_error(value) else TEXT
    return A_LIST if isinstance(value, list) else A_TABLE if isinstance(value, dict) else NOTHING
