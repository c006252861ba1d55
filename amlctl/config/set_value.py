"""The value of `--set key=value`: typed by YAML 1.2's rules, and it has to suit the value that it replaces."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from amlctl.config.config_node import Kind, Node, check_duplicates, check_expanded
from amlctl.config.config_value import A_LIST, A_TABLE, kinds, plain_value
from amlctl.config.json_nodes import json_documents
from amlctl.config.yaml_nodes import yaml_documents
from amlctl.config.yaml_scalars import DATE, NOTHING, NUMBER, TEXT, TRUTH, core_value, date_error, is_date, plain_kinds
from amlctl.errors import BeyondBounds, SettingsError, UsageError

_CONSTANTS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True)
class NewValue:
    """`typed` is the text where it can stand in a file as it was typed, without quotes."""

    value: Any
    typed: str = ""


def new_value(key: str, text: str, old: Node, *, is_yaml: bool) -> NewValue:
    """Raises UsageError where it does not suit `old`."""
    value, is_quoted = _typed(key, text)
    if isinstance(value, str):
        _check_text(key, value)
    before = kinds(old)
    if not is_quoted and isinstance(value, str) and is_yaml and value and plain_kinds(value) == before != {TEXT}:
        if DATE in before and (reason := date_error(value)):
            raise UsageError(f"--set {key}: {text!r} is not a date: {reason}", hint=f"--set {key}=2026-01-31")
        return NewValue(value, text)  # a date, or one of YAML 1.1's truths (`yes`): written as the file writes them
    kind = _kind(value)
    if kind == NOTHING or before == {NOTHING} or kind in before or (not before and kind not in (A_LIST, A_TABLE)):
        return NewValue(value, text if kind == NUMBER else "")
    if kind == TEXT and DATE in before and is_quoted:
        return NewValue(value)
    if TEXT in before and kind in (NUMBER, DATE):
        return NewValue(text)  # a text that happens to look like one: a version, a name
    hint = ""
    if TEXT in before:
        hint = f"quote it to mean text: --set '{key}={json.dumps(text)}'"
    elif TRUTH in before:
        hint = f"--set {key}=true or --set {key}=false"
    elif DATE in before:
        hint = f"--set {key}=2026-01-31, or quote it to mean text: --set '{key}={json.dumps(text)}'"
    there = " or ".join(sorted(before)) or "a value with a tag"
    shown = f" ({json.dumps(plain_value(old), ensure_ascii=False)[:60]})"
    raise UsageError(f"--set {key}: {text!r} is {kind}, but the config has {there} there{shown}", hint=hint)


def _typed(key: str, text: str) -> tuple[Any, bool]:
    """The value, and whether it is text because of quotes."""
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
    """A list or mapping as JSON or YAML writes it; text where it is neither."""
    source = f"--set {key}"
    node: Node | None = None
    for is_json in (True, False):
        try:
            documents = json_documents(text, source).documents if is_json else yaml_documents(text, source)
        except BeyondBounds as error:
            raise UsageError(error.message) from error
        except SettingsError:
            continue
        if len(documents) == 1 and documents[0].kind is not Kind.SCALAR:
            node = documents[0]
            break
    if node is None:
        return text
    try:
        check_duplicates(node, source)
        check_expanded(node, source)
    except SettingsError as error:
        raise UsageError(error.message, hint=error.hint) from error
    for one in node.walk():
        _check_text(key, one.text)
    return plain_value(node)


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
