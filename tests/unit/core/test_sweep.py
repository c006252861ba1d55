"""`core.sweep`: combinations of values, and how a sweep has ended."""

from __future__ import annotations

import pytest

from amlctl.core.metrics import Goal
from amlctl.core.run import RunRecord
from amlctl.core.run_id import find_run, newest_first
from amlctl.core.run_state import RunState
from amlctl.core.sweep import SweepRow, best_of, combinations, ending, label, split_values, values_of
from amlctl.errors import UsageError


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1", ["1"]),
        ("1,2", ["1", "2"]),
        ("0.1, 0.2", ["0.1", "0.2"]),
        ("[1,2],[3]", ["[1,2]", "[3]"]),
        ('"a,b",c', ['"a,b"', "c"]),
        ("'a,b'", ["'a,b'"]),
        ('"a\\",b",c', ['"a\\",b"', "c"]),
        ('{"x": [1, 2], "y": "},"},2', ['{"x": [1, 2], "y": "},"}', "2"]),
        ("it's,on", ["it's", "on"]),
        ("", [""]),
    ],
)
def test_values_are_separated_by_commas(text: str, values: list[str]) -> None:
    assert list(split_values(text)) == values


def test_the_last_key_changes_fastest() -> None:
    found = combinations(["a=1,2", "b.c=x", "d=u,v"])
    assert [one.overrides for one in found][1:3] == [("a=1", "b.c=x", "d=v"), ("a=2", "b.c=x", "d=u")]
    assert [one.label for one in found] == ["a=1 d=u", "a=1 d=v", "a=2 d=u", "a=2 d=v"]
    assert combinations(["a=1"])[0].label == "a=1"


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        ([], "needs values"),
        (["a=1", "a=2"], "given twice"),
        (["a=1,"], "a value is empty"),
        (["a=1,2,1"], "has 1 twice"),
        (["a=1,1.0"], "has 1 twice"),
        (["a"], "is not key=value"),
        (['a="b,c'], "is not closed"),
    ],
)
def test_what_cannot_be_combined(overrides: list[str], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        combinations(overrides)


def test_equal_values_are_numbers() -> None:
    assert len(combinations(["a=1,true,'1'"])) == 3


def test_a_label_has_the_values() -> None:
    values = {"a.b": "x y", "c": "", "d": "[1, 2]"}
    assert values_of(label(values)) == values
    assert values_of("3") == {}, "as Azure ML names a run that has not begun"


def test_an_end_says_which_runs_did_not_complete() -> None:
    def children(*states: str) -> list[dict[str, str]]:
        return [{"run": f"r_{number}", "name": f"a={number}", "status": state} for number, state in enumerate(states)]

    assert ending(children("Completed", "Running")) is None
    assert ending(children("Completed", "Completed")) == (RunState.COMPLETED, None)
    state, error = ending(children("Completed", "Canceled", "Failed")) or (None, None)
    assert (state, error and error["hint"]) == (RunState.FAILED, "amlctl logs r_2")
    assert error is not None
    assert error["message"] == "2 of 3 runs did not complete: r_1 (a=1) Canceled, r_2 (a=2) Failed"
    assert (ending(children("Completed", "Canceled")) or [None])[0] is RunState.CANCELED


def test_the_best_has_completed() -> None:
    rows = [
        SweepRow("a", {}, "Failed", metrics={"loss": 0.1}),
        SweepRow("b", {}, "Completed", metrics={"loss": "NaN"}),
        SweepRow("c", {}, "Completed", metrics={"loss": 0.3}),
        SweepRow("d", {}, "Completed", metrics={"loss": 0.2}),
    ]
    best = best_of(rows, Goal("loss", is_lower_better=True))
    assert best is not None
    assert best.run == "d"
    assert best_of(rows, Goal("other", is_lower_better=True)) is None


def test_the_runs_of_a_sweep_follow_it() -> None:
    at = "2026-11-28T19:57:00.000+00:00"
    runs = ["b-20261128-195700-aaaa_10", "b-20261128-195700-aaaa_2", "b-20261128-195700-aaaa"]
    records = [RunRecord(run, created_at=at) for run in runs]
    records.append(RunRecord("c-20261128-195701-bbbb", created_at="2026-11-28T19:57:01.000+00:00"))
    found = [record.run for record in newest_first(records, ["b-20261128-195700-aaaa", "c-20261128-195701-bbbb"])]
    assert found == ["c-20261128-195701-bbbb", runs[2], runs[1], runs[0]]
    assert find_run("b", found) == runs[2]
