"""JSON schemas of types: scalars, literals, enumerations, unions, lists, mappings, and classes with typed fields."""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

_SCALARS = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null", Path: "string"}


def schema_of(kind: Any, names: Mapping[type, str], meanings: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """`names` are types that have a definition, which is referred to; `meanings` of fields are by type and field."""

    def of(one: Any) -> dict[str, Any]:
        return {"$ref": names[one]} if one in names else schema_of(one, names, meanings)

    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return {}
    if kind in _SCALARS:
        return {"type": _SCALARS[kind]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if inspect.isclass(kind) and issubclass(kind, Enum):
        return {"enum": [member.value for member in kind]}
    if origin in (Union, types.UnionType):
        parts = [of(one) for one in arguments]
        if all(list(part) == ["type"] for part in parts):
            return {"type": [part["type"] for part in parts]}
        return {"anyOf": parts}
    if origin is tuple and ... not in arguments:
        return {"type": "array", "prefixItems": [of(one) for one in arguments], "items": False}
    if origin in (list, tuple, Sequence):
        return {"type": "array", "items": of(arguments[0])}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": of(arguments[1])}
    if dataclasses.is_dataclass(kind) or is_typeddict(kind) or hasattr(kind, "_fields"):
        return _object(kind, of, meanings.get(kind.__name__, {}))
    raise TypeError(f"no schema for {kind}")


def _object(kind: Any, of: Any, meanings: Mapping[str, str]) -> dict[str, Any]:
    properties, required = {}, []
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if get_origin(hint) is NotRequired:
            hint = get_args(hint)[0]
        else:
            required.append(name)
        properties[name] = of(hint) | ({"description": meanings[name]} if name in meanings else {})
    assert set(meanings) <= set(properties), set(meanings) - set(properties)
    about = {"description": " ".join(kind.__doc__.split())} if _is_explained(kind) else {}
    more = {"additionalProperties": True} if getattr(kind, "__closed__", None) is False else {}
    return {"type": "object", **about, "properties": properties, "required": required, **more}


def _is_explained(kind: Any) -> bool:
    """A dataclass or a named tuple without a text of its own has its signature there."""
    return bool(kind.__doc__) and not kind.__doc__.startswith(f"{kind.__name__}(") and kind.__doc__ != dict.__doc__
