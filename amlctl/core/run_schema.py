"""What a run record may hold: one rule for every field, checked before anything of a record is used.

Others write to the store and disks fail, while values of a record become paths, keys of the store, variables and lines
on a terminal. A record that breaks a rule is damaged; nothing of it is guessed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Callable, Optional

from amlctl.core.job import DISTRIBUTIONS
from amlctl.core.run_id import is_record_run_id
from amlctl.core.run_state import RunState
from amlctl.core.store_keys import folders_of

MAX_BYTES = 32 << 20
"""Of a record's JSON. Configs and environment files have kilobytes; a larger record would only fill the memory."""
MAX_DEPTH = 100
"""Of nested lists and tables in a config: the writers of JSON and of tables recurse."""
MAX_PROCESSES = 100_000
"""Processes of a run. Several loops go over all of them."""

Rule = Callable[[Any], bool]

_STATES = frozenset(RunState)
_NAMED = re.compile(r"[A-Za-z0-9_.-]{0,255}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)
_LEAVES = re.compile(r"(?:\A|/)\.{0,2}(?:/|\Z)")
_UNSAFE = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")
"""NUL ends a path or a variable early. Of the surrogates only those that stand for a byte can be written anywhere."""


def wrong_field(document: Mapping[str, Any], run: Optional[str] = None) -> str:
    """Which field breaks its rule, in words; empty if none does. `run` is the id that the record must have."""
    for name, rule in RULES.items():
        if name not in document:
            if name not in _ADDED_LATER:
                return f"it has no {name}"
        elif not rule(document[name]):
            return f"its {name} is not valid"
    if run is not None and document["run"] != run:
        return "it is the record of another run"
    processes, instances = document.get("processes", 1), document.get("instances", 1)
    if processes * instances > MAX_PROCESSES:
        return f"it has more than {MAX_PROCESSES} processes"
    return ""


def is_time(value: Any) -> bool:
    """An ISO 8601 time with its zone, of a year that all our clocks can show."""
    if not isinstance(value, str) or _TIME.fullmatch(value) is None or not "1971" <= value[:4] <= "9998":
        return False
    try:
        datetime.fromisoformat(value[:19])
    except ValueError:
        return False
    return value.endswith("Z") or (int(value[-5:-3]) < 24 and int(value[-2:]) < 60)


def parse_time(text: str) -> datetime:
    """Of a time that `is_time` accepts."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))  # Python 3.9 does not read Z


def _text(value: Any) -> bool:
    return isinstance(value, str) and _UNSAFE.search(value) is None


def _path(value: Any) -> bool:
    """Relative, and it never leaves its folder; may be empty."""
    return _text(value) and (value == "" or _LEAVES.search(value) is None)


def _key(value: Any) -> bool:
    return _path(value) and value.startswith("datasets/")


def _id(value: Any) -> bool:
    return isinstance(value, str) and _NAMED.fullmatch(value) is not None and ".." not in value


def _page(value: Any) -> bool:
    return _text(value) and value.startswith(("https://", "http://"))


def _state(value: Any) -> bool:
    return isinstance(value, str) and value in _STATES


def _one_of(*values: Optional[str]) -> Rule:
    return lambda value: (value is None or isinstance(value, str)) and value in values


def _whole(least: int, most: int) -> Rule:
    return lambda value: type(value) is int and least <= value <= most


_count, _size = _whole(1, MAX_PROCESSES), _whole(0, (1 << 62) - 1)


def _seconds(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and 0 < value < 1e12


def is_shallow(value: Any) -> bool:
    """What JSON can hold, not too deep, without recursion."""
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for one in level:
            if isinstance(one, str):
                if _UNSAFE.search(one.replace("\0", "")) is not None:
                    return False
            elif isinstance(one, dict):
                below.extend(one.values())
                below.extend(one)
            elif isinstance(one, list):
                below.extend(one)
        if not below:
            return True
        level = below
    return False


def _scalar(value: Any) -> bool:
    return value is None or isinstance(value, bool) or _text(value)


def _maybe(rule: Rule) -> Rule:
    return lambda value: value is None or rule(value)


def _list(rule: Rule) -> Rule:
    return lambda value: isinstance(value, list) and all(map(rule, value))


def _table(rule: Rule, names: Rule = _text) -> Rule:
    return lambda value: isinstance(value, dict) and all(names(name) and rule(one) for name, one in value.items())


def _variable_name(value: Any) -> bool:
    return _text(value) and bool(value) and "=" not in value


def _dataset(value: Any) -> bool:
    return _path(value) and bool(value)


def _file(value: Any) -> bool:
    return _text(value) and value.rpartition("/")[2] not in ("", ".", "..")


def _input(value: Any) -> bool:
    return _table(_text)(value) and ("dataset" not in value or _dataset(value["dataset"]))


def _metric(value: Any) -> bool:
    """A number that JSON has, or the name of one that it does not have."""
    if isinstance(value, str):
        return value in ("NaN", "Infinity", "-Infinity")
    return (type(value) is int and value.bit_length() < 64) or (type(value) is float and math.isfinite(value))


def is_amount(value: Any) -> bool:
    """A number that can be a size, or a part of something."""
    return type(value) in (int, float) and math.isfinite(value) and 0 <= value < 1 << 62


def _phase(value: Any) -> bool:
    return _table(_text)(value) and bool(value.get("name")) and is_time(value.get("at"))


def _child(value: Any) -> bool:
    return _table(_text)(value) and value.keys() >= {"run", "name", "status"}


def _object(**rules: Rule) -> Rule:
    """A table; what has no rule of its own is anything that JSON can hold."""
    return lambda value: (
        isinstance(value, dict) and all(rules.get(name, is_shallow)(one) for name, one in value.items())
    )


RULES: Mapping[str, Rule] = {
    "run": is_record_run_id,
    "script": _path,
    "name": _text,
    "status": _state,
    "waits_for": _text,
    "experiment": _text,
    "arguments": _list(_text),
    "config": _maybe(_file),
    "config_content": is_shallow,
    "config_file": _maybe(_table(_text)),
    "is_config_positional": lambda value: isinstance(value, bool),
    "command": _maybe(_text),
    "inputs": _table(_input),
    "named_outputs": _table(_text, _dataset),
    "output_places": _table(_table(_text)),
    "job_type": _maybe(_text),
    "sweep": _object(parallel=_maybe(_count), metric=_text, runs=_count),
    "parent": _maybe(is_record_run_id),
    "combination": _table(_text),
    "children": _list(_child),
    "services": _table(_text),
    "description": _text,
    "code": _id,
    "datasets": _table(_id, _dataset),
    "manifests": _table(_key, _dataset),
    "produces": _list(_dataset),
    "published": _table(_id, _dataset),
    "metrics": _table(_metric),
    "heads": _table(_maybe(_key), _dataset),
    "sync": _object(
        layout=_one_of("auto", "pack", "mirror"),
        pack_below=_size,
        pack_size=_size,
        ignore=_list(_text),
        ignore_files=_table(_text, _dataset),
    ),
    "mode": _one_of("mount", "download"),
    "environment": _text,
    "environment_content": _maybe(_text),
    "variables": _table(_maybe(_text), _variable_name),
    "compute": _text,
    "workspace": _text,
    "distribution": _one_of(None, *DISTRIBUTIONS),
    "processes": _count,
    "instances": _count,
    "node": _table(is_shallow),
    "timeout_s": _maybe(_seconds),
    "tags": _table(_text),
    "git": _maybe(_table(_scalar)),
    "command_line": _list(_text),
    "user": _text,
    "host": _text,
    "from_run": _maybe(is_record_run_id),
    "created_at": lambda value: value == "" or is_time(value),
    "times": _table(is_time, _state),
    "phases": _list(_phase),
    "resources": _table(is_amount),
    "exit_code": _maybe(_whole(1 - (1 << 32), (1 << 32) - 1)),
    "error": _maybe(_table(_text)),
    "studio_url": _maybe(_page),
    "outputs": _text,
}

_ADDED_LATER = {
    *("config_file", "waits_for", "command", "inputs", "named_outputs", "output_places", "job_type", "children"),
    *("services", "description", "heads", "sync", "distribution", "processes", "instances", "node", "metrics"),
    *("phases", "is_config_positional", "sweep", "parent", "combination", "resources"),
}
"""The first records did not have these fields. Any other one that is missing is damage: writers write all fields."""


def is_published(value: Any) -> bool:
    """Whether it is a list of what a run has produced: `{dataset: {"snapshot", "manifest_key"}}`. Each key is that of a
    manifest of the dataset at that snapshot."""
    is_table = _table(
        lambda one: isinstance(one, dict) and _id(one.get("snapshot")) and _key(one.get("manifest_key")), _dataset
    )(value)
    return is_table and all(
        one["manifest_key"].startswith(tuple(f"{folder}/{one['snapshot']}-" for folder in folders_of(dataset)))
        for dataset, one in value.items()
    )
