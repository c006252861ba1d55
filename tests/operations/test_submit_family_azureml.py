"""Sweeps and pipelines, which the SDK hands to the loopback Azure ML as their files are."""
# ruff: noqa: F811  (fixtures)

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.operations.test_azureml import Amlctl, amlctl, project, service  # noqa: F401  (fixtures)
from tests.support.azureml_service import AzureMLService

_SWEEP = """\
$schema: https://azuremlschemas.azureedge.net/latest/sweepJob.schema.json
type: sweep
display_name: rates
sampling_algorithm: grid
search_space:
  lr: {type: choice, values: [0.1, 0.2]}
objective: {goal: minimize, primary_metric: loss}
limits: {max_total_trials: 2, max_concurrent_trials: 2}
trial:
  code: src
  command: python try.py ${{search_space.lr}}
  environment: {image: example.org/python}
"""
_PIPELINE = """\
$schema: https://azuremlschemas.azureedge.net/latest/pipelineJob.schema.json
type: pipeline
display_name: two-steps
inputs: {word: hello}
settings: {default_compute: azureml:serverless}
jobs:
  make:
    type: command
    command: echo ${{inputs.word}} > ${{outputs.made}}/word.txt && echo kept > outputs/made.txt
    environment: {image: example.org/python}
    inputs: {word: "${{parent.inputs.word}}"}
    outputs: {made: {type: uri_folder}}
  read:
    type: command
    command: cat ${{inputs.made}}/word.txt > outputs/read.txt
    environment: {image: example.org/python}
    inputs: {made: {type: uri_folder, path: "${{parent.jobs.make.outputs.made}}"}}
"""


@pytest.fixture(autouse=True)
def files(project: Path) -> None:
    (project / "jobs/src").mkdir(parents=True)
    (project / "jobs/sweep.yml").write_text(_SWEEP)
    (project / "jobs/pipeline.yml").write_text(_PIPELINE)
    (project / "jobs/src/try.py").write_text("import sys\nopen('outputs/rate.txt', 'w').write(sys.argv[1])\n")


def test_a_sweep(amlctl: Amlctl, project: Path, service: AzureMLService) -> None:
    done = amlctl("--json", "submit", "jobs/sweep.yml", "--tag", "a=b")
    assert done.code == 0, done.err
    run = done.document["run"]
    assert run.startswith("rates-")
    asked = service.job(run).asked
    assert (asked["jobType"], asked["tags"]["a"]) == ("Sweep", "b")
    shown = amlctl("--json", "runs", "show", "@last").document
    assert (shown["job_type"], shown["status"], shown["script"]) == ("sweep", "Completed", "jobs/sweep.yml")
    assert [(child["run"], child["status"]) for child in shown["children"]] == [
        (f"{run}_0", "Completed"),
        (f"{run}_1", "Completed"),
    ]
    rates = [(project / "outputs" / run / child["run"] / "rate.txt").read_text() for child in shown["children"]]
    assert rates == ["0.1", "0.2"]
    listed = {one["run"] for one in amlctl("--json", "runs").document["runs"]}
    assert {run, f"{run}_0", f"{run}_1"} <= listed
    assert len([call for call in done.calls if call.method == "PUT" and f"/jobs/{run}" in call.path]) == 1


def test_children_come_in_pages(amlctl: Amlctl, service: AzureMLService) -> None:
    service.faults.page_size = 1
    done = amlctl("--json", "submit", "jobs/sweep.yml")
    assert done.code == 0, done.err
    assert len(amlctl("--json", "runs", "show", done.document["run"]).document["children"]) == 2


def test_a_pipeline(amlctl: Amlctl, project: Path, service: AzureMLService) -> None:
    done = amlctl("--json", "submit", "jobs/pipeline.yml")
    assert done.code == 0, done.err
    run = done.document["run"]
    outputs = project / "outputs" / run
    assert (outputs / "make/made.txt").read_text() == "kept\n"
    assert (outputs / "make/made/word.txt").read_text() == "hello\n"
    assert (outputs / "read/read.txt").read_text() == "hello\n"
    text = amlctl("runs", "show", run).out
    assert "make" in text
    assert "read" in text


@pytest.mark.parametrize(("option", "value"), [("--dataset", "raw"), ("--env-from", sys.executable)])
def test_what_is_not_for_a_sweep(amlctl: Amlctl, option: str, value: str) -> None:
    done = amlctl("submit", "jobs/sweep.yml", option, value)
    assert (done.code, f"{option} is not for a job of type sweep" in done.err) == (2, True)
    assert not [call for call in done.calls if call.method == "PUT"]


def test_a_sweep_that_azure_ml_refuses_is_shown_as_failed(amlctl: Amlctl, service: AzureMLService) -> None:
    service.faults.answer(400, "PUT .*/jobs/", code="UserError", message="the sweep is too wide")
    assert amlctl("submit", "jobs/sweep.yml").code == 2
    shown = amlctl("--json", "runs", "show", "@last").document
    assert (shown["script"], shown["status"]) == ("jobs/sweep.yml", "Failed")
    assert "too wide" in shown["error"]["message"]


def test_a_sweep_is_canceled_as_a_whole(amlctl: Amlctl, project: Path, service: AzureMLService) -> None:
    (project / "jobs/src/try.py").write_text("import time\ntime.sleep(600)\n")
    run = amlctl("--json", "submit", "jobs/sweep.yml", "--detach").document["run"]
    service.job(run).wait_for("Running")
    assert amlctl("cancel", run).code == 0
    assert service.job(run).wait() == "Canceled"
    assert {service.job(f"{run}_{number}").wait() for number in (0, 1)} == {"Canceled"}
