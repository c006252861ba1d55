"""The same job file, on the loopback Azure ML."""
# ruff: noqa: F811  (fixtures)

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from amlctl.workspaces.azureml.job import JobParts, job_document
from tests.operations.test_azureml import Amlctl, amlctl, project, service  # noqa: F401  (fixtures)
from tests.support.azureml_assets import address_of, registered  # noqa: F401  (fixture)
from tests.support.azureml_service import AzureMLService
from tests.support.azureml_service.place import asset_of
from tests.support.runs import run_record

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
    assert (shown["script"], shown["inputs"]["data"]) == (
        "jobs/job.yml",
        {"dataset": "raw", "type": "uri_folder"},
    )
    asked = service.job(done.document["run"]).asked
    assert asked["description"] == "shows what it is given"
    resources = {"instanceCount": 1, "instanceType": "Standard_E4s_v3", "shmSize": "8g", "properties": {}}
    assert asked["resources"] == resources
    assert asked["queueSettings"] == {"jobTier": "Spot"}
    assert asked["identity"] == {"identityType": "UserIdentity"}


def test_a_cluster_has_its_own_size(amlctl: Amlctl, project: Path, service: AzureMLService) -> None:
    """The service takes such a job, and so do we."""
    (project / "compute/gpu.yaml").write_text("name: gpu\ntype: amlcompute\nsize: Standard_DS3_v2\nmax_instances: 1\n")
    (project / "jobs").mkdir()
    (project / "jobs/job.yml").write_text(
        "command: echo ran\ncompute: azureml:gpu\nresources: {instance_type: Standard_E4s_v3}\n"
    )
    done = amlctl("submit", "jobs/job.yml", "--dry-run")
    assert done.code == 0, done.err
    assert "jobs/job.yml:3: resources.instance_type works with compute serverless only" in done.err


_ALL_KEYS = """\
command: cat ${{inputs.given}}/a.txt $AZURE_ML_INPUT_given/a.txt > "$AZURE_ML_OUTPUT_kept/two.txt" && test $RATE = 0.5
inputs:
  lr: 0.5
  given: {type: custom_model, path: azureml://datastores/theirs/paths/folder/}
  long: {path: azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/d/paths/x, mode: direct}
  web: {type: uri_file, path: 'https://example.org/x.csv', mode: direct}
outputs:
  kept: {type: mlflow_model, name: kept-model, version: 3}
  address: {mode: direct}
environment: azureml://registries/azureml/environments/sklearn-1.5/labels/latest
environment_variables: {AZUREML_COMPUTE_USE_COMMON_RUNTIME: 'true', RATE: '${{inputs.lr}}'}
identity: {type: managed, client_id: an-id}
properties: {team: vision}
tags: {a: b}
queue_settings: {job_tier: spot}
limits: {timeout: 900}
resources:
  instance_count: 1
  instance_type: Standard_E4s_v3
  docker_args: --ipc host
  shm_size: 8g
  locations: [westeurope]
  max_instance_count: 2
  properties: {AISuperComputer: {interactive: false}}
services:
  shell: {type: ssh, ssh_public_keys: ssh-ed25519 AAAA, nodes: all}
  board: {type: tensor_board, log_dir: outputs/logs}
  lab: {type: jupyter_lab}
  code: {type: vs_code}
"""


def test_every_key_reaches_azure_ml(amlctl: Amlctl, project: Path, registered: AzureMLService) -> None:
    (project / "jobs").mkdir()
    (project / "jobs/job.yml").write_text(_ALL_KEYS)
    done = amlctl("--json", "submit", "jobs/job.yml")
    assert done.code == 0, done.err
    asked = registered.job(done.document["run"]).asked
    assert asked["resources"] == {
        "dockerArgs": "--ipc host",
        "instanceCount": 1,
        "instanceType": "Standard_E4s_v3",
        "shmSize": "8g",
        "locations": ["westeurope"],
        "maxInstanceCount": 2,
        "properties": {"AISuperComputer": {"interactive": False}},
    }
    assert asked["queueSettings"] == {"jobTier": "Spot"}
    assert (asked["identity"]["identityType"], asked["identity"]["clientId"]) == ("Managed", "an-id")
    assert (asked["properties"]["team"], asked["tags"]["a"]) == ("vision", "b")
    assert asked["environmentVariables"]["AZUREML_COMPUTE_USE_COMMON_RUNTIME"] == "true"
    assert "RATE" not in asked["environmentVariables"]
    assert asked["limits"]["timeout"] == "PT15M"
    assert "computeId" not in asked
    assert {name: one["jobServiceType"] for name, one in asked["services"].items()} == {
        "shell": "SSH",
        "board": "TensorBoard",
        "lab": "JupyterLab",
        "code": "VSCode",
    }
    assert asked["services"]["shell"]["properties"] == {"sshPublicKeys": "ssh-ed25519 AAAA"}
    assert asked["inputs"]["given"] == {"jobInputType": "custom_model", "uri": address_of("folder/")}
    assert (asked["inputs"]["long"]["mode"], asked["inputs"]["web"]["mode"]) == ("Direct", "Direct")
    kept = asked["outputs"]["kept"]
    assert (kept["jobOutputType"], kept["assetName"], kept["assetVersion"]) == ("mlflow_model", "kept-model", "3")
    assert asked["outputs"]["address"]["mode"] == "Direct"
    assert "names no compute: using serverless" in done.err
    (project / "jobs/job.yml").write_text("command: echo 1\ncompute: ''\n")
    assert "names no compute: using serverless" in amlctl("submit", "jobs/job.yml", "--dry-run").err


def test_data_beside_the_job_file_goes_to_azure_ml(amlctl: Amlctl, project: Path, service: AzureMLService) -> None:
    (project / "jobs/my model").mkdir(parents=True)
    (project / "jobs/my model/m@1.bin").write_text("weights")
    (project / "jobs/job.yml").write_text(
        "command: cat '${{inputs.model}}/m@1.bin' '${{inputs.file}}' > outputs/all\n"
        "inputs:\n  model: {type: mlflow_model, path: my model}\n  file: {type: uri_file, path: my model/m@1.bin}\n"
    )
    done = amlctl("--json", "submit", "jobs/job.yml")
    assert done.code == 0, done.err
    assert (project / "outputs" / done.document["run"] / "all").read_text() == "weightsweights"
    assert done.document["datasets"].keys() == {"@project/jobs/my model", "@project/jobs/my model/m@1.bin"}


def test_addresses_of_services_are_shown(amlctl: Amlctl, project: Path, service: AzureMLService) -> None:
    (project / "jobs").mkdir()
    gate = project / "gate"
    (project / "jobs/job.yml").write_text(
        f"command: while test ! -e {gate}; do sleep 0.05; done\nservices: {{lab: {{type: jupyter_lab}}}}\n"
    )
    run = amlctl("--json", "submit", "jobs/job.yml", "--detach").document["run"]
    service.job(run).wait_for("Running")
    address = f"https://lab-{run}.westeurope.instances.azureml.ms/"
    assert amlctl("--json", "runs", "show", run).document["services"] == {"lab": address}
    assert address in amlctl("runs", "show", run).out
    gate.touch()
    assert service.job(run).wait() == "Completed"
    assert amlctl("--json", "runs", "show", run).document["services"] == {}


@pytest.mark.parametrize(
    ("distribution", "asked_for"),
    [
        ("{type: ray, include_dashboard: true}", {"distributionType": "Ray", "includeDashboard": True}),
        (
            "{type: tensorflow, worker_count: 1, parameter_server_count: 1}",
            {"distributionType": "TensorFlow", "workerCount": 1, "parameterServerCount": 1},
        ),
    ],
)
def test_what_azure_ml_alone_distributes(
    amlctl: Amlctl, project: Path, service: AzureMLService, distribution: str, asked_for: dict[str, object]
) -> None:
    (project / "jobs").mkdir()
    (project / "jobs/job.yml").write_text(
        f"command: echo ran\ndistribution: {distribution}\nresources: {{instance_count: 2}}\n"
    )
    done = amlctl("--json", "submit", "--detach", "jobs/job.yml")
    assert done.code == 0, done.err
    asked = service.job(done.document["run"]).asked
    assert asked["distribution"] == asked_for
    assert asked["resources"]["instanceCount"] == 2


def test_an_image_is_built_from_a_folder(amlctl: Amlctl, project: Path, service: AzureMLService) -> None:
    """The context travels with the code; the same context is the same environment, whatever the code."""
    (project / "jobs/docker").mkdir(parents=True)
    (project / "jobs/docker/Dockerfile.cpu").write_text("FROM scratch\n")
    (project / "jobs/job.yml").write_text(
        "command: echo ran\nenvironment:\n  build: {path: docker, dockerfile_path: Dockerfile.cpu}\n"
    )
    done = amlctl("--json", "submit", "jobs/job.yml")
    assert done.code == 0, done.err
    first = service.job(done.document["run"]).asked["environmentId"]
    _, version = asset_of(first, "environments") or ("", "")
    made = service.environments.document("amlctl-env", version)
    assert made is not None
    build = made["properties"]["build"]
    assert build["dockerfilePath"] == "Dockerfile.cpu"
    assert build["contextUri"].endswith(f"/code/{done.document['code']}/context/")
    container, _, folder = build["contextUri"].partition(".net/")[2].partition("/")
    assert service.storage.blob(container, f"{folder}Dockerfile.cpu").download_blob().readall() == b"FROM scratch\n"
    (project / "pipeline/other.py").write_text("print(1)\n")
    again = amlctl("--json", "submit", "jobs/job.yml")
    assert again.document["code"] != done.document["code"]
    assert service.job(again.document["run"]).asked["environmentId"] == first


@pytest.mark.parametrize(
    ("lines", "place", "reported"),
    [
        ("command: echo ran\ncompute: azureml:nowhere\n", 2, "nowhere"),
        (
            "command: ls ${{inputs.data}}\ninputs:\n  data:\n    path: azureml://datastores/x/paths/working/gone\n",
            4,
            "working/gone",
        ),
    ],
)
def test_what_is_nowhere_is_reported_with_its_line(
    amlctl: Amlctl, project: Path, lines: str, place: int, reported: str
) -> None:
    (project / "jobs").mkdir()
    (project / "jobs/job.yml").write_text(lines)
    done = amlctl("submit", "jobs/job.yml")
    assert done.code == 4
    assert done.err.partition("error: ")[2].startswith(f"jobs/job.yml:{place}: ")
    assert reported in done.err


def test_an_option_that_is_nowhere_is_not_on_a_line(amlctl: Amlctl, project: Path) -> None:
    (project / "jobs").mkdir()
    (project / "jobs/job.yml").write_text("command: echo ran\ncompute: azureml:gpu\n")
    done = amlctl("submit", "jobs/job.yml", "--compute", "nowhere")
    assert done.code == 4
    assert "job.yml:" not in done.err


def test_an_environment_of_others_gets_xxhash(tmp_path: Path) -> None:
    """The job's command brings what the runtime needs where the environment lacks it; where it cannot, it says so."""
    record = run_record("r", "job.yml", environment="azureml:theirs:7", command="echo ran")
    parts = JobParts("c", "e", "azureml://store/", "azureml://saves/")
    command, marker, _ = job_document(record, parts, {})["command"].partition("mkdir -p .amlctl-saves")
    assert marker
    programs = tmp_path / "bin"
    programs.mkdir()
    python = programs / "python"
    check = "python -c 'from xxhash import xxh3_128' && echo can hash"

    def ran(answers: str) -> str:
        python.write_text(f"#!/bin/sh\n{answers}\n")
        python.chmod(0o755)
        variables = {"PATH": f"{programs}:{os.defpath}", "TMPDIR": str(tmp_path)}
        done = subprocess.run(
            ["bash", "-c", command + check], env=variables, capture_output=True, text=True, check=False
        )
        return done.stdout

    without = (
        'case "$*" in *version_info*) ;; *"import xxh3"*) test -f "$(echo "$PYTHONPATH" | cut -d: -f2)/xxhash.py";; *'
    )
    assert ran("exit 0") == "can hash\n"
    pip = 'while test "$1" != --target; do shift; done; touch "$2/xxhash.py";; esac'
    assert ran(f"{without}) {pip}") == "can hash\n"
    assert ran(f"{without}) exit 1;; esac") == (
        "amlctl: the environment azureml:theirs:7 has no xxhash, and pip cannot bring it: add xxhash to it\n"
    )
