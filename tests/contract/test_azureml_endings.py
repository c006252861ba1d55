"""The end of a run on Azure ML is the one that Azure ML tells: an answer that does not tell it ends nothing."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from amlctl.core.run import RunRecord
from amlctl.errors import NotFound, ServiceUnavailable
from amlctl.runs.records import load_record, save_record
from amlctl.workspaces.azureml.ending import ended
from tests.contract.workspace import WAITS_FOR_A_SIGNAL, Bench
from tests.support.azureml_bench import opened_bench, pointed_at
from tests.support.azureml_service import AzureMLService
from tests.support.runs import run_record, wait_until

__all__ = ["pointed_at"]
LONG_AGO = "2026-01-01T00:00:00+00:00"


@pytest.fixture
def bench(azureml: AzureMLService, tmp_path: Path) -> Any:
    with opened_bench(azureml, tmp_path) as opened:
        yield opened


def other_machine(azureml: AzureMLService, bench: Bench, folder: Path) -> Any:
    return opened_bench(azureml, folder / "other", experiment=bench.fields["experiment"])


def stored_status(bench: Bench, run: str) -> str:
    record = load_record(bench.store, run)
    assert record is not None
    return record.status


def test_a_cancel_that_finds_no_job_ends_no_running_run(bench: Bench, azureml: AzureMLService) -> None:
    run = bench.start(WAITS_FOR_A_SIGNAL)
    bench.wait_for_log(run, b"ready")
    azureml.faults.answer(404, f"POST .*/{run}/cancel", code="NotFound")
    with pytest.raises(ServiceUnavailable, match=r"not canceled.*Running"):
        bench.workspace.cancel(run)
    assert bench.workspace.read(run).status == "Running"
    assert stored_status(bench, run) == "NotStarted"
    bench.workspace.cancel(run)
    assert bench.finished(run).status == "Canceled"


def test_a_cancel_that_finds_neither_job_nor_run_ends_no_run_that_was_there(
    bench: Bench, azureml: AzureMLService
) -> None:
    run = bench.start(WAITS_FOR_A_SIGNAL)
    bench.wait_for_log(run, b"ready")
    azureml.faults.answer(404, f"POST .*/{run}/cancel", code="NotFound")
    azureml.faults.answer(404, f"GET .*/{run}/details", code="NotFound", times=2)
    with pytest.raises(ServiceUnavailable, match="not canceled"):
        bench.workspace.cancel(run)
    bench.workspace.cancel(run)
    assert bench.finished(run).status == "Canceled"


@pytest.mark.parametrize("is_other_machine", [False, True])
def test_a_run_that_is_not_found_for_a_while_has_not_ended(
    bench: Bench, azureml: AzureMLService, is_other_machine: bool
) -> None:
    run = bench.start(WAITS_FOR_A_SIGNAL, created_at=LONG_AGO)
    bench.wait_for_log(run, b"ready")
    if is_other_machine:  # it knows the run by the record of the submit alone
        shutil.rmtree(bench.project.state_dir / "runs" / run)
    azureml.faults.answer(404, f"GET .*/{run}/details", code="NotFound")

    def unknown() -> RunRecord | None:
        found = bench.workspace.read(run)
        return found if found.status != "Running" else None

    seen = wait_until(unknown, what="a look that does not find the run")
    assert (seen.status, seen.is_final, "does not find" in seen.waits_for) == ("NotResponding", False, True)
    assert stored_status(bench, run) == "NotStarted"
    assert bench.workspace.read(run).status == "Running"
    bench.workspace.cancel(run)
    assert bench.finished(run).status == "Canceled"


def test_a_queued_run_of_another_machine_that_is_not_found_for_a_while_has_not_ended(
    bench: Bench, azureml: AzureMLService, tmp_path: Path
) -> None:
    """It has left no trace in the store yet but the record of its submit."""
    azureml.faults.holds_queue = True
    run = bench.start("pass", created_at=LONG_AGO)
    azureml.faults.answer(404, f"GET .*/{run}/details", code="NotFound")
    with other_machine(azureml, bench, tmp_path) as other:
        seen = other.workspace.read(run)
    assert (seen.status, "does not find" in seen.waits_for) == ("NotResponding", True)
    assert stored_status(bench, run) == "NotStarted"
    azureml.faults.holds_queue = False
    assert bench.finished(run).status == "Completed"


def test_a_workspace_that_is_not_found_says_nothing_of_its_runs(bench: Bench, azureml: AzureMLService) -> None:
    record = bench.record("pass", created_at=LONG_AGO)
    save_record(bench.store, record)
    azureml.faults.answer(404, "GET .*/details", code="SubscriptionNotFound")
    with pytest.raises(NotFound, match="workspace"):
        bench.workspace.read(record.run)
    assert stored_status(bench, record.run) == "NotStarted"


def test_a_run_that_arrives_late_was_not_lost(bench: Bench, azureml: AzureMLService, tmp_path: Path) -> None:
    record = bench.record("print('late')", created_at=LONG_AGO)
    save_record(bench.store, record)
    with other_machine(azureml, bench, tmp_path) as other:
        assert other.workspace.read(record.run).status == "Failed"
        bench.workspace.start(record, {})
        assert bench.finished(record.run).status == "Completed"
        assert other.workspace.read(record.run) == bench.workspace.read(record.run)
    assert stored_status(bench, record.run) == "Completed"


def test_a_run_that_starts_after_its_cancel_is_shown_as_it_is(
    bench: Bench, azureml: AzureMLService, tmp_path: Path
) -> None:
    record = bench.record("print('late')")
    save_record(bench.store, record)
    with other_machine(azureml, bench, tmp_path) as other:
        other.workspace.cancel(record.run)
        assert other.workspace.read(record.run).status == "Canceled"
        bench.workspace.start(record, {})
        assert bench.finished(record.run).status == "Completed"
        assert [one.status for one in other.workspace.list_runs()] == ["Completed"]


def test_a_run_of_another_workspace_is_not_judged_here(bench: Bench) -> None:
    """Two workspaces may use one store; the one that has made the run knows how it stands."""
    record = bench.record("pass", workspace="elsewhere", created_at=LONG_AGO)
    save_record(bench.store, record)
    assert bench.workspace.read(record.run).status == "NotStarted"
    with pytest.raises(ServiceUnavailable, match="not canceled"):
        bench.workspace.cancel(record.run)
    assert stored_status(bench, record.run) == "NotStarted"


def test_a_second_start_of_a_run_fails_nothing(bench: Bench, azureml: AzureMLService, tmp_path: Path) -> None:
    record = bench.record("print('once')")
    save_record(bench.store, record)
    with other_machine(azureml, bench, tmp_path) as other:
        other.workspace.start(record, {})
        azureml.faults.answer(409, f"PUT .*/jobs/{record.run}$", code="Conflict")
        bench.workspace.start(record, {})
    assert bench.finished(record.run).status == "Completed"


def reported(status: str, message: str, began: str = "10:00:00", end: str = "10:00:30") -> Mapping[str, Any]:
    day = "2026-01-01T"
    return {
        "status": status,
        "error": {"error": {"code": "UserError", "message": message}},
        "startTimeUtc": f"{day}{began}Z" if began else None,
        "endTimeUtc": f"{day}{end}Z",
    }


NOW = datetime(2026, 1, 2, tzinfo=UTC)
SCRIPT_TIMED_OUT = "User process 'python' exited with status code 1. Error: the request timed out"
BUILD_FAILED = 'Image build failed: process "/bin/sh -c pip install x" did not complete successfully: exit code: 1'


@pytest.mark.parametrize(
    ("document", "kind", "code"),
    [
        (reported("Failed", SCRIPT_TIMED_OUT), "script", 1),
        (reported("Failed", "Connecting to the registry timed out"), "service", None),
        (reported("Failed", BUILD_FAILED, began=""), "service", None),
        (reported("Failed", "AzureMLCompute job failed ExecutionFailed: [REDACTED] exit_codes: 3"), "script", 3),
        (reported("Failed", "User program was stopped. It printed: tool ended with exit code 7"), "service", None),
        (reported("Canceled", "", end="10:01:01"), "timeout", None),
        (reported("Canceled", "exceeded its time limit", end="10:00:59"), "timeout", None),
        (reported("Canceled", "by its owner"), "canceled", None),
    ],
)
def test_reason_and_exit_code_are_those_of_the_service(
    document: Mapping[str, Any], kind: str, code: int | None
) -> None:
    record = run_record(run="r-1", script="x.py", timeout_s=60.0)
    final = ended(record, document, None, NOW)
    assert ((final.error or {}).get("kind"), final.exit_code) == (kind, code)


def test_a_preempted_run_is_not_blamed_on_the_script_of_another_node() -> None:
    """Azure ML does not always start it again."""
    why = "AzureMLCompute job failed. PreemptionError: Nodes of this job got pre-empted. Check if the run has restarted"
    of_script = {"kind": "script", "exit_code": 1, "message": "the script of rank 1 ended with exit code 1"}
    final = ended(run_record(run="r-1", script="x.py"), reported("Failed", why), of_script, NOW)
    assert final.error == {"kind": "service", "message": why, "hint": "amlctl submit --from r-1"}
