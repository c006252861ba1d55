"""What a person finds on the page of a run in Studio, and with `az ml job download`."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amlctl.core.events import Event, Note
from amlctl.operations.logs import follow
from tests.contract.workspace import Bench
from tests.operations.test_azureml import Amlctl, amlctl, project, service
from tests.support.azureml_bench import opened_bench, pointed_at
from tests.support.azureml_service import AzureMLService

__all__ = ["amlctl", "pointed_at", "project", "service"]

_SCRIPT = """\
# /// script
# [tool.amlctl]
# datasets = ["raw/64x64"]
# ///
import json, os, sys
from file_paths import outputs_dir
out = outputs_dir()
os.makedirs(os.path.join(out, "graphs"))
open(os.path.join(out, "graphs/a.txt"), "w").write("1")
loss = [0.5] * 599 + [0.25]
json.dump({"loss": loss, "best": {"epoch": 2}, "name": "x"}, open(os.path.join(out, "metrics.json"), "w"))
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning:marshmallow", "ignore::DeprecationWarning:azure")
def test_a_run_looks_as_expected(amlctl: Amlctl, project: Path, service: AzureMLService, tmp_path: Path) -> None:
    service.faults.has_tracking = True
    (project / "pipeline/train.py").write_text(_SCRIPT)
    many = {f"p{number}": number for number in range(300)}  # more than Azure ML takes, as the values of the loss are
    (project / "pipeline/small.json").write_text(json.dumps({"lr": 0.1, "layers": {"count": 3}, "many": many}))
    (project / "data_blobs/raw/64x64").mkdir()
    (project / "data_blobs/raw/64x64/a.txt").write_text("hello")
    command = ("submit", "train.py", "--config", "small.json", "--name", "first try", "--tag", "team=vision")
    done = amlctl("--json", *command, "--", "--epochs", "2 of 3")
    assert done.code == 0, done.err
    run = done.document["run"]
    job = service.job(run)
    asked = job.asked
    assert (asked["displayName"], asked["tags"]["team"]) == ("first try", "vision")
    assert asked["command"].endswith("-- python pipeline/train.py --config pipeline/small.json --epochs '2 of 3'")
    assert asked["inputs"]["raw_64x64"]["mode"] == "Direct"
    assert asked["inputs"]["raw_64x64"]["uri"].endswith("/datasets/raw/64x64/")
    assert job.metrics == {"loss": 0.25, "best.epoch": 2.0}
    assert [point["step"] for point in job.tracked["loss"]] == list(range(600))
    assert job.tracked["loss"][-1]["value"] == 0.25
    assert {"lr": "0.1", "layers.count": "3", "arguments": "--epochs 2 of 3"}.items() <= job.parameters.items()
    assert len(job.parameters) == 200
    assert not list(service.storage.under("azureml", f"{job.artifacts}outputs/"))  # each output is stored once
    with pytest.MonkeyPatch.context() as patch:
        for name, value in service.stock_variables.items():
            patch.setenv(name, value)
        ml = _stock_client(service)
        ml.jobs.download(run, output_name="saves", download_path=tmp_path / "got")
        os.environ.pop("AZUREML_CURRENT_CLOUD", None)
    got = tmp_path / "got/named-outputs/saves/outputs"
    assert (got / "graphs/a.txt").read_text() == "1"
    assert json.loads((got / "metrics.json").read_text())["best"] == {"epoch": 2}


def _stock_client(service: AzureMLService) -> Any:
    from azure.ai.ml import MLClient
    from azure.identity import DefaultAzureCredential

    return MLClient(DefaultAzureCredential(), service.subscription_id, service.resource_group, service.workspace_name)


def test_services_are_shown_while_the_run_works(azureml: AzureMLService, tmp_path: Path) -> None:
    reported: list[str] = []

    def sink(event: Event) -> None:
        if isinstance(event, Note):
            reported.append(event.message)
            bench.workspace.cancel(run)

    with opened_bench(azureml, tmp_path) as bench:
        run = _with_services(bench)
        ended = follow(replace(bench, sink=sink), run)
        assert [line.partition(f"-{run}.")[0] for line in reported] == ["board: https://board"]
        assert (ended.status, ended.services) == ("Canceled", {})


def _with_services(bench: Bench) -> str:
    board = {"board": {"type": "tensor_board", "log_dir": "outputs/board"}}
    return bench.start("import time; time.sleep(600)", node={"services": board})
