"""The same job file, on the loopback Azure ML."""
# ruff: noqa: F811  (fixtures)

from __future__ import annotations

from pathlib import Path

import pytest

from tests.operations.test_azureml import Amlctl, amlctl, project, service  # noqa: F401  (fixtures)
from tests.support.azureml_service import AzureMLService

_JOB = """\
$schema: https://azuremlschemas.azureedge.net/latest/commandJob.schema.json
command: >-
  cat "${{inputs.data}}/a.txt" > ${{outputs.copy}}/b.txt &&
  python show.py ${{inputs.lr}} && echo plain > outputs/plain.txt
code: ../src
inputs:
  data: {type: uri_folder, path: ../data_blobs/raw}
  lr: 0.1
outputs:
  copy: {type: uri_folder}
description: shows what it is given
resources: {instance_type: Standard_E4s_v3, shm_size: 8g}
queue_settings: {job_tier: spot}
identity: {type: user_identity}
environment:
  image: mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04
  conda_file:
    dependencies: [python=3.11]
"""


def test_a_job_file_runs_on_azure_ml(amlctl: Amlctl, project: Path, service: AzureMLService) -> None:
    for name, text in (("jobs/job.yml", _JOB), ("src/show.py", "import sys\nprint('lr is', sys.argv[1])\n")):
        (project / name).parent.mkdir()
        (project / name).write_text(text)
    done = amlctl("--json", "submit", "jobs/job.yml")
    assert done.code == 0, done.err
    outputs = project / "outputs" / done.document["run"]
    assert (outputs / "copy/b.txt").read_text() == "hello"
    assert (outputs / "plain.txt").read_text() == "plain\n"
    assert "lr is 0.1" in done.err
    shown = amlctl("--json", "runs", "show", "@last").document
    assert (shown["script"], shown["inputs"]["data"]) == ("jobs/job.yml", {"dataset": "raw"})
    asked = service.job(done.document["run"]).asked
    assert asked["description"] == "shows what it is given"
    assert asked["resources"] == {"instanceCount": 1, "instanceType": "Standard_E4s_v3", "shmSize": "8g"}
    assert asked["queueSettings"] == {"jobTier": "Spot"}
    assert asked["identity"] == {"identityType": "UserIdentity"}


def test_a_cluster_has_its_own_size(amlctl: Amlctl, project: Path, service: AzureMLService) -> None:
    (project / "compute/gpu.yaml").write_text("name: gpu\ntype: amlcompute\nsize: Standard_DS3_v2\nmax_instances: 1\n")
    (project / "jobs").mkdir()
    (project / "jobs/job.yml").write_text(
        "command: echo ran\ncompute: azureml:gpu\nresources: {instance_type: Standard_E4s_v3}\n"
    )
    done = amlctl("submit", "jobs/job.yml")
    assert done.code == 2
    assert "resources.instance_type is for compute serverless" in done.err


@pytest.mark.parametrize(
    ("lines", "place", "told"),
    [
        ("command: echo ran\ncompute: azureml:nowhere\n", 2, "nowhere"),
        (
            "command: ls ${{inputs.data}}\ninputs:\n  data:\n    path: azureml://datastores/x/paths/working/gone\n",
            4,
            "working/gone",
        ),
    ],
)
def test_what_is_nowhere_is_told_with_its_line(
    amlctl: Amlctl, project: Path, lines: str, place: int, told: str
) -> None:
    (project / "jobs").mkdir()
    (project / "jobs/job.yml").write_text(lines)
    done = amlctl("submit", "jobs/job.yml")
    assert done.code == 4
    assert done.err.partition("error: ")[2].startswith(f"jobs/job.yml:{place}: ")
    assert told in done.err


def test_an_option_that_is_nowhere_is_not_on_a_line(amlctl: Amlctl, project: Path) -> None:
    (project / "jobs").mkdir()
    (project / "jobs/job.yml").write_text("command: echo ran\ncompute: azureml:gpu\n")
    done = amlctl("submit", "jobs/job.yml", "--compute", "nowhere")
    assert done.code == 4
    assert "job.yml:" not in done.err
