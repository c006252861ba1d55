"""Sweeps: one run for every combination of values. Pure: what was typed in, combinations out, and how they ended."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Optional, Union

from amlctl.core.message import Command, count, some
from amlctl.core.metrics import Goal
from amlctl.core.run_state import RunState, is_final
from amlctl.errors import UsageError

_NAMED = 3
_PAIRS = {"[": "]", "{": "}"}


class Combination(NamedTuple):
    """`overrides` as `--set` takes them; `values` are those that differ between the runs of the sweep."""

    overrides: tuple[str, ...]
    values: Mapping[str, str]

    @property
    def label(self) -> str:
        return label(self.values)


class Sweep(NamedTuple):
    """What is asked for: `parallel` runs at a time (None: as many as the target has slots), `metric` as `goal_of` takes
    it, empty for the first one that a run has."""

    combinations: Sequence[Combination]
    parallel: Optional[int] = None
    metric: str = ""


class SweepRow(NamedTuple):
    """One run of a sweep as it is; `took_s` is None while its script runs."""

    run: str
    values: Mapping[str, str]
    status: str
    took_s: Optional[float] = None
    metrics: Mapping[str, Any] = {}
    is_deleted: bool = False


def best_of(rows: Sequence[SweepRow], goal: Optional[Goal]) -> Optional[SweepRow]:
    """The best that Completed; None without one that has the metric."""
    if goal is None:
        return None
    ranked = [(goal.rank(row.metrics), row) for row in rows if row.status == RunState.COMPLETED]
    return min((one for one in ranked if not one[0][0]), key=lambda one: one[0], default=(None, None))[1]


def label(values: Mapping[str, str]) -> str:
    """`lr=0.1 batch=32`."""
    return " ".join(f"{key}={value}" for key, value in values.items())


def values_of(text: str) -> dict[str, str]:
    """From the label of a run that was deleted: all that is left of it."""
    return dict(re.findall(r"(?:^| )([^\s=]+)=(.*?)(?= [^\s=]+=|$)", text, re.DOTALL))


def combinations(overrides: Sequence[str]) -> list[Combination]:
    """Every combination of the values of `key=1,2`, in the order of the options; the last key changes fastest.

    Raises UsageError: no value or an empty one, a quote that is not closed, or a value or key that is given twice.
    """
    axes: dict[str, list[str]] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UsageError(f"--set {override!r} is not key=value", hint="--set KEY=VALUE,VALUE")
        values = list(split_values(text))
        if key in axes:
            raise UsageError(f"--set {key} was given twice", hint=f"--set {key}=VALUE,VALUE")
        if len(values) > 1 and "" in values:
            raise UsageError(f"--set {override}: a value is empty", hint=f"""--set '{key}="",…' for an empty text""")
        numbers = [_number(value) for value in values]
        if twice := next((value for value, number in zip(values, numbers) if numbers.count(number) > 1), ""):
            raise UsageError(f"--set {override} has {twice} twice")
        axes[key] = values
    return combined(axes)


def combined(axes: Mapping[str, Sequence[str]]) -> list[Combination]:
    """Of the values of each key, as `--set` takes them. Raises UsageError without any."""
    if not axes or not all(axes.values()):
        raise UsageError("--sweep needs values to combine", hint="--set KEY=VALUE,VALUE")
    varied = {key for key, values in axes.items() if len(values) > 1} or axes.keys()
    return [
        Combination(
            tuple(f"{key}={value}" for key, value in zip(axes, values)),
            {key: value for key, value in zip(axes, values) if key in varied},
        )
        for values in itertools.product(*axes.values())
    ]


def _number(value: str) -> Union[float, str]:
    """`1` and `1.0` are equal; anything else is its text."""
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return found if type(found) in (int, float) else value


def split_values(text: str) -> Iterator[str]:
    """At commas that are not in quotes, lists or tables: `[1,2],[3]` are two values, as are `"a,b",c`.

    Raises UsageError: a quote is not closed.
    """
    value, quote, closing = "", "", list[str]()
    for char in text:
        if char == "," and not quote and not closing:
            yield value.strip()
            value = ""
            continue
        if quote:
            quote = "" if char == quote and not value.endswith("\\") else quote
        elif char in "\"'" and (closing or not value.strip()):  # in the middle of a word it is an apostrophe
            quote = char
        elif char in _PAIRS:
            closing.append(_PAIRS[char])
        elif closing and char == closing[-1]:
            closing.pop()
        value += char
    if quote:
        raise UsageError(
            f"--set: the quote {quote} in {text} is not closed", hint=f"--set 'KEY=VALUE,{quote}A,B{quote}'"
        )
    yield value.strip()


def ending(children: Sequence[Mapping[str, str]]) -> Optional[tuple[RunState, Optional[dict[str, str]]]]:
    """How a sweep of these runs has ended, with the error of its record; None while one of them is active."""
    if not all(is_final(one["status"]) for one in children):
        return None
    others = [one for one in children if one["status"] != RunState.COMPLETED]
    if not others:
        return RunState.COMPLETED, None
    shown = some([f"{one['run']} ({one['name']}) {one['status']}" for one in others], _NAMED)
    message = f"{len(others)} of {count(len(children), 'run')} did not complete: {shown}"
    failed = [one for one in others if one["status"] == RunState.FAILED]
    error = {"kind": "sweep", "message": message}
    if failed:
        error["hint"] = str(Command("logs", failed[0]["run"]))
    return RunState.FAILED if failed else RunState.CANCELED, error
