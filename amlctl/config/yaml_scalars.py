"""Scalars of YAML: their values in YAML 1.2 (core schema) and in older loaders, and how to write one for both.

PyYAML and its kin read YAML 1.1: `1e-5` is text to them, `yes` is true and `2024-01-01` a date. ruamel, OmegaConf and
JSON-like loaders read 1.2: `1e-5` is a number, the other two are text.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from amlctl.core.hidden_values import quoted

MAX_DIGITS = 300
"""Of a number; Python itself refuses to write those of 4,301 digits."""
_CORE_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_WHOLE = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_OLD_TRUTHS = re.compile(r"(?i)y|n|yes|no|on|off")
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./+@%=-]*(?: [A-Za-z0-9_./+@%=(-][A-Za-z0-9_./+@%=()-]*)*")
_PREFIX = "tag:yaml.org,2002:"
_resolver: Any = Resolver()  # type: ignore[no-untyped-call, unused-ignore]

NUMBER, TRUTH, NOTHING, TEXT, DATE = "a number", "true or false", "nothing", "text", "a date"


def core_value(text: str) -> Any:
    """The value of a plain scalar in YAML 1.2; a number with too many digits stays text."""
    if text in _CORE_WORDS:
        return _CORE_WORDS[text]
    if len(text) > MAX_DIGITS:
        return text
    if _WHOLE.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    return float(text.replace(".", "")) if _NOT_FINITE.fullmatch(text) else text


def old_value(text: str, *, tag: str = "", is_quoted: bool = False) -> Any:
    """The value of a scalar in YAML 1.1, like in the tools that own these files; a date stays text.

    Raises ValueError: it does not match its tag or its form.
    """
    if tag in ("", "!"):
        tag = f"{_PREFIX}str" if is_quoted or tag else _old_tag(text)
    name = tag.removeprefix(_PREFIX)
    if name == "int" and len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text):,} digits is too long")
    if name not in ("str", "int", "float", "bool", "null", "timestamp") or not tag.startswith(_PREFIX):
        raise ValueError(f"the YAML tag {tag} is not supported")
    try:
        value = SafeConstructor().construct_object(yaml.ScalarNode(tag, text))
    except (ValueError, ArithmeticError, LookupError, AttributeError, TypeError) as error:
        what = "a date" if name == "timestamp" else f"a value of type {name}"
        raise ValueError(f"{text[:60]!r} is not {what}: {error}") from error
    return text if name == "timestamp" else value


def plain_kinds(text: str) -> set[str]:
    """The kinds of a plain scalar in different loaders."""
    value = core_value(text)
    if value is None:
        return {NOTHING}
    if isinstance(value, bool):
        return {TRUTH}
    if isinstance(value, (int, float)):
        return {NUMBER}
    if is_date(text):
        return {DATE}
    if len(text) > MAX_DIGITS and _WHOLE.fullmatch(text):
        return {NUMBER}
    tag = _old_tag(text).rpartition(":")[2]
    return {TEXT, {"bool": TRUTH, "int": NUMBER, "float": NUMBER}.get(tag, TEXT)}


def is_date(text: str) -> bool:
    return _old_tag(text) == f"{_PREFIX}timestamp"


def date_error(text: str) -> str:
    """Why a scalar that looks like a date is not one; empty if it is."""
    try:
        SafeConstructor().construct_yaml_timestamp(yaml.ScalarNode(f"{_PREFIX}timestamp", text))
    except (ValueError, OverflowError) as error:
        return str(error)
    return ""


def written(value: Any, typed: str = "") -> str:
    """A value as YAML for every loader. `typed` is a number as it was typed, which is kept if every loader reads it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return typed if typed and _is_number_for_both(typed, value) else _number(value)
    if isinstance(value, str):
        return value if is_plain(value) else quoted(value)
    if isinstance(value, list):
        return "[" + ", ".join(written(one) for one in value) + "]"
    return "{" + ", ".join(f"{written(str(key))}: {written(one)}" for key, one in value.items()) + "}"


def is_plain(text: str) -> bool:
    """Whether every loader reads it as text without quotes, in any context."""
    is_simple = _PLAIN.fullmatch(text) is not None and not _OLD_TRUTHS.fullmatch(text)
    return is_simple and isinstance(core_value(text), str) and _old_tag(text) == f"{_PREFIX}str"


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    shown = repr(value)
    return shown.replace("e", ".0e", 1) if "e" in shown and "." not in shown else shown


def _is_number_for_both(text: str, value: float) -> bool:
    try:
        return bool(core_value(text) == value == old_value(text))
    except ValueError:
        return False


def _old_tag(text: str) -> str:
    return str(_resolver.resolve(yaml.ScalarNode, text, (True, False)))
