"""Plain values of a config's nodes: what a mapping, list or scalar is to YAML 1.2 or JSON. Tags of its own do not
count."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from amlctl.config.config_node import Kind, Node, is_merge
from amlctl.config.yaml_scalars import DATE, NOTHING, NUMBER, TEXT, TRUTH, core_value, plain_kinds

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
