"""The end of a phase is the beginning of the next; what was not recorded comes from the states of the run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from amlctl.core.phases import Phase, Span, began, begun, begun_at, script_s, timeline
from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState

START = datetime(2026, 1, 1, tzinfo=UTC)


def _at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def _record() -> RunRecord:
    record = RunRecord("r", phases=[begun(Phase.SYNC, _at(0)), begun(Phase.CODE, _at(2))])
    record.reached(RunState.QUEUED, _at(3))
    began(record, Phase.ENVIRONMENT, _at(7), "cached")
    record.reached(RunState.PREPARING, _at(7))
    began(record, Phase.DATA, _at(7.5))
    record.reached(RunState.RUNNING, _at(10))
    return record


def test_the_last_phase_of_an_active_run_lasts_until_now() -> None:
    assert timeline(_record(), _at(30)) == [
        Span("sync", 2.0),
        Span("code", 1.0),
        Span("queue", 4.0),
        Span("env", 0.5, "cached"),
        Span("data", 2.5),
        Span("run", 20.0, is_open=True),
    ]
    assert script_s(_record()) is None


def test_the_script_ends_before_its_results_are_saved() -> None:
    record = _record()
    began(record, Phase.SAVE, _at(22))
    record.reached(RunState.FINALIZING, _at(24))
    record.reached(RunState.COMPLETED, _at(25))
    assert script_s(record) == 12.0
    assert timeline(record, _at(99))[-1] == Span("save", 3.0)
    began(record, Phase.NODES, _at(30))
    assert [one["name"] for one in record.phases] == ["sync", "code", "env", "data", "save"]


def test_a_record_without_phases_has_those_of_its_states() -> None:
    record = RunRecord("r")
    for state, second in ((RunState.QUEUED, 0), (RunState.RUNNING, 5), (RunState.FAILED, 9)):
        record.reached(state, _at(second))
    assert timeline(record, _at(99)) == [Span("queue", 5.0), Span("run", 4.0)]
    assert script_s(record) == 4.0
    assert timeline(RunRecord("r"), _at(0)) == []


def test_a_phase_begins_once() -> None:
    record = _record()
    began(record, Phase.DATA, _at(20))
    assert timeline(record, _at(30))[4] == Span("data", 2.5)


def test_times_of_a_node_are_checked() -> None:
    assert begun_at({"run": "2026-01-01T00:00:05Z", "save": "soon", "data": 5, "other": "x"}) == {Phase.RUN: _at(5)}


def test_a_record_keeps_its_phases() -> None:
    record = _record()
    assert RunRecord.from_bytes(record.to_bytes(), "r").phases == record.phases
