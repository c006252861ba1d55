from __future__ import annotations

import json
from pathlib import Path

import pytest

from amlctl.azure_access.azure_ai_ml import check_job
from amlctl.config.environment_file import parse_environment
from amlctl.config.job_file import CommandJob, parse_job_file, read_command_job
from amlctl.core.environment import BuildContext
from amlctl.errors import AmlctlError, NotFound, SettingsError

pytestmark = pytest.mark.filterwarnings("ignore::Warning")  # of the SDK's own imports

JOB = """\
$schema: https://azuremlschemas.azureedge.net/latest/commandJob.schema.json
command: >-
  python train.py --data ${{inputs.data}} --lr ${{ inputs.lr }} --model ${{outputs.model}}
code: .
environment:
  image: mcr.microsoft.com/azureml/curated
  conda_file:
    channels: [conda-forge]
    dependencies: [python=3.11, pip, pip: [torch==2.13.0]]
inputs:
  data: {type: uri_folder, path: ../data_blobs/working/x, mode: download}
  lr: 0.01
  is_fast: true
outputs:
  model: {type: uri_folder, mode: rw_mount}
  report: {type: uri_file}
compute: azureml:gpu
distribution: {type: PyTorch, process_count_per_instance: 4}
resources: {instance_count: 2, shm_size: 8g, instance_type: Standard_NC6s_v3}
queue_settings: {job_tier: Spot}
identity: {type: managed, client_id: an-id}
limits: {timeout: 3600}
environment_variables: {LEVEL: 3, RATE: "${{inputs.lr}}"}
display_name: first-try
experiment_name: trials
description: A try.
tags: {team: a}
services:
  jupyter: {type: jupyter_lab}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "job.yml"
    path.write_text(text)
    return path


def read(folder: Path, text: str) -> CommandJob:
    path = write(folder, text)
    file = parse_job_file(path, "jobs/job.yml")
    assert check_job(file, path) == "command"
    return read_command_job(file, folder)


def test_all_of_it_is_read(tmp_path: Path) -> None:
    job = read(tmp_path, JOB)
    said = job.spec.values
    assert said["command"].startswith("python train.py --data ${{inputs.data}} --lr")
    assert said["inputs"] == {
        "data": {"path": "../data_blobs/working/x", "type": "uri_folder", "mode": "download"},
        "lr": {"value": "0.01"},
        "is_fast": {"value": "True"},
    }
    assert said["named_outputs"] == {"model": "uri_folder", "report": "uri_file"}
    assert said["output_places"] == {}
    assert job.code == "."
    assert (said["compute"], said["experiment"], said["name"]) == ("gpu", "trials", "first-try")
    assert (said["distribution"], said["processes"], said["instances"], said["timeout_s"]) == ("pytorch", 4, 2, 3600)
    assert said["variables"] == {"LEVEL": "3", "RATE": "${{inputs.lr}}"}
    assert (said["description"], said["tags"]) == ("A try.", {"team": "a"})
    assert said["node"] == {
        "resources": {"instance_type": "Standard_NC6s_v3", "shm_size": "8g"},
        "queue_settings": {"job_tier": "Spot"},
        "identity": {"type": "managed", "client_id": "an-id"},
        "services": {"jupyter": {"type": "jupyter_lab"}},
    }
    assert job.spec.lines["inputs.data"] == "jobs/job.yml:11"
    spec = parse_environment(said["environment_content"], "job")
    assert (spec.image, spec.python, spec.pip) == ("mcr.microsoft.com/azureml/curated", "3.11", ("torch==2.13.0",))
    same = "channels: [conda-forge]\ndependencies: [python=3.11, pip, pip: [torch==2.13.0]]\n"
    assert parse_environment(same, "conda").id != spec.id


def test_a_conda_file_of_its_own(tmp_path: Path) -> None:
    text = "command: 'true'\nenvironment: {image: i, conda_file: conda.yml}\n"
    with pytest.raises(NotFound, match=r"^jobs/job\.yml:2: .*conda\.yml"):
        read(tmp_path, text)
    (tmp_path / "conda.yml").write_text("dependencies:\n  - python=3.12\n  - 7\n")
    with pytest.raises(SettingsError, match=r"^jobs/conda\.yml:3: "):
        read(tmp_path, text)
    (tmp_path / "conda.yml").write_text("dependencies: [python=3.12]\n")
    document = json.loads(read(tmp_path, text).spec.values["environment_content"])
    assert document == {"image": "i", "conda_file": {"dependencies": ["python=3.12"]}}


def test_an_environment_in_a_file_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "environments"
    folder.mkdir()
    (folder / "conda.yml").write_text("dependencies: [python=3.12]\n")
    (folder / "own.yml").write_text("name: a\nversion: 1\nimage: i\nconda_file: conda.yml\n")
    text = "command: 'true'\nenvironment: file:environments/own.yml\n"
    assert json.loads(read(tmp_path, text).spec.values["environment_content"])["conda_file"] == {
        "dependencies": ["python=3.12"]
    }
    (folder / "own.yml").write_text("build:\n  path: .\n  dockerfile_path: cpu/Dockerfile\n")
    assert read(tmp_path, text).build == BuildContext(str(folder), "cpu/Dockerfile")


def test_an_image_that_is_built(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    job = read(tmp_path, "command: 'true'\nenvironment:\n  build: {path: docker}\n")
    assert job.build == BuildContext(str(tmp_path / "docker"), "Dockerfile")
    address = "https://example.org/context.git#main"
    job = read(tmp_path, f"command: 'true'\nenvironment:\n  build: {{path: '{address}'}}\n")
    assert job.build == BuildContext(address, "Dockerfile")


@pytest.mark.parametrize(
    ("distribution", "instances", "expected", "left"),
    [
        ("{type: mpi}", 1, ("mpi", None, 1), {}),
        ("{type: PyTorch, process_count_per_instance: '2'}", 1, ("pytorch", 2, 1), {}),
        ("{type: tensorflow, worker_count: 4}", 2, ("tensorflow", 2, 2), {}),
        ("{type: tensorflow}", 3, ("tensorflow", 1, 3), {}),
        ("{type: tensorflow, worker_count: 3}", 2, ("tensorflow", None, None), {"worker_count": 3}),
        ("{type: tensorflow, parameter_server_count: 1}", 2, ("tensorflow", None, None), {"parameter_server_count": 1}),
        ("{type: ray, include_dashboard: true}", 2, (None, None, None), {"include_dashboard": True}),
    ],
)
def test_distributions(
    tmp_path: Path, distribution: str, instances: int, expected: tuple[object, ...], left: dict[str, object]
) -> None:
    """What amlctl cannot say in its own words goes to Azure ML as it is, with the number of instances."""
    job = read(tmp_path, f"command: 'true'\ndistribution: {distribution}\nresources:\n  instance_count: {instances}\n")
    said = job.spec.values
    assert (said["distribution"], said["processes"], said["instances"]) == expected
    own = {key: value for key, value in said["node"].get("distribution", {}).items() if key != "type"}
    assert own == left
    assert said["node"].get("resources") == ({"instance_count": instances} if left else None)


def test_inputs_and_outputs_of_all_kinds(tmp_path: Path) -> None:
    job = read(
        tmp_path,
        """\
command: x
inputs:
  table: {type: mltable, path: azureml:table:2, mode: eval_mount}
  model: {type: mlflow_model, path: azureml:m@latest, mode: direct}
  triton: {type: triton_model, path: azureml://jobs/other/outputs/model}
  store: {path: 'azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/d/paths/a b/'}
  web: {type: uri_file, path: 'https://example.org/x.csv'}
  blobs: {path: 'wasbs://c@a.blob.core.windows.net/x'}
  number: {value: 3}
  type: uri_file
outputs:
  none:
  kept: {type: custom_model, mode: upload}
  named: {type: mlflow_model, name: n, version: 3}
  there: {path: azureml://datastores/d/paths/out/, mode: upload}
  address: {mode: direct}
""",
    )
    said = job.spec.values
    assert said["inputs"] == {
        "table": {"path": "azureml:table:2", "type": "mltable", "mode": "eval_mount"},
        "model": {"path": "azureml:m@latest", "type": "mlflow_model", "mode": "direct"},
        "triton": {"path": "azureml://jobs/other/outputs/model", "type": "triton_model", "mode": ""},
        "store": {
            "path": "azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/d/paths/a b/",
            "type": "uri_folder",
            "mode": "",
        },
        "web": {"path": "https://example.org/x.csv", "type": "uri_file", "mode": ""},
        "blobs": {"path": "wasbs://c@a.blob.core.windows.net/x", "type": "uri_folder", "mode": ""},
        "number": {"value": "3"},
        "type": {"value": "uri_file"},
    }
    assert {name: kind for name, kind in said["named_outputs"].items() if kind != "uri_folder"} == {
        "kept": "custom_model",
        "named": "mlflow_model",
    }
    assert said["output_places"] == {
        "named": {"mode": "rw_mount", "name": "n", "version": "3"},
        "there": {"uri": "azureml://datastores/d/paths/out/", "mode": "upload"},
        "address": {"mode": "direct"},
    }


def test_what_only_azure_ml_reads_stays_as_it_is(tmp_path: Path) -> None:
    job = read(
        tmp_path,
        """\
command: python $[[--x ${{inputs.x}}]]
name: mine
inputs: {x: 1}
tags: {plain: a, empty: null}
properties: {a: b}
resources:
  docker_args: [--ipc, host]
  locations: [westeurope]
  properties: {AISuperComputer: {interactive: false}}
services:
  shell: {type: ssh, ssh_public_keys: ssh-ed25519 AAAA, nodes: all}
  board: {type: tensor_board, log_dir: outputs/logs}
""",
    )
    said = job.spec.values
    assert (said["command"], said["name"]) == ("python --x ${{inputs.x}}", "mine")
    assert said["tags"] == {"plain": "a", "empty": ""}
    assert said["node"] == {
        "properties": {"a": "b"},
        "resources": {
            "docker_args": ["--ipc", "host"],
            "locations": ["westeurope"],
            "properties": {"AISuperComputer": {"interactive": False}},
        },
        "services": {
            "shell": {"type": "ssh", "ssh_public_keys": "ssh-ed25519 AAAA", "nodes": "all"},
            "board": {"type": "tensor_board", "log_dir": "outputs/logs"},
        },
    }


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        ("code: .\n", 1, "command is missing", "python"),
        ("comand: y\n", 1, "'comand' is not a key of a job", "did you mean command?"),
        ("command: x\ncomand: y\n", 2, "'comand' is not a key of a job", "did you mean command?"),
        ("command: x\ntype: sweeep\n", 1, "sweeep", ""),
        ("command: 7\n", 1, "command: Not a valid string", ""),
        ("command: python ${{inputs.dat}}\ninputs:\n  data: 1\n", 1, "inputs.dat", "inputs.data?"),
        ("command: python ${{search_space.x}}\n", 1, "search_space", "inputs.NAME"),
        ("command: x\nenvironment_variables:\n  A: ${{outputs.y}}\n", 3, "outputs.y", ""),
        ("command: x\nenvironment_variables: [a]\n", 2, "Not a valid mapping", ""),
        ("command: x\ninputs:\n  a b: 1\n", 3, "a b", "letters"),
        ("command: x\ninputs:\n  a:\n    type: uri_folder\n", 3, "no path", "path:"),
        ("command: x\ninputs:\n  a:\n    path: b\n    mode: rw_mount\n", 5, "'rw_mount' is not valid", "ro_mount"),
        ("command: x\ninputs:\n  a:\n    path: b\n    type: folder\n", 5, "'folder' is not valid", "uri_folder"),
        ("command: x\ninputs:\n  a:\n    pth: b\n    type: uri_file\n", 4, "'pth' is not a key of inputs.a", ""),
        ("command: x\ninputs:\n  a: [1]\n", 3, "a: ", ""),
        ("command: x\ninputs:\n  a:\n", 3, "may not be null", ""),
        ("command: x\noutputs:\n  a:\n    path: ./results\n", 4, "path", "leave it out"),
        ("command: x\noutputs:\n  a:\n    mode: ro_mount\n", 4, "'ro_mount' is not valid", "rw_mount"),
        ("command: x\nenvironment: mine\n", 2, "environment: 'mine' is not valid", "azureml:NAME:VERSION"),
        ("command: x\nenvironment:\n  image: i\n  imag: i\n", 4, "'imag' is not a key of environment", ""),
        ("command: x\nenvironment:\n  conda_file:\n    dependencies:\n      - 7\n", 5, "must be a string", ""),
        ("command: x\ndistribution:\n  type: rey\n", 3, "'rey' is not valid", "pytorch, tensorflow, mpi, ray"),
        ("command: x\ndistribution:\n  process_count_per_instance: 2\n", 2, "type is missing", ""),
        ("command: x\nqueue_settings:\n  job_tier: fast\n", 3, "'fast' is not valid", "spot"),
        ("command: x\nidentity: {client_id: x}\n", 2, "type is missing", ""),
        ("command: x\nidentity:\n  type: someone\n", 3, "'someone' is not valid", "user_identity"),
        ("command: x\nresources:\n  instance_type: [a, b]\n", 3, "Not a valid string", ""),
        ("command: x\nlimits:\n  timeout: soon\n", 3, "Not a valid integer", ""),
        ("command: x\nlimits:\n  trial_timeout: 3\n", 3, "'trial_timeout' is not a key of limits", ""),
        ("command: x\nservices:\n  a:\n    typ: ssh\n", 4, "'typ' is not a key of services.a", ""),
        ("command: x\ntags: {a: 1}\n", 2, "Not a valid string", ""),
        ("- a\n", 1, "not a job", "command"),
    ],
)
def test_what_is_not_valid_is_named(tmp_path: Path, text: str, line: int, message: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text)
    assert caught.value.message.startswith(f"jobs/job.yml:{line}: ")
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("command: x\ncode: ../none\n", 2),
        ("command: x\nenvironment:\n  build:\n    path: none\n", 4),
        ("command: x\nenvironment: file:none.yml\n", 2),
    ],
)
def test_a_file_that_is_missing_is_named(tmp_path: Path, text: str, line: int) -> None:
    with pytest.raises(NotFound, match="none") as caught:
        read(tmp_path, text)
    assert caught.value.message.startswith(f"jobs/job.yml:{line}: ")


def test_the_sdk_says_nothing_on_the_screen(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    read(tmp_path, JOB)
    with pytest.raises(AmlctlError):
        read(tmp_path, "command: 1\n")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("type: pipeline\njobs:\n  a: {type: command, component: 'azureml:c:1'}\n", "pipeline"),
        (
            "type: sweep\nobjective: {goal: minimize, primary_metric: loss}\nsampling_algorithm: random\n"
            "search_space: {lr: {type: choice, values: [1, 2]}}\nlimits: {max_total_trials: 2}\n"
            "trial: {command: 'x ${{search_space.lr}}', environment: 'azureml:e:1'}\n",
            "sweep",
        ),
    ],
)
def test_other_kinds_of_jobs_are_recognized(tmp_path: Path, text: str, kind: str) -> None:
    path = write(tmp_path, text)
    assert check_job(parse_job_file(path, "jobs/job.yml"), path) == kind
