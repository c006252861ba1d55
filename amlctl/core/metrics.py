"""Metrics of a run: the last value of each, and its series over the steps.

Pure: bytes of `metrics.json`, of `metrics.jsonl` and of a metric's file in an MLflow folder in, `Metrics` out. What
cannot be used becomes a warning, never an error: a run must not fail for what it says about itself. See
docs/metrics.md.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional, Union

from amlctl.core.message import count, size
from amlctl.core.run_schema import is_shallow
from amlctl.errors import UsageError

DOCUMENT = "metrics.json"
LINES = "metrics.jsonl"
MLFLOW_FOLDER = "mlruns"
"""In the outputs, like the other two."""
MAX_BYTES = 64 << 20
"""Of one file."""
MOST_NAMES = 1000
MOST_KEPT = 100
"""Values in a run's record, which lists of runs read."""
MOST_POINTS = 5000
"""From twice as many on, every other point of a series is dropped."""
_LONGEST_NAME = 250
_EXACT = 1 << 53
"""Larger whole numbers are shown as floats, as other readers of JSON take them."""
_MOST_BITS = 1000
"""Of a whole number: a float can still hold it."""
_STEPS = ("step", "_step", "global_step", "epoch")
_WHOLE = re.compile(r"-?\d{1,18}")
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_LOWER = re.compile(
    r"(?:^|[^a-z])(?:loss|losses|err|error|errors|mse|rmse|mae|mape|nll|bce|perplexity|ppl|wer|cer|fid|latency|"
    r"seconds|duration|time)(?:$|[^a-z])"
)
"""In the name of a metric of which less is better."""


class Point(NamedTuple):
    step: float
    value: float


@dataclass
class Metrics:
    """`last` and `series` by name, in the order in which the script named them; a value may be NaN or infinite.

    `document` is what `metrics.json` says by dotted key, texts and lists included.
    """

    last: dict[str, Union[int, float]] = field(default_factory=dict)
    series: dict[str, list[Point]] = field(default_factory=dict)
    document: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def add(self, other: Metrics) -> None:
        """What `other` has beside this; where both have a metric, this one stays."""
        self.last = {**self.last, **{name: value for name, value in other.last.items() if name not in self.last}}
        for name, points in other.series.items():
            self.series.setdefault(name, points)
        self.document = {**other.document, **self.document}
        self.warnings.extend(other.warnings)

    @classmethod
    def of_record(cls, kept: Mapping[str, Any]) -> Metrics:
        """From what a record has."""
        values = {name: value if type(value) is int else number_of(value) for name, value in kept.items()}
        return cls(last={name: value for name, value in values.items() if value is not None})

    def kept(self) -> dict[str, Any]:
        """The first last values, as a record has them."""
        return {name: as_json(value) for name, value in list(self.last.items())[:MOST_KEPT]}


def too_large(name: str, size_bytes: int) -> str:
    """The warning for a file that is not read."""
    return f"{name} is not used: it has {size(size_bytes)}, and the limit is {size(MAX_BYTES)}"


def from_document(data: bytes) -> Metrics:
    """Of `metrics.json`: one object, nested as the script likes. A list of numbers is a series."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        return Metrics(warnings=[f"{DOCUMENT} is not used: it is not JSON ({_why(error)})"])
    if not isinstance(document, dict):
        return Metrics(warnings=[f'{DOCUMENT} is not used: it must be an object such as {{"loss": 0.1}}'])
    if not is_shallow(document):
        return Metrics(warnings=[f"{DOCUMENT} is not used: it is nested too deep, or has text that is not Unicode"])
    found = Metrics()
    for name, value in _leaves("", document):
        found.document[name] = _shown(value)
        values = value if isinstance(value, list) else [value]
        if not values or not all(map(_is_number, values)) or not _has_room(found, name):
            continue
        found.last[name] = _number(values[-1])
        if isinstance(value, list):
            series = SeriesBuilder()
            for step, one in enumerate(values):
                series.add(float(step), float(one))
            found.series[name] = series.points()
    return found


def from_lines(data: bytes) -> Metrics:
    """Of `metrics.jsonl`: an object a line, with the step and any number of values.

    The last line may still be being written.
    """
    *lines, last = data.split(b"\n")
    found, series = Metrics(), dict[str, SeriesBuilder]()
    wrong: list[tuple[int, str]] = []
    for number, line in enumerate([*lines, last]):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
            if not isinstance(document, dict) or not is_shallow(document):
                raise ValueError("it is not an object")
        except (ValueError, RecursionError) as error:
            if number < len(lines):
                wrong.append((number + 1, _why(error)))
            continue
        step_name = next((name for name in _STEPS if _is_step(document.get(name))), None)
        step = float(number if step_name is None else document[step_name])
        for name, value in _leaves("", document):
            if name != step_name and _is_number(value) and _has_room(found, name):
                found.last[name] = _number(value)
                series.setdefault(name, SeriesBuilder()).add(step, float(value))
    found.series = {name: one.points() for name, one in series.items()}
    if wrong:
        line_number, why = wrong[0]
        more = f", and {count(len(wrong) - 1, 'more line')}" if len(wrong) > 1 else ""
        found.warnings.append(f"line {line_number} of {LINES}{more}: not used ({why})")
    return found


class History(NamedTuple):
    """A metric's file in an MLflow folder: its points, and when the first was logged, in milliseconds."""

    began_ms: int
    last: float
    points: list[Point]


def from_mlflow(data: bytes) -> Optional[History]:
    """Lines of `TIMESTAMP VALUE STEP`, of newer versions with the dataset behind; None without any."""
    series = SeriesBuilder()
    began: Optional[int] = None
    latest = (-math.inf, 0, math.nan)
    for line in data.decode("utf-8", "replace").split("\n"):
        parts = line.split(" ")
        try:
            at, value = int(parts[0]), float(parts[1])
            step = float(int(parts[2])) if len(parts) > 2 else 0.0
        except (ValueError, IndexError, OverflowError):
            continue  # the last line may still be being written
        began = at if began is None else min(began, at)
        latest = max(latest, (step, at, value), key=lambda one: one[:2])
        series.add(step, value)
    return None if began is None else History(began, latest[2], series.points())


class TrackedRun(NamedTuple):
    """One of the runs in an MLflow folder. A script may begin several, also within each other."""

    is_nested: bool
    started_ms: int
    metrics: Mapping[str, History]


def from_tracked(runs: Iterable[TrackedRun]) -> Metrics:
    """Of equal names the outer run's wins over a nested one's, then the later one's."""
    found = Metrics()
    for run in sorted(runs, key=lambda one: (one.is_nested, -one.started_ms)):
        for name, history in sorted(run.metrics.items(), key=lambda one: one[1].began_ms):
            if name not in found.last and _has_room(found, name):
                found.last[name] = history.last
                found.series[name] = history.points
    return found


_MLFLOW_FIELD = re.compile(r"^(start_time|lifecycle_stage):\s*'?(\w+)'?\s*$", re.MULTILINE)


def mlflow_start(meta: bytes) -> Optional[int]:
    """When a run of an MLflow folder began, from its `meta.yaml`; None if it was deleted."""
    fields = dict(_MLFLOW_FIELD.findall(meta.decode("utf-8", "replace")))
    if fields.get("lifecycle_stage") == "deleted":
        return None
    start = fields.get("start_time", "")
    return int(start) if start.isdecimal() and len(start) < 16 else 0


def as_json(value: Union[int, float]) -> Union[int, float, str]:
    """JSON has neither NaN nor infinity: they are texts there."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def number_of(value: Any) -> Optional[float]:
    """A value as `as_json` writes it; None for anything else."""
    if isinstance(value, str):  # MLflow's server writes whole numbers as text
        return _SPECIAL.get(value) if value in _SPECIAL else float(value) if _WHOLE.fullmatch(value) else None
    return float(value) if _is_number(value) else None


def shown(value: Any) -> str:
    """A value of a record in a cell, with four digits; empty without one."""
    number = number_of(value)
    if number is None:
        return ""
    return str(value) if type(value) is int or not math.isfinite(number) else f"{number:.4g}"


class Goal(NamedTuple):
    """A metric to compare runs by."""

    name: str
    is_lower_better: bool

    def rank(self, metrics: Mapping[str, Any]) -> tuple[bool, float]:
        """A key for sorting, the best first: runs without the metric, or with NaN, come last."""
        value = number_of(metrics.get(self.name))
        if value is None or math.isnan(value):
            return True, 0.0
        return False, value if self.is_lower_better else -value


def goal_of(text: str) -> Goal:
    """Of `accuracy`, `min:score` or `max:score`; without a word the name decides: of a loss, less is better."""
    word, colon, name = text.partition(":")
    if colon and word in ("min", "max") and name:
        return Goal(name, word == "min")
    return Goal(text, _LOWER.search(text.lower()) is not None)


def check_goal(text: str) -> None:
    """Of what was typed. Raises UsageError: another word than `min` and `max`, or no name."""
    word, colon, name = text.partition(":")
    if colon and (word not in ("min", "max") or not name.strip()):
        raise UsageError(f"Invalid metric {text!r}", hint="use NAME, min:NAME or max:NAME")


class SeriesBuilder:
    """Points in the order of the script, thinned where they are very many."""

    def __init__(self) -> None:
        self._points: list[Point] = []
        self._latest: Optional[Point] = None
        self._seen, self._stride = 0, 1

    def add(self, step: float, value: float) -> None:
        self._latest = Point(step, value)
        if self._seen % self._stride == 0:
            self._points.append(self._latest)
            if len(self._points) == 2 * MOST_POINTS:
                del self._points[1::2]
                self._stride *= 2
        self._seen += 1

    def points(self) -> list[Point]:
        """By step; of equal steps the later one, as after a run that began again."""
        points = self._points
        if points and self._latest is not None and points[-1] is not self._latest:
            points = [*points, self._latest]
        if all(one.step < other.step for one, other in zip(points, points[1:])):
            return list(points)
        return sorted({point.step: point for point in points}.values())


def _leaves(prefix: str, document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """By dotted key; a list is one value."""
    for key, value in document.items():
        if isinstance(value, dict):
            yield from _leaves(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}", value


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (type(value) is int and value.bit_length() < _MOST_BITS)


def _is_step(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)


def _number(value: Union[int, float]) -> Union[int, float]:
    return value if isinstance(value, int) and abs(value) < _EXACT else float(value)


def _shown(value: Any) -> Any:
    if isinstance(value, list):
        return [_shown(one) for one in value]
    return as_json(value) if isinstance(value, float) else value


def _has_room(found: Metrics, name: str) -> bool:
    if name in found.last:
        return True
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
        warning = f"metrics whose names are longer than {_LONGEST_NAME} characters or not printable are not used"
    elif len(found.last) >= MOST_NAMES:
        warning = f"only the first {MOST_NAMES} metrics are used"
    else:
        return True
    if warning not in found.warnings:
        found.warnings.append(warning)
    return False


def _why(error: BaseException) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, line {error.lineno}, column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    return "it is nested too deep" if isinstance(error, RecursionError) else str(error)
