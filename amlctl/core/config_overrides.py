"""`--set key=value`: typed changes to a script's config.

A key is dotted (`model.layers.0.width`), with indices for lists, and must exist: a typing mistake must not
make a run that looks changed and is not. The value is read as JSON, else as text, and must suit the old one.
"""

from __future__ import annotations

import copy
import difflib
import json
from collections.abc import Sequence
from typing import Any, Callable

from amlctl.errors import UsageError

Hide = Callable[[str, Any, Any], Any]
"""What stands in the document instead of a value, from its key, itself and the old one."""


def _as_it_is(key: str, value: Any, old: Any) -> Any:
    return value


def apply_overrides(document: Any, overrides: Sequence[str], hide: Hide = _as_it_is) -> Any:
    """A copy of `document` (what JSON can hold) with the changes made in order. Raises UsageError."""
    result = copy.deepcopy(document)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key.strip():
            raise UsageError(f"--set {override!r} is not key=value", hint="for example --set training.epochs=3")
        _set(result, key.strip(), text, hide)
    return result


def _set(document: Any, key: str, text: str, hide: Hide) -> None:
    *parents, last = key.split(".")
    place = document
    for position, part in enumerate(parents):
        place = place[_step(place, part, key, parents[:position])]
    step = _step(place, last, key, parents)
    place[step] = hide(key, _typed(key, text, place[step]), place[step])


def _step(place: Any, part: str, key: str, above: Sequence[str]) -> Any:
    """The key or index under which `part` stands in `place`."""
    where = f"in {'.'.join(above)!r}" if above else "in the config"
    if isinstance(place, list):
        if part.lstrip("-").isdigit() and -len(place) <= int(part) < len(place):
            return int(part)
        raise UsageError(f"--set {key}: {where} is a list of {len(place)}; {part!r} is no index of it")
    if not isinstance(place, dict):
        raise UsageError(f"--set {key}: {where} is {_kind(place)}, which has no keys")
    if part in place:
        return part
    for name in place:  # YAML keys may be numbers
        if not isinstance(name, str) and str(name) == part:
            return name
    nearest = difflib.get_close_matches(part, [str(name) for name in place], n=1, cutoff=0.5)
    full = ".".join([*above, nearest[0]]) if nearest else ""
    raise UsageError(
        f"--set {key}: there is no key {part!r} {where}",
        hint=f"did you mean {full}?" if full else f"keys there: {', '.join(map(str, place)) or 'none'}",
    )


def _typed(key: str, text: str, old: Any) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if old is None or value is None or _suits(value, old):
        return value
    if isinstance(old, str) and _is_number(value):
        return text  # a text that happens to look like a number, a version say
    hint = ""
    if isinstance(old, str):
        hint = f"quote it to mean text: --set '{key}={json.dumps(text)}'"
    elif isinstance(old, bool):
        hint = f"--set {key}=true or --set {key}=false"
    raise UsageError(
        f"--set {key}: {text!r} is {_kind(value)}, but the config has {_kind(old)} there ({old!r})", hint=hint
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _suits(value: Any, old: Any) -> bool:
    return _kind(value) == _kind(old)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if _is_number(value):
        return "a number"
    names = {str: "text", list: "a list", dict: "a table", type(None): "nothing"}
    return names.get(type(value), type(value).__name__)
