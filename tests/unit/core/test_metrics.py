"""What a run says about itself, however wrong, becomes numbers and warnings, never an error."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amlctl.core.metrics import (
    MOST_KEPT,
    MOST_NAMES,
    MOST_POINTS,
    Metrics,
    Point,
    TrackedRun,
    as_json,
    from_document,
    from_lines,
    from_mlflow,
    from_tracked,
    goal_of,
    mlflow_start,
    number_of,
)
from amlctl.core.run_schema import RULES


def test_a_document_gives_last_values_and_series() -> None:
    found = from_document(b'{"test": {"acc": 0.5, "n": 3}, "loss": [0.5, NaN, 0.25], "name": "x", "ok": true, "l": []}')
    assert found.last == {"test.acc": 0.5, "test.n": 3, "loss": 0.25}
    assert [point.step for point in found.series["loss"]] == [0, 1, 2]
    assert found.document["name"] == "x"
    assert found.document["loss"] == [0.5, "NaN", 0.25]
    assert not found.warnings


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x89PNG\r\n\x1a\n\x00", "it is not UTF-8 text"),
        (b"\x00", "Expecting value, line 1, column 1"),
        (b'{"a": 1,\n}', "line 2, column 1"),
        (b"[1, 2]", "must be an object"),
        (b"3", "must be an object"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a":' * 500 + b"1" + b"}" * 500, "nested too deep"),
        (b'{"a": "\\ud800"}', "not Unicode"),
    ],
)
def test_a_document_that_cannot_be_used_is_a_warning(data: bytes, why: str) -> None:
    found = from_document(data)
    assert (found.last, found.document) == ({}, {})
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith("metrics.json is not used: ")
    assert why in found.warnings[0]


def test_lines_give_series_by_their_step() -> None:
    found = from_lines(
        b'{"step": 1, "loss": 2.0, "val": {"acc": 0.1}}\n\n{"step": 2, "loss": 1.0}\n{"epoch": 9, "loss": 0.5}\n'
        b'{"note": "text"}\n{"step": 3, "lo'
    )
    assert found.series["loss"] == [(1, 2.0), (2, 1.0), (9, 0.5)]
    assert found.series["val.acc"] == [(1, 0.1)]
    assert found.last == {"loss": 0.5, "val.acc": 0.1}
    assert not found.warnings  # the last line may still be being written


def test_lines_without_a_step_are_counted_and_repeated_steps_replaced() -> None:
    assert from_lines(b'{"a": 1}\n{"a": 2}').series["a"] == [(0, 1), (1, 2)]
    again = from_lines(b'{"step": 1, "a": 1}\n{"step": 2, "a": 2}\n{"step": 1, "a": 3}\n')
    assert again.series["a"] == [(1, 3), (2, 2)]
    assert again.last == {"a": 3}


def test_wrong_lines_are_one_warning() -> None:
    found = from_lines(b'{"a": 1}\nepoch 2\n\xff\n[1]\n{"a": 2}\n')
    assert found.last == {"a": 2}
    assert found.warnings == ["line 2 of metrics.jsonl, and 2 more lines: not used (Expecting value, line 1, column 1)"]


def test_a_long_series_is_thinned_and_keeps_both_ends() -> None:
    lines = b"".join(b'{"step": %d, "a": %d}\n' % (step, step) for step in range(5 * MOST_POINTS))
    points = from_lines(lines).series["a"]
    assert MOST_POINTS <= len(points) <= 2 * MOST_POINTS
    assert points[0] == (0, 0)
    assert points[-1] == (5 * MOST_POINTS - 1, 5 * MOST_POINTS - 1)
    assert points == sorted(points)


def test_the_numbers_of_metrics_are_bounded() -> None:
    found = from_document(json.dumps({f"m{number}": number for number in range(MOST_NAMES + 5)}).encode())
    assert len(found.last) == MOST_NAMES
    assert found.warnings == [f"only the first {MOST_NAMES} metrics are used"]
    assert list(found.kept()) == [f"m{number}" for number in range(MOST_KEPT)]
    assert not from_document(json.dumps({"x" * 300: 1, "a\0b": 2}).encode()).last


def test_histories_of_mlflow_are_read_in_all_their_forms() -> None:
    history = from_mlflow(b"1700000000000 0.5 0\n1700000000009 nan 2\n1700000000005 0.25 1 data 1a2b\n17 broken\n1 ")
    assert history is not None
    assert [point.step for point in history.points] == [0, 1, 2]
    assert math.isnan(history.last)
    assert from_mlflow(b"") is None
    assert from_mlflow(b"\x89PNG \x00 \xff") is None
    assert from_mlflow(b"1 0.5 " + b"9" * 400) is None  # no float has such a step
    assert mlflow_start(b"lifecycle_stage: active\nrun_id: x\nstart_time: 1700000000000\n") == 1700000000000
    assert mlflow_start(b"lifecycle_stage: deleted\nstart_time: 1\n") is None
    assert mlflow_start("start_time: \u00b2\n".encode()) == 0  # a digit, but not a number


def test_an_outer_run_of_mlflow_wins_over_nested_and_earlier_ones() -> None:
    def one(is_nested: bool, started_ms: int, **values: float) -> TrackedRun:
        histories = {name: from_mlflow(f"{started_ms} {value} 0\n".encode()) for name, value in values.items()}
        return TrackedRun(is_nested, started_ms, {name: one for name, one in histories.items() if one is not None})

    found = from_tracked([one(True, 30, a=3, c=3), one(False, 10, a=1, b=1), one(False, 20, a=2), one(True, 40, c=4)])
    assert found.last == {"a": 2, "b": 1, "c": 4}


def test_the_first_source_wins() -> None:
    found = from_document(b'{"a": 1}')
    found.add(Metrics(last={"a": 2, "b": 3}, series={"a": [Point(0, 2)]}))
    assert found.last == {"a": 1, "b": 3}
    assert found.series == {"a": [(0, 2)]}


@given(st.floats() | st.integers(-(1 << 60), 1 << 60))
def test_kept_values_are_valid_in_a_record_and_come_back(value: float) -> None:
    kept = json.loads(json.dumps(Metrics(last={"a": value}).kept(), allow_nan=False))
    assert RULES["metrics"](kept)
    back = number_of(kept["a"])
    assert back is not None
    assert back == float(value) or math.isnan(value)


@given(st.binary(max_size=200))
def test_no_bytes_are_an_error(data: bytes) -> None:
    for found in (from_document(data), from_lines(data)):
        assert RULES["metrics"](found.kept())
    from_mlflow(data)
    mlflow_start(data)


@pytest.mark.parametrize(
    ("text", "name", "is_lower_better"),
    [
        ("accuracy", "accuracy", False),
        ("val_loss", "val_loss", True),
        ("test.RMSE", "test.RMSE", True),
        ("lossless", "lossless", False),
        ("min:score", "score", True),
        ("max:loss", "loss", False),
        ("max:", "max:", False),
        ("a:b", "a:b", False),
    ],
)
def test_the_better_end_of_a_metric(text: str, name: str, is_lower_better: bool) -> None:
    assert goal_of(text) == (name, is_lower_better)


def test_runs_without_the_metric_are_last() -> None:
    goal = goal_of("loss")
    runs: list[Mapping[str, Any]] = [{"loss": 2}, {}, {"loss": "NaN"}, {"loss": 0.5}, {"loss": "Infinity"}]
    assert sorted(runs, key=goal.rank)[:3] == [{"loss": 0.5}, {"loss": 2}, {"loss": "Infinity"}]
    assert as_json(float("-inf")) == "-Infinity"
