"""Jobs of the loopback Azure ML are real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.contract.azureml_service.requests import Send, cluster_document, log_of, log_or_nothing, put_blob
from tests.support.azureml_service import AzureMLService
from tests.support.runs import wait_until


class TestRunning:
    def test_inputs_outputs_and_variables(self, azureml: AzureMLService, submit: Callable[..., str], name: str) -> None:
        put_blob(azureml, f"{name}/in/deep/a.txt", "A")
        put_blob(azureml, f"{name}/one.yaml", "Y")
        at = f"azureml://datastores/workspaceblobstore/paths/{name}"
        blobs = f"{azureml.account_url}/{azureml.default_container}/{name}"
        job = submit(
            "cat ${{inputs.folder}}/deep/a.txt ${{inputs.file}} ${{inputs.byurl}}/a.txt\n"
            "echo ${{inputs.lr}} $[[--x ${{inputs.no}}]] $KEY $AZUREML_RUN_ID\n"
            "stat -c %a ${{inputs.folder}}/deep/a.txt\n"
            "echo m > ${{outputs.m}}/m; echo n > ${{outputs.n}}/n",
            inputs={
                "folder": {"jobInputType": "uri_folder", "uri": f"{at}/in/", "mode": "ReadOnlyMount"},
                "file": {"jobInputType": "uri_file", "uri": f"{at}/one.yaml", "mode": "Download"},
                "byurl": {"jobInputType": "uri_folder", "uri": f"{blobs}/in/deep", "mode": "Download"},
                "lr": {"jobInputType": "literal", "value": "0.1"},
            },
            outputs={
                "m": {"jobOutputType": "uri_folder"},
                "n": {"jobOutputType": "uri_folder", "mode": "Upload", "uri": f"{at}/out/"},
            },
            environmentVariables={"KEY": "value of ${{inputs.lr}}"},
        )
        assert azureml.job(job).wait() == "Completed", azureml.job(job).error
        assert log_of(azureml, job) == f"AYA0.1 value of 0.1 {job}\n444\n"
        container = azureml.default_container
        assert [one.name for one in azureml.storage.under(container, f"azureml/{job}/")] == [f"azureml/{job}/m/m"]
        assert [one.name for one in azureml.storage.under(container, f"{name}/out/")] == [f"{name}/out/n"]

    def test_code_is_copied_and_log_and_outputs_show_while_it_runs(
        self, azureml: AzureMLService, send: Send, submit: Callable[..., str], name: str, tmp_path: Path
    ) -> None:
        put_blob(azureml, f"{name}/code/pkg/a.py", "print('from a', flush=True)\n")
        uri = f"{azureml.account_url}/{azureml.default_container}/{name}/code"
        code = send("PUT", f"/codes/{name}/versions/1", {"properties": {"codeUri": uri}}).json()["id"]
        go_on = tmp_path / "go ahead"
        job = submit(
            f"python pkg/a.py; echo s > ${{{{outputs.m}}}}/state; echo o > outputs/o; "
            f"while ! [ -e '{go_on}' ]; do sleep 0.05; done; rm ${{{{outputs.m}}}}/state",
            codeId=code,
            outputs={"m": {"jobOutputType": "uri_folder"}},
        )
        state = azureml.storage.blob(azureml.default_container, f"azureml/{job}/m/state")
        wait_until(
            lambda: state.exists() and azureml.storage.blob("azureml", f"ExperimentRun/dcid.{job}/outputs/o").exists()
        )
        wait_until(lambda: log_of(azureml, job) == "from a\n")
        assert azureml.job(job).status == "Running"
        go_on.touch()
        assert azureml.job(job).wait() == "Completed"
        assert not state.exists()

    def test_a_failure_has_its_reason(self, azureml: AzureMLService, send: Send, submit: Callable[..., str]) -> None:
        job = submit("echo oh no >&2; exit 3")
        assert azureml.job(job).wait() == "Failed"
        error = send("GET", f"/history/v1.0{azureml.place.id}/runs/{job}/details").json()["error"]["error"]
        assert error["code"] == "UserError"
        assert "status code 3" in json.loads(error["message"])["NonCompliant"]
        assert "oh no" in json.loads(error["message"])["NonCompliant"]

    def test_missing_input(self, azureml: AzureMLService, submit: Callable[..., str]) -> None:
        uri = "azureml://datastores/workspaceblobstore/paths/nothing/here.csv"
        job = submit("true", inputs={"f": {"jobInputType": "uri_file", "uri": uri}})
        assert azureml.job(job).wait() == "Failed"
        assert "nothing/here.csv" in str(azureml.job(job).error)

    def test_cancel_lets_a_program_end_itself(
        self, azureml: AzureMLService, send: Send, submit: Callable[..., str]
    ) -> None:
        program = (
            "import signal, sys, time\n"
            "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), print('saved'), sys.exit(0)))\n"
            "print('ready', flush=True)\n"
            "time.sleep(60)\n"
        )
        job = submit(f'python -c "{program}"; echo not reached')
        wait_until(lambda: azureml.job(job).status == "Running" and log_or_nothing(azureml, job) == "ready\n")
        assert send("POST", f"/jobs/{job}/cancel").text() == "null"
        assert azureml.job(job).wait() == "Canceled"
        assert azureml.job(job).statuses[-2:] == ["CancelRequested", "Canceled"]
        assert log_of(azureml, job) == "ready\nsaved\n"

    def test_time_limit(self, azureml: AzureMLService, submit: Callable[..., str]) -> None:
        job = submit("sleep 60", limits={"jobLimitsType": "Command", "timeout": "PT0.2S"})
        assert azureml.job(job).wait() == "Canceled"
        assert "time limit" in str(azureml.job(job).error)

    @pytest.mark.parametrize(
        ("distribution", "shown", "expected"),
        [
            (
                {"distributionType": "PyTorch", "processCountPerInstance": 2},
                "$RANK/$WORLD_SIZE $LOCAL_RANK $NODE_RANK ${MASTER_PORT:+port}",
                ["0/4 0 0 port", "1/4 1 0 port", "2/4 0 1 port", "3/4 1 1 port"],
            ),
            (
                {"distributionType": "Mpi", "processCountPerInstance": 1},
                "$OMPI_COMM_WORLD_RANK/$OMPI_COMM_WORLD_SIZE $OMPI_COMM_WORLD_LOCAL_RANK",
                ["0/2 0", "1/2 0"],
            ),
            (
                {"distributionType": "TensorFlow", "workerCount": 2, "parameterServerCount": 1},
                "$(echo $TF_CONFIG | python -c 'import json,sys; print(json.load(sys.stdin)[\"task\"])')",
                ["{'type': 'worker', 'index': 0}", "{'type': 'worker', 'index': 1}", "{'type': 'ps', 'index': 0}"],
            ),
        ],
        ids=["pytorch", "mpi", "tensorflow"],
    )
    def test_ranks(
        self,
        azureml: AzureMLService,
        submit: Callable[..., str],
        distribution: dict[str, Any],
        shown: str,
        expected: list[str],
    ) -> None:
        job = submit(f'echo "{shown}"', distribution=distribution, resources={"instanceCount": 2})
        assert azureml.job(job).wait() == "Completed", azureml.job(job).error
        names = [f"std_log_process_{rank}.txt" for rank in range(len(expected))]
        if distribution["distributionType"] == "TensorFlow":
            names = ["std_log_node_00_worker.txt", "std_log_node_01_worker.txt", "std_log_node_00_ps.txt"]
        assert [log_of(azureml, job, name) for name in names] == [f"{text}\n" for text in expected]

    def test_one_failed_rank_ends_the_others(self, azureml: AzureMLService, submit: Callable[..., str]) -> None:
        job = submit(
            "[ $RANK = 1 ] && exit 5; sleep 600",
            distribution={"distributionType": "PyTorch", "processCountPerInstance": 2},
        )
        assert azureml.job(job).wait() == "Failed"
        assert "status code 5" in str(azureml.job(job).error)

    def test_jobs_wait_for_nodes(
        self, azureml: AzureMLService, send: Send, environment: str, name: str, tmp_path: Path
    ) -> None:
        send("PUT", f"/computes/{name}", cluster_document())
        go_on = tmp_path / "go-on"
        asked = {
            "jobType": "Command",
            "command": f"while ! [ -e {go_on} ]; do sleep 0.05; done",
            "environmentId": environment,
            "computeId": f"{azureml.place.id}/computes/{name}",
            "resources": {"instanceCount": 2},
        }
        for job in (f"{name}-1", f"{name}-2"):
            send("PUT", f"/jobs/{job}", {"properties": asked})
            azureml.job(job).wait_for("Queued" if job.endswith("2") else "Running")
        counts = send("GET", f"/computes/{name}").json()["properties"]["properties"]["nodeStateCounts"]
        assert counts["runningNodeCount"] == 2
        assert azureml.job(f"{name}-2").status == "Queued"
        assert send("DELETE", f"/computes/{name}").status_code == 409
        too_many = {**asked, "resources": {"instanceCount": 3}}
        assert send("PUT", f"/jobs/{name}-3", {"properties": too_many}).status_code == 400
        go_on.touch()
        assert [azureml.job(f"{name}-{number}").wait() for number in (1, 2)] == ["Completed"] * 2


def test_a_process_ends_with_its_service(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, sys\n"
        "from tests.support.azureml_service.processes import start\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "print(start('sleep 60 & wait', folder, dict(os.environ), folder / 'log').process.pid, flush=True)\n"
        "os._exit(0)\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=root, capture_output=True, text=True, check=True
    )
    wait_until(lambda: not _alive_in(done.stdout.strip()))


def _alive_in(group: str) -> list[str]:
    """Processes of the group that have not ended."""
    shown = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    found = [line.split(None, 2) for line in shown.splitlines()]
    return [" ".join(rest) for pgid, stat, *rest in found if pgid == group and not stat.startswith("Z")]
