from __future__ import annotations

import json
from pathlib import Path

import pytest

from amlctl.config import job_file
from amlctl.config.conda_file import parse_environment
from amlctl.config.job_file import read_job
from amlctl.core.job import CommandJob, JobInput
from amlctl.errors import NotFound, SettingsError

JOB = """\
$schema: https://azuremlschemas.azureedge.net/latest/commandJob.schema.json
command: >-
  python train.py --data ${{inputs.data}} --lr ${{ inputs.lr }} --model ${{outputs.model}}
code: ./src
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
    return read_job(write(folder, text), "jobs/job.yml")


def test_all_of_it_is_read(tmp_path: Path) -> None:
    job = read(tmp_path, JOB)
    assert job.command.startswith("python train.py --data ${{inputs.data}} --lr")
    assert job.inputs == {
        "data": JobInput(path="../data_blobs/working/x", type="uri_folder", mode="download"),
        "lr": JobInput(value="0.01"),
        "is_fast": JobInput(value="True"),
    }
    assert job.outputs == {"model": "uri_folder", "report": "uri_file"}
    assert (job.code, job.compute, job.experiment, job.display_name) == ("./src", "gpu", "trials", "first-try")
    assert (job.distribution, job.processes, job.instances, job.timeout_s) == ("pytorch", 4, 2, 3600)
    assert job.variables == {"LEVEL": "3", "RATE": "${{inputs.lr}}"}
    assert (job.description, job.tags) == ("A try.", {"team": "a"})
    assert sorted(job.node_only) == [
        "jobs/job.yml:19: resources.instance_type",
        "jobs/job.yml:19: resources.shm_size",
        "jobs/job.yml:20: queue_settings",
        "jobs/job.yml:21: identity",
        "jobs/job.yml:28: services",
    ]
    assert job.unsupported == ("jobs/job.yml:28: services",)
    assert job.node == {
        "resources": {"instance_type": "Standard_NC6s_v3", "shm_size": "8g"},
        "queue_settings": {"job_tier": "spot"},
        "identity": {"type": "managed", "client_id": "an-id"},
    }
    assert job.places["inputs.data"] == "jobs/job.yml:11"
    spec = parse_environment(job.environment or "", "job")
    assert (spec.image, spec.python, spec.pip) == ("mcr.microsoft.com/azureml/curated", "3.11", ("torch==2.13.0",))
    same = "channels: [conda-forge]\ndependencies: [python=3.11, pip, pip: [torch==2.13.0]]\n"
    assert parse_environment(same, "conda").id != spec.id


def test_a_conda_file_of_its_own(tmp_path: Path) -> None:
    text = "command: 'true'\nenvironment: {image: i, conda_file: conda.yml}\n"
    with pytest.raises(NotFound, match=r"^jobs/job\.yml:2: there is no jobs/conda\.yml"):
        read(tmp_path, text)
    (tmp_path / "conda.yml").write_text("dependencies:\n  - python=3.12\n  - 7\n")
    with pytest.raises(SettingsError, match=r"^jobs/conda\.yml:3: "):
        read(tmp_path, text)
    (tmp_path / "conda.yml").write_text("dependencies: [python=3.12]\n")
    document = json.loads(read(tmp_path, text).environment or "")
    assert document == {"image": "i", "conda_file": {"dependencies": ["python=3.12"]}}


@pytest.mark.parametrize(
    ("distribution", "instances", "expected"),
    [
        ("{type: mpi}", 1, ("mpi", None)),
        ("{type: tensorflow, worker_count: 4}", 2, ("tensorflow", 2)),
        ("{type: tensorflow}", 3, ("tensorflow", 1)),
    ],
)
def test_distributions(tmp_path: Path, distribution: str, instances: int, expected: tuple[str, int | None]) -> None:
    job = read(tmp_path, f"command: 'true'\ndistribution: {distribution}\nresources:\n  instance_count: {instances}\n")
    assert (job.distribution, job.processes) == expected


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        ("code: src\n", 1, "no command", "python"),
        ("command: x\ncomand: y\n", 2, "comand", "command?"),
        ("$schema: https://x/latest/pipelineJob.schema.json\n", 1, "pipelineJob", ""),
        ("command: x\ntype: sweep\n", 2, "sweep", "command"),
        ("command: x\nname: mine\n", 2, "name", "display_name"),
        ("command: x\nproperties: {a: b}\n", 2, "properties", "tags"),
        ("command: x\ncode: azureml:code:1\n", 2, "azureml:code:1", "./src"),
        ("command: x\ncode: git+https://example.org/a\n", 2, "git", "./src"),
        ("command: python ${{inputs.dat}}\ninputs:\n  data: 1\n", 1, "inputs.dat", "inputs.data?"),
        ("command: python ${{search_space.x}}\n", 1, "search_space", "inputs.NAME"),
        ("command: python $[[--x ${{inputs.x}}]]\ninputs: {x: 1}\n", 1, "$[[", ""),
        ("command: x\nenvironment_variables:\n  A: ${{outputs.y}}\n", 3, "outputs.y", ""),
        ("command: x\ninputs:\n  a b: 1\n", 3, "a b", "letters"),
        ("command: x\ninputs:\n  a:\n    type: uri_folder\n", 3, "no path", "path:"),
        ("command: x\ninputs:\n  a:\n    path: b\n    mode: direct\n", 5, "direct", "ro_mount"),
        ("command: x\ninputs:\n  a:\n    path: b\n    type: folder\n", 5, "folder", "uri_folder"),
        ("command: x\ninputs:\n  a:\n    path: b\n    path_on_compute: c\n", 5, "path_on_compute", "path"),
        ("command: x\ninputs:\n  a: [1]\n", 3, "text, a number", ""),
        ("command: x\noutputs:\n  a:\n    path: ./results\n", 4, "path", "leave it out"),
        ("command: x\noutputs:\n  a:\n    mode: direct\n", 4, "direct", "rw_mount"),
        ("command: x\nenvironment:\n  image: 'a b'\n", 3, "no image", "conda_file"),
        ("command: x\nenvironment:\n  build: {path: .}\n", 3, "build", "conda_file"),
        ("command: x\nenvironment:\n  conda_file:\n    dependencies:\n      - 7\n", 5, "no text", ""),
        ("command: x\ndistribution:\n  type: ray\n", 3, "ray", "pytorch"),
        ("command: x\ndistribution:\n  process_count_per_instance: 2\n", 2, "no type", "pytorch"),
        ("command: x\ndistribution:\n  type: tensorflow\n  parameter_server_count: 1\n", 4, "parameter servers", ""),
        (
            "command: x\nresources: {instance_count: 2}\ndistribution: {type: tensorflow,\n  worker_count: 3}\n",
            4,
            "3 workers",
            "",
        ),
        ("command: x\nresources:\n  instance_count: 0\n", 3, "instance_count", ""),
        ("command: x\nqueue_settings:\n  job_tier: fast\n", 3, "job_tier 'fast'", "spot"),
        ("command: x\nidentity: {client_id: x}\n", 2, "no type", "user_identity"),
        ("command: x\nidentity:\n  type: nobody\n", 3, "type 'nobody'", "user_identity"),
        ("command: x\nresources:\n  instance_type: [a, b]\n", 3, "instance_type", ""),
        ("command: x\nlimits:\n  timeout: soon\n", 3, "timeout", ""),
        ("command: x\nlimits:\n  trial_timeout: 3\n", 3, "trial_timeout", "timeout"),
        ("- a\n", 1, "no job", "command"),
    ],
)
def test_what_is_not_supported_is_named(tmp_path: Path, text: str, line: int, message: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text)
    assert caught.value.message.startswith(f"jobs/job.yml:{line}: ")
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.filterwarnings("ignore::Warning")  # of the SDK's own imports
def test_every_key_of_the_sdk_is_known() -> None:
    from azure.ai.ml._schema.job.command_job import CommandJobSchema
    from azure.ai.ml._schema.job_resource_configuration import JobResourceConfigurationSchema

    fields = CommandJobSchema(context={"base_path": "."}).fields
    writable = {name for name, field in fields.items() if not field.dump_only}
    assert writable == {*job_file._KEYS, *job_file._NODE_ONLY, *job_file._REFUSED} - {"$schema"}
    assert JobResourceConfigurationSchema().fields.keys() == {"instance_count", *job_file._NODE_ONLY_RESOURCES}
