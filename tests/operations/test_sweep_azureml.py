"""`submit --sweep` in Azure ML: one sweep job, whose runs are runs like others."""
# ruff: noqa: F811  (fixtures)

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.operations.test_azureml import Amlctl, amlctl, project, service  # noqa: F401  (fixtures)
from tests.support.azureml_service import AzureMLService

_SCRIPT = """\
import json, os, sys
from file_paths import outputs_dir
config = json.load(open(sys.argv[2]))
print("lr", config["lr"])
with open(os.path.join(outputs_dir(), "metrics.json"), "w") as file:
    json.dump({"loss": config["lr"] * config["size"]}, file)
sys.exit(3 if config["lr"] == 0.5 else 0)
"""


@pytest.fixture(autouse=True)
def files(project: Path) -> None:
    (project / "pipeline/sweep.py").write_text(_SCRIPT)
    (project / "pipeline/base.json").write_text(json.dumps({"lr": 0.1, "size": 1}))


def test_a_sweep_of_values(amlctl: Amlctl, project: Path, service: AzureMLService) -> None:
    options = ("--set", "lr=0.1,0.2", "--set", "size=1,2", "--sweep", "--parallel", "2", "--metric", "min:loss")
    done = amlctl("--json", "submit", "sweep.py", "--config", "base.json", *options)
    assert done.code == 0, done.err
    run = done.document["run"]
    asked = service.job(run).asked
    assert asked["limits"]["maxConcurrentTrials"] == 2
    assert asked["objective"] == {"goal": "minimize", "primaryMetric": "loss"}
    assert len([call for call in done.calls if call.method == "PUT" and "/jobs/" in call.path]) == 1
    results = done.document["results"]
    assert [one["values"] for one in results["runs"]][1] == {"lr": "0.1", "size": "2"}
    assert [one["status"] for one in results["runs"]] == ["Completed"] * 4
    assert [one["metrics"]["loss"] for one in results["runs"]] == pytest.approx([0.1, 0.2, 0.2, 0.4])
    assert results["best"] == f"{run}_0"
    assert "lr 0.2" in amlctl("logs", f"{run}_3").out
    assert json.loads((project / "outputs" / f"{run}_3" / "metrics.json").read_text()) == {"loss": pytest.approx(0.4)}


def test_a_failed_run_fails_the_sweep_and_needed_runs_what_is_left(amlctl: Amlctl, service: AzureMLService) -> None:
    base = ("--json", "submit", "sweep.py", "--config", "base.json", "--sweep", "--no-fetch", "--set")
    done = amlctl(*base, "lr=0.1,0.5")
    assert done.code == 1
    run = done.document["run"]
    assert done.document["error"]["message"] == f"1 of 2 runs did not complete: {run}_1 (lr=0.5) Failed"
    assert done.document["error"]["hint"] == f"amlctl logs {run}_1"
    assert amlctl("--json", "runs", "show", f"{run}_1").document["exit_code"] == 3
    again = amlctl(*base, "lr=0.1,0.2", "--needed")
    assert again.code == 0, again.err
    new = again.document["run"]
    assert service.job(new).asked["searchSpace"] == {"trial": ["choice", [[1]]]}
    assert [(one["run"], one["values"]) for one in again.document["results"]["runs"]] == [
        (f"{run}_0", {"lr": "0.1"}),
        (f"{new}_0", {"lr": "0.2"}),
    ]
    all_there = amlctl(*base, "lr=0.1,0.2", "--needed")
    assert (all_there.code, all_there.document["status"]) == (0, "Completed")
    assert not [call for call in all_there.calls if call.method == "PUT" and "/jobs/" in call.path]
    listed = amlctl("runs").out.splitlines()
    assert [line.split()[0] for line in listed[1:4]] == [all_there.document["run"], new, f"{new}_0"]
    assert listed[3].startswith(f"  {new}_0")


def test_a_sweep_is_canceled_and_deleted_as_a_whole(amlctl: Amlctl, project: Path, service: AzureMLService) -> None:
    (project / "pipeline/sweep.py").write_text("import time\ntime.sleep(600)\n")
    options = ("--config", "base.json", "--set", "lr=1,2,3", "--sweep", "--parallel", "1", "--detach")
    run = amlctl("--json", "submit", "sweep.py", *options).document["run"]
    service.job(run).wait_for("Running")
    assert amlctl("cancel", run).code == 0
    assert service.job(run).wait() == "Canceled"
    assert amlctl("--json", "runs", "show", run).document["status"] == "Canceled"
    deleted = amlctl("--json", "runs", "delete", run, "--yes").document["deleted"]
    assert deleted == [f"{run}_0", run]
