"""`submit --sweep` on this machine: one run for every combination, in lanes, and a parent that says how they stand."""

from __future__ import annotations

import json
import os
import shutil
import signal
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from amlctl.core.events import Note
from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState
from amlctl.core.settings import WorkspaceSettings
from amlctl.core.sweep import Sweep, combinations
from amlctl.errors import Conflict, ServiceUnavailable, UsageError
from amlctl.localfs.locks import is_held
from amlctl.localfs.project import Project
from amlctl.operations.fetch import fetch
from amlctl.operations.runs import RunAt, delete
from amlctl.operations.submit.result import SubmitResult
from amlctl.operations.waiting import Waited
from amlctl.runs.records import load_record, save_local_record, save_record
from amlctl.snapshots.store_format import ensure_format
from amlctl.stores.azure_blob.store import AzureBlobStore
from amlctl.workspaces.local.workspace import LocalWorkspace
from tests.support.azurite import Azurite
from tests.support.bench import Bench, wait_for_state
from tests.support.runs import wait_until

SCRIPT = """
import json, os, pathlib, sys, time
config = json.load(open(sys.argv[2]))
out = pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"])
(out / "metrics.json").write_text(json.dumps({"loss": config["lr"] * config["size"]}))
gate = config.get("gate")
while gate and not pathlib.Path(gate).exists():
    time.sleep(0.02)
sys.exit(3 if config["lr"] == 0.5 else 0)
"""


def sweep(bench: Bench, *overrides: str, parallel: int | None = 2, metric: str = "", **more: Any) -> SubmitResult:
    wanted = Sweep(combinations(overrides), parallel, metric)
    return bench.submit("train.py", config="base.json", sweep=wanted, **more)


@pytest.fixture
def swept(bench: Bench) -> Bench:
    bench.script(SCRIPT)
    bench.write("pipeline/base.json", json.dumps({"lr": 0.1, "size": 1, "gate": ""}))
    return bench


def children(bench: Bench, parent: RunRecord) -> list[RunRecord]:
    return [bench.workspace.read(one["run"]) for one in parent.children]


def test_a_run_for_every_combination(swept: Bench) -> None:
    done = sweep(swept, "lr=0.1,0.2", "size=1,2,3", metric="max:loss")
    parent = done.record
    assert (parent.status, parent.spec.job_type, parent.error) == ("Completed", "sweep", None)
    assert [one["run"] for one in parent.children] == [f"{parent.run}_{number}" for number in range(6)]
    assert [one["name"] for one in parent.children][:4] == [
        "lr=0.1 size=1",
        "lr=0.1 size=2",
        "lr=0.1 size=3",
        "lr=0.2 size=1",
    ]
    runs = children(swept, parent)
    assert {(run.status, run.spec.parent, run.spec.code) for run in runs} == {
        ("Completed", parent.run, parent.spec.code)
    }
    assert [run.metrics["loss"] for run in runs] == pytest.approx([0.1, 0.2, 0.3, 0.2, 0.4, 0.6])


def test_results_of_one_run_that_wait_for_the_store_keep_no_other_run_from_being_fetched(swept: Bench) -> None:
    parent = sweep(swept, "lr=0.1,0.2").record
    first, second = children(swept, parent)
    save_record(swept.store, replace(first, status=RunState.FINALIZING))
    error = {"kind": "unavailable", "message": "the results cannot be saved", "hint": "make room"}
    save_local_record(swept.project.state_dir, replace(first, status=RunState.FAILED, error=error))
    output = swept.project.outputs_dir / second.run / "metrics.json"
    output.unlink(missing_ok=True)
    with pytest.raises(ServiceUnavailable, match="the results cannot be saved"):
        fetch(swept, parent.run)
    assert output.is_file()


def test_a_failed_run_stops_no_other_one_and_needed_runs_what_is_left(swept: Bench) -> None:
    done = sweep(swept, "lr=0.1,0.5,0.2", parallel=1)
    parent = done.record
    assert [one["status"] for one in parent.children] == ["Completed", "Failed", "Completed"]
    assert (parent.status, done.failure and done.failure.exit_code) == ("Failed", 1)
    assert f"1 of 3 runs did not complete: {parent.run}_1 (lr=0.5) Failed" in str(done.failure)
    swept.script(SCRIPT.replace("== 0.5", "== 0.7"))
    again = sweep(swept, "lr=0.1,0.5,0.2", is_needed_only=True).record
    assert [one["run"] for one in again.children] == [f"{again.run}_{number}" for number in range(3)]
    last = sweep(swept, "lr=0.1,0.9,0.2", is_needed_only=True)
    runs = [one["run"] for one in last.record.children]
    assert runs == [f"{again.run}_0", f"{last.record.run}_1", f"{again.run}_2"]
    assert any("2 runs of 3 Completed before" in note.message for note in swept.reported(Note))
    assert sweep(swept, "lr=0.1,0.2", is_needed_only=True).record.status == "Completed"


def test_a_run_that_cannot_be_started_is_failed_for_all(swept: Bench) -> None:
    file = swept.write("compute/local.yaml", "name: local\ntype: local\n")
    change = f"import pathlib; pathlib.Path({str(file)!r}).write_text('name: local\\ntype: amlcompute\\n')\n"
    swept.script(change + SCRIPT)
    parent = sweep(swept, "lr=0.1,0.2", parallel=1).record
    stored = [load_record(swept.store, one["run"]) for one in parent.children]
    assert [record and record.status for record in stored] == ["Completed", "Failed"]


def test_a_refused_value_starts_nothing(swept: Bench) -> None:
    for overrides, why in ((("lr=0.1,fast",), "lr"), (("token=abcdef,ghijkl",), "looks like a secret")):
        with pytest.raises(UsageError, match=why):
            sweep(swept, *overrides)
    with pytest.raises(UsageError, match="--produces exclude each other"):
        sweep(swept, "lr=0.1,0.2", produces=["made"])
    assert swept.workspace.list_runs() == []


def waiting_sweep(bench: Bench, tmp_gate: str, *, parallel: int) -> RunRecord:
    """Detached; its runs end when the gate exists."""
    bench.write("pipeline/base.json", json.dumps({"lr": 0.1, "size": 1, "gate": tmp_gate}))
    parent = sweep(bench, "size=1,2,3,4", parallel=parallel, is_detached=True).record
    for number in range(parallel):
        wait_for_state(bench, f"{parent.run}_{number}", "Running")
    return parent


def test_parallel_bounds_the_runs_and_a_cancel_ends_all(swept: Bench) -> None:
    parent = waiting_sweep(swept, str(swept.project.root / "gate"), parallel=2)
    assert [run.status for run in children(swept, parent)] == ["Running", "Running", "NotStarted", "NotStarted"]
    assert swept.workspace.read(parent.run).status == "Running"
    first = f"{parent.run}_0"
    swept.workspace.cancel(first)
    wait_for_state(swept, first, "Canceled")
    with pytest.raises(Conflict, match=f"belongs to {parent.run}, which is Running"):
        delete([RunAt(first, swept)])
    swept.workspace.cancel(parent.run)
    ended = wait_for_state(swept, parent.run, "Canceled")
    assert ended.error is not None
    failure = Waited([ended]).failure
    assert failure is not None
    assert str(failure.hint) == f"amlctl runs show {parent.run}", "a sweep has no log"
    assert {run.status for run in children(swept, parent)} == {"Canceled"}


def test_a_copy_of_the_project_leaves_the_rest_of_a_sweep_alone(swept: Bench, tmp_path: Path) -> None:
    """With the same store: the copy shows the runs that the original starts there."""
    gate = tmp_path / "gate"
    parent = waiting_sweep(swept, str(gate), parallel=1)
    shutil.copytree(swept.project.root, tmp_path / "copy")
    copy = LocalWorkspace(Project(tmp_path / "copy"), WorkspaceSettings("local"), swept.store)
    swept.workspace.cancel(f"{parent.run}_0")
    wait_for_state(swept, f"{parent.run}_1", "Running")
    seen = copy.read(parent.run)
    states = [one["status"] for one in seen.children]
    assert (seen.status, states) == ("Running", ["Canceled", "Running", "NotStarted", "NotStarted"])
    gate.touch()
    ended = wait_for_state(swept, parent.run, "Canceled")
    assert [one["status"] for one in ended.children] == ["Canceled", "Completed", "Completed", "Completed"]
    assert copy.read(parent.run).children == ended.children


@pytest.mark.parametrize(("number", "end"), [(signal.SIGKILL, "Failed"), (signal.SIGTERM, "Canceled")])
def test_a_killed_lane_leaves_the_truth(swept: Bench, number: signal.Signals, end: str) -> None:
    """Also where a run that has ended before is without its folder, which `clean --logs` removes."""
    parent = waiting_sweep(swept, str(swept.project.root / "gate"), parallel=1)
    first, second = (swept.project.state_dir / "local" / f"{parent.run}_{at}" for at in range(2))
    swept.workspace.cancel(first.name)
    wait_for_state(swept, second.name, "Running")
    wait_until(lambda: not is_held(first / "supervisor.lock"), "the end of the first lane")
    shutil.rmtree(first)
    os.kill(json.loads((second / "supervisor.json").read_text())["process"], number)
    wait_until(lambda: swept.workspace.read(parent.run).is_final, "the end of the sweep")
    found = swept.workspace.read(parent.run)
    assert found.status == "Failed"
    assert found.error is not None
    assert found.error["message"].startswith("the supervisors of its runs were ended: 4 of 4 runs did not complete")
    assert [run.status for run in children(swept, parent)] == ["Canceled", end, "Canceled", "Canceled"]


def test_each_lane_hands_on_secrets_and_the_login_of_the_store(swept: Bench, azurite: Azurite) -> None:
    container = azurite.new_container()
    with closing(AzureBlobStore(f"{azurite.url}/{container}", {"AZURE_STORAGE_KEY": azurite.key})) as owner:
        ensure_format(owner)  # which makes the container
    token = generate_container_sas(
        azurite.account,
        container,
        azurite.key,
        permission=ContainerSasPermissions(read=True, write=True, list=True, delete=True, create=True, add=True),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )
    url = f"{azurite.url}/{container}?{token}"
    settings = replace(swept.settings.workspace(), store=url)
    swept.store = AzureBlobStore(url, {})
    swept.workspace = LocalWorkspace(swept.project, settings, swept.store, variables=dict(os.environ))
    swept.script("import os; assert os.environ['WORD'] == 'a secret word'\n" + SCRIPT)
    variables: dict[str, Any] = {"variables": {"WORD": None}, "caller_variables": {"WORD": "a secret word"}}
    parent = sweep(swept, "lr=0.1,0.2", parallel=1, **variables).record
    assert [one["status"] for one in parent.children] == ["Completed", "Completed"]
    assert [run.metrics["loss"] for run in children(swept, parent)] == [0.1, 0.2]
    swept.store.close()
