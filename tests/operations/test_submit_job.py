"""`submit job.yml`: a command job of Azure ML, run here."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest

from amlctl.core.environment import EnvironmentSpec
from amlctl.core.events import LogText, Note, Warned
from amlctl.errors import NotFound, SettingsError, UsageError
from amlctl.operations.submit.check import check
from amlctl.operations.submit.job_file import find_job_file
from amlctl.operations.submit.submit import plan
from tests.support.bench import Bench, wait_until_tidied

pytestmark = pytest.mark.filterwarnings("ignore::Warning")  # of the SDK's own imports

TRAIN = """
    import json, os, pathlib, sys
    import helper
    data, lr, model, report = sys.argv[1:5]
    pathlib.Path(model, "model.bin").write_text("weights")
    pathlib.Path(report).write_text("done")
    pathlib.Path("outputs/plain.txt").write_text("plain")
    files = sorted(p.relative_to(data).as_posix() for p in pathlib.Path(data).rglob("*") if p.is_file())
    names = ("RATE", "RANK", "API_TOKEN")
    seen = {"files": files, "lr": lr, "cwd": os.listdir("."), **{name: os.environ.get(name) for name in names}}
    pathlib.Path("outputs", f"seen-{os.environ.get('RANK', '0')}.json").write_text(json.dumps(seen))
"""
JOB = """\
$schema: https://azuremlschemas.azureedge.net/latest/commandJob.schema.json
command: |
  python train.py "${{inputs.data}}" ${{inputs.lr}} ${{outputs.model}} ${{outputs.report}}
  echo "it is ${{inputs.lr}}"
code: ../src
inputs:
  data: {type: uri_folder, path: ../data_blobs/working/a b}
  lr: 0.01
outputs:
  model: {type: uri_folder}
  report: {type: uri_file}
environment_variables: {RATE: "${{inputs.lr}}", API_TOKEN: very-secret-value}
display_name: first-try
experiment_name: trials
tags: {team: a}
"""


@pytest.fixture(autouse=True)
def files(bench: Bench) -> None:
    bench.write("src/train.py", TRAIN)
    bench.write("src/helper.py")
    bench.write("src/left.out")
    bench.write("src/.amlignore", "*.out\n")
    bench.write("src/outputs/old.txt", "from a run on this machine")
    bench.write("data_blobs/working/a b/x.txt", "1")
    bench.write("jobs/train.yml", JOB)


def seen(bench: Bench, run: str, rank: int = 0) -> Any:
    return json.loads((bench.project.outputs_dir / run / f"seen-{rank}.json").read_text())


def test_a_job_runs_here(bench: Bench) -> None:
    result = bench.submit("jobs/train.yml")
    record = result.record
    assert result.failure is None, record.error
    outputs = bench.project.outputs_dir / record.run
    found = seen(bench, record.run)
    assert (found["files"], found["lr"], found["RATE"]) == (["x.txt"], "0.01", "0.01")
    assert {"train.py", "helper.py", "outputs"} <= set(found["cwd"])
    assert "left.out" not in found["cwd"]
    assert (outputs / "model/model.bin").read_text() == "weights"
    assert (outputs / "report").read_text() == "done"
    assert (outputs / "plain.txt").read_text() == "plain"
    assert not (outputs / "old.txt").exists()
    assert "it is 0.01" in "".join(event.text for event in bench.reported(LogText))
    assert (record.spec.script, record.spec.experiment, record.spec.tags) == ("jobs/train.yml", "trials", {"team": "a"})
    assert record.run.startswith("first-try-")
    assert list(record.spec.datasets) == ["working/a b"]
    assert record.spec.inputs == {"data": {"dataset": "working/a b", "type": "uri_folder"}, "lr": {"value": "0.01"}}
    assert "${{inputs.data}}" in (record.spec.command or "")


def test_a_secret_of_a_job_is_nowhere_on_disk(bench: Bench) -> None:
    bench.write(
        "jobs/s.yml",
        "command: test $(echo ${{inputs.api_key}}$API_TOKEN | rev) = enim-fo-nek0tenim-fo-y3k && "
        "test --password=pa55word = --password=pa55word\n"
        "inputs: {api_key: k3y-of-mine}\nenvironment_variables: {API_TOKEN: t0ken-of-mine}\n",
    )
    result = bench.submit("jobs/s.yml")
    assert result.failure is None, result.record.error
    wait_until_tidied(bench)
    for path in bench.project.root.rglob("*"):
        if path.is_file() and path.name != "s.yml":
            with suppress(FileNotFoundError):  # the working container goes when the run has ended
                data = path.read_bytes()
                assert not [secret for secret in (b"k3y-of-mine", b"t0ken-of-mine", b"pa55word") if secret in data], (
                    path
                )


def test_what_is_typed_wins(bench: Bench) -> None:
    result = bench.submit("train.yml", cwd=bench.project.root / "jobs", experiment="mine", tags={"team": "b"}, name="n")
    assert (result.record.spec.experiment, result.record.spec.tags) == ("mine", {"team": "b"})
    assert result.record.run.startswith("n-")


def test_a_job_of_two_processes(bench: Bench) -> None:
    bench.write("jobs/two.yml", JOB + "distribution: {type: pytorch, process_count_per_instance: 2}\n")
    record = bench.submit("jobs/two.yml").record
    assert record.status == "Completed", record.error
    assert [seen(bench, record.run, rank)["RANK"] for rank in (0, 1)] == ["0", "1"]


def test_a_job_is_repeated_exactly(bench: Bench) -> None:
    first = bench.submit("jobs/train.yml").record
    bench.write("jobs/train.yml", "command: exit 1\n")
    bench.write("src/train.py", "raise SystemExit(1)")
    secret = {"API_TOKEN": "very-secret-value"}
    again = bench.submit(from_run=first.run, environment="current", variables=secret).record
    assert again.status == "Completed", again.error
    assert (again.spec.command, again.spec.code, again.spec.inputs) == (
        first.spec.command,
        first.spec.code,
        first.spec.inputs,
    )
    assert seen(bench, again.run)["API_TOKEN"] == "very-secret-value"


def test_a_command_that_fails(bench: Bench) -> None:
    bench.write("jobs/bad.yml", "command: echo o > outputs/o; exit 5\n")
    record = bench.submit("jobs/bad.yml").record
    assert (record.status, record.exit_code) == ("Failed", 5)
    assert (bench.project.outputs_dir / record.run / "o").read_text() == "o\n"


def test_without_code_it_runs_in_pipeline(bench: Bench) -> None:
    bench.script("print('from pipeline')")
    bench.write("jobs/own.yml", "command: python train.py && python -c 'import sys; print(sys.prefix)'\n")
    assert bench.submit("jobs/own.yml").record.status == "Completed"
    assert "from pipeline" in "".join(event.text for event in bench.reported(LogText))


def test_the_whole_project_as_code_leaves_its_data_out(bench: Bench) -> None:
    bench.script("print(1)")
    bench.write("job.yml", "command: ls -a > outputs/ls\ncode: .\n")
    record = bench.submit("job.yml").record
    names = (bench.project.outputs_dir / record.run / "ls").read_text().split()
    assert {"src", "jobs", "pipeline", "job.yml"} <= set(names)
    assert not {"data_blobs", ".amlctl"} & set(names)


@pytest.mark.parametrize(
    "path",
    [
        "azureml://datastores/workspaceblobstore/paths/working/a b/",
        "azureml://datastores/d/paths/amlctl/mirror/working/a b",
        "azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/d/paths/data_blobs/working/a b",
    ],
)
def test_an_address_of_the_cloud_that_lies_here(bench: Bench, path: str) -> None:
    bench.write("jobs/a.yml", f"command: ls '${{{{inputs.d}}}}' > outputs/ls\ninputs:\n  d: {{path: '{path}'}}\n")
    record = bench.submit("jobs/a.yml").record
    assert (bench.project.outputs_dir / record.run / "ls").read_text() == "x.txt\n"
    assert any("data_blobs/working/a b" in event.message for event in bench.reported(Note))


def test_a_data_asset_by_its_name(bench: Bench) -> None:
    bench.write("data_blobs/titanic/t.csv", "1")
    for name, file in (("azureml:titanic@latest", "one"), ("azureml:titanic", "two")):
        bench.write(f"jobs/{file}.yml", f"command: ls ${{{{inputs.d}}}}\ninputs:\n  d: {{path: '{name}'}}\n")
        assert bench.submit(f"jobs/{file}.yml").record.spec.datasets.keys() == {"titanic"}


def test_data_anywhere_on_this_machine(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A folder of the project that is not below data_blobs/, a single file, and a folder outside of the project."""
    outside = tmp_path_factory.mktemp("elsewhere") / "data"
    outside.mkdir()
    (outside / "o.txt").write_text("outside")
    bench.write("jobs/data/sub/i.txt", "inside")
    bench.write("table.csv", "1,2")
    bench.write(
        "jobs/d.yml",
        f"""\
        command: cat ${{{{inputs.inside}}}}/sub/i.txt ${{{{inputs.file}}}} ${{{{inputs.outside}}}}/o.txt > outputs/all
        inputs:
          inside: {{path: data}}
          file: {{type: uri_file, path: 'file:../table.csv'}}
          outside: {{path: {outside}}}
        """,
    )
    shown = plan(bench, bench.request("jobs/d.yml"))
    assert {"from": outside.as_uri()} in shown.datasets.values()
    assert not bench.project.inputs_dir.exists()
    for expected in ("inside1,2outside", "inside1,2changed"):
        record = bench.submit("jobs/d.yml").record
        assert record.status == "Completed", record.error
        assert (bench.project.outputs_dir / record.run / "all").read_text() == expected
        (outside / "o.txt").write_text("changed")
    assert {"@project/jobs/data", "@project/table.csv"} < record.spec.datasets.keys()
    assert bench.submit(from_run=record.run, environment="current").record.spec.datasets == record.spec.datasets


def test_a_single_file_is_the_code(bench: Bench) -> None:
    bench.write("jobs/one.yml", "command: ls > outputs/ls; python train.py\ncode: only/train.py\n")
    bench.write("jobs/only/train.py", "print('ran alone')")
    bench.write("jobs/only/other.py")
    record = bench.submit("jobs/one.yml").record
    assert record.status == "Completed", record.error
    assert (bench.project.outputs_dir / record.run / "ls").read_text().split() == ["outputs", "train.py"]


def test_a_job_without_code_in_a_project_without_scripts(bench: Bench) -> None:
    bench.project.pipeline_dir.rmdir()
    bench.write("jobs/plain.yml", "command: ls -A > outputs/ls\n")
    record = bench.submit("jobs/plain.yml").record
    assert record.status == "Completed", record.error
    assert (bench.project.outputs_dir / record.run / "ls").read_text().split() == ["outputs"]


def test_the_experiment_is_that_of_the_working_folder(bench: Bench) -> None:
    bench.write("jobs/e.yml", "command: echo ran\n")
    assert bench.submit("jobs/e.yml", cwd=bench.project.root / "jobs").record.spec.experiment == "jobs"
    folder = bench.write("jobs/_größe 1/x").parent
    assert bench.submit("jobs/e.yml", cwd=folder).record.spec.experiment == "gre1", "what Azure ML takes of it"
    named = bench.with_settings(experiment="own", origins={"experiment": ".amlctl.toml:1"})
    assert named.submit("jobs/e.yml").record.spec.experiment == "own"


@pytest.mark.parametrize(
    ("text", "kind", "line", "message"),
    [
        ("command: x\ncode: ../none\n", NotFound, 2, "../none"),
        ("command: x\ncode: azureml:code:1\n", SettingsError, 2, "azureml:code:1"),
        ("command: x\ncode: git+https://example.org/a\n", SettingsError, 2, "git+https"),
        ("command: x\ninputs:\n  d: {path: ../elsewhere}\n", NotFound, 3, "../elsewhere not found"),
        ("command: x\ninputs:\n  d: {path: 'azureml:nowhere'}\n", NotFound, 3, "azureml:nowhere is not a dataset"),
        ("command: x\ninputs:\n  d: {path: 'azureml:titanic:3'}\n", SettingsError, 3, "cannot be read here"),
        (
            "command: x\ninputs:\n  d: {path: 'azureml://datastores/d/paths/o'}\n",
            SettingsError,
            3,
            "cannot be read here",
        ),
        ("command: x\ninputs:\n  d: {path: 'azureml://jobs/j/outputs/o'}\n", SettingsError, 3, "Azure ML's nodes only"),
        ("command: x\ninputs:\n  d: {path: 'https://[x/data'}\n", SettingsError, 3, "is not a valid URL"),
        ("command: x\ninputs:\n  d: {type: uri_file, path: ../data_blobs/working}\n", UsageError, 3, "not a file"),
        ("type: sweep\ncommand: x\n", SettingsError, 2, "'command' is not a key of a job of type sweep"),
    ],
)
def test_what_cannot_be_run_here_is_named(
    bench: Bench, text: str, kind: type[Exception], line: int, message: str
) -> None:
    bench.write("jobs/b.yml", text)
    with pytest.raises(kind) as caught:
        bench.submit("jobs/b.yml")
    assert str(caught.value).startswith(f"jobs/b.yml:{line}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "reported"),
    [
        ("azureml:sklearn@latest", "the environment azureml:sklearn@latest is not used on this machine"),
        (
            "azureml://registries/azureml/environments/sklearn-1.5/labels/latest",
            "sklearn-1.5/labels/latest is not used",
        ),
        ("{image: library/python:3.12}", "the image library/python:3.12 is not used"),
        ("{build: {path: docker}}", "the image that Dockerfile builds is not used"),
    ],
)
def test_an_environment_that_others_have_made(bench: Bench, environment: str, reported: str) -> None:
    """The project's own stands in, or a conda file beside the Dockerfile, and what is missing is said."""
    bench.write("jobs/docker/Dockerfile", "FROM scratch")
    bench.write("jobs/e.yml", f"command: echo ran\nenvironment: {environment}\n")
    bench.write("pptdaml.yaml", "dependencies: [python=3.11]")

    def planned() -> EnvironmentSpec:
        request = bench.request("jobs/e.yml", environment=None)
        bench.events.clear()
        return check(bench, request, find_job_file(request, bench.project)).environment

    assert planned().source == "pptdaml.yaml"
    assert [event for event in bench.reported(Warned) if reported in event.message and "pptdaml.yaml" in event.message]
    bench.write("jobs/docker/conda.yml", "dependencies: [python=3.11]")
    assert planned().source == ("conda.yml" if "build" in environment else "pptdaml.yaml")
    assert bench.submit("jobs/e.yml").record.status == "Completed"


def test_what_only_nodes_have_is_reported(bench: Bench) -> None:
    text = """\
        command: echo ran > ${{outputs.o}}/x
        resources:
          shm_size: 8g
        services:
          a: {type: ssh}
        compute: azureml:gpu
        outputs:
          o: {path: azureml://datastores/d/paths/o/}
        distribution: {type: ray}
    """
    bench.write("jobs/n.yml", text)
    record = bench.submit("jobs/n.yml").record
    assert (record.status, record.spec.compute) == ("Completed", "local")
    assert (bench.project.outputs_dir / record.run / "o/x").read_text() == "ran\n"
    warned = [event.message for event in bench.reported(Warned)]
    for reported in (
        "jobs/n.yml:3: resources.shm_size has no effect on this machine",
        "jobs/n.yml:4: services has no effect on this machine",
        "jobs/n.yml:9: distribution has no effect on this machine",
        "jobs/n.yml:8: output o stays in the run's outputs/, not azureml://datastores/d/paths/o/",
    ):
        assert [message for message in warned if message.startswith(reported)], warned
    assert any("compute gpu" in event.message for event in bench.reported(Note))


def test_a_sweep_is_for_azure_ml(bench: Bench) -> None:
    bench.write(
        "jobs/sweep.yml",
        """\
        type: sweep
        objective: {goal: minimize, primary_metric: loss}
        sampling_algorithm: random
        search_space: {lr: {type: choice, values: [1, 2]}}
        limits: {max_total_trials: 2}
        trial: {command: 'x ${{search_space.lr}}', environment: 'azureml:e:1'}
        """,
    )
    with pytest.raises(SettingsError, match=r"^jobs/sweep\.yml:1: a job of type sweep runs on Azure ML only"):
        bench.submit("jobs/sweep.yml")


@pytest.mark.parametrize("more", [{"config": "a.json"}, {"overrides": ("a=1",)}, {"arguments": ("--x",)}])
def test_what_goes_to_scripts(bench: Bench, more: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="job file"):
        bench.submit("jobs/train.yml", **more)


def test_a_missing_file(bench: Bench) -> None:
    with pytest.raises(NotFound, match=r"none\.yml"):
        bench.submit("none.yml")


def test_what_would_be_run(bench: Bench) -> None:
    bench.write(
        "jobs/p.yml", "command: ls\ncode: ../src\nenvironment: {image: i, conda_file: {dependencies: [python=3.11]}}\n"
    )
    shown = plan(bench, bench.request("jobs/p.yml", environment=None)).to_json()
    assert shown["command"] == ["bash", "-c", "ls"]
    assert shown["script"] == "jobs/p.yml"
    assert any("the image i is not used" in event.message for event in bench.reported(Warned))
