"""`amlctl --workspace cloud` from the command line on the loopback Azure ML: what it does, and what it asks for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from amlctl.core.run_state import RunState
from amlctl.localfs.project import Project
from amlctl.operations.init import init
from amlctl.workspaces.azureml.connection import Connection
from tests.cli.terminal import Terminal
from tests.support.azureml_bench import settings_for
from tests.support.azureml_service import AzureMLService, Call
from tests.support.azureml_service.settings import settings_text
from tests.support.runs import wait_until
from tests.support.warm_command import WarmCommand

LIMIT_S = 280
_PROGRAM = """
import sys
from amlctl.cli.app import run
code = run(sys.argv[1:])
print("LOADED", *sorted(sys.modules), sep="\\n", file=sys.stderr)
sys.exit(code)
"""
_SCRIPT = """\
# /// script
# [tool.amlctl]
# datasets = ["raw"]
# ///
import os, sys
from file_paths import outputs_dir, raw_dir
print("text:", open(os.path.join(raw_dir(), "a.txt")).read())
open(os.path.join(outputs_dir(), "model.bin"), "wb").write(bytes(1000))
"""


@dataclass(frozen=True)
class Done:
    """What a command printed, its requests to the control plane, and the modules that it loaded, if it ran alone."""

    code: int
    out: str
    err: str
    calls: Sequence[Call]
    loaded: frozenset[str] = frozenset()

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Amlctl = Callable[..., Done]


@pytest.fixture
def service(azureml: AzureMLService) -> Iterator[AzureMLService]:
    before, name = azureml.storage.default_datastore, f"d{uuid.uuid4().hex[:12]}"
    azureml.datastores.add(name, name)
    azureml.storage.default_datastore = name
    with azureml.faults.while_testing():
        yield azureml
    azureml.storage.default_datastore = before


@pytest.fixture
def project(service: AzureMLService, tmp_path: Path) -> Path:
    root = tmp_path / "project"
    init(root)
    (root / ".amlctl.toml").write_text(settings_text(service, experiment=f"e{uuid.uuid4().hex[:8]}"))
    (root / "pipeline/train.py").write_text(_SCRIPT)
    (root / "data_blobs/raw/a.txt").write_text("hello")
    return root


def _variables(service: AzureMLService) -> dict[str, str]:
    """Logged in, without a key to the storage."""
    given = {name: value for name, value in service.stock_variables.items() if "STORAGE" not in name}
    return {**os.environ, **given}


@pytest.fixture
def amlctl(service: AzureMLService, project: Path, warm_sdks: WarmCommand) -> Amlctl:
    """Runs a command in the project."""

    def run(*arguments: str, cwd: Path = project) -> Done:
        before = len(service.calls)
        done = warm_sdks(arguments, cwd, _variables(service), LIMIT_S)
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode(), service.calls[before:])

    return run


@pytest.fixture
def started_amlctl(service: AzureMLService, project: Path) -> Amlctl:
    """Runs a command in a fresh Python, which reports the modules it has loaded."""

    def run(*arguments: str) -> Done:
        before = len(service.calls)
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, *arguments],
            cwd=project,
            env=_variables(service),
            capture_output=True,
            text=True,
            check=False,
        )
        error, _, loaded = done.stderr.partition("LOADED\n")
        return Done(done.returncode, done.stdout, error, service.calls[before:], frozenset(loaded.split()))

    return run


def test_the_whole_way(amlctl: Amlctl, project: Path, service: AzureMLService) -> None:
    done = amlctl("--json", "submit", "train.py")
    assert done.code == 0, done.err
    document = done.document
    run = document["run"]
    assert (document["status"], document["exit_code"], document["workspace"]) == ("Completed", 0, "cloud")
    assert "text: hello" in done.err
    states = [line.rpartition(" ")[2] for line in done.err.splitlines() if line.startswith("run is ")]
    assert set(states) <= {state.value for state in RunState}
    assert (project / "outputs" / run / "model.bin").read_bytes() == bytes(1000)
    assert run in document["studio_url"]
    container, saved = service.storage.default_datastore, f"amlctl/runs/{run}/outputs/"
    assert [one.name for one in service.storage.under(container, saved)] == [f"{saved}model.bin"]
    assert not list(service.storage.under("azureml", f"{service.job(run).artifacts}outputs/"))  # it is stored once
    assert [one["run"] for one in amlctl("--json", "runs").document["runs"]] == [run]
    assert "text: hello" in amlctl("logs", "@last").out
    (project / "outputs" / run / "model.bin").unlink()
    fetched = amlctl("--json", "fetch", "@last", "--logs").document
    assert (fetched["downloaded_bytes"] >= 1000, (project / "outputs" / run / "logs/std_log.txt").is_file()) == (
        True,
        True,
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere another program opens pages")
def test_a_command_line_of_the_first_tool_opens_the_page_in_studio(project: Path, service: AzureMLService) -> None:
    browser, opened = project / "bin/xdg-open", project / "opened"
    browser.parent.mkdir()
    browser.write_text(f"#!/bin/sh\nprintf %s \"$1\" > '{opened}.new'; mv '{opened}.new' '{opened}'\n")
    browser.chmod(0o755)
    variables = {**_variables(service), "PATH": f"{browser.parent}:{os.environ['PATH']}", "DISPLAY": ":0"}
    go = project / "go"
    wait = f"import pathlib, time\nwhile not pathlib.Path({str(go)!r}).exists():\n    time.sleep(0.02)\n"
    (project / "pipeline/wait.py").write_text(wait)
    command = [sys.executable, "-m", "amlctl", "--script-path", "pipeline/wait.py", "--should-open-url", "True"]
    terminal = Terminal(command, project, columns=200, variables=variables)
    try:
        terminal.wait_for("Studio:")
        wait_until(opened.exists)
        go.touch()
        assert terminal.finish() == 0, terminal.text
    finally:
        terminal.close()
    assert opened.read_text().startswith("https://")
    assert opened.read_text() in terminal.text


def test_a_local_run_beside_one_in_the_cloud(amlctl: Amlctl, project: Path) -> None:
    settings = project / ".amlctl.toml"
    settings.write_text(settings.read_text() + '\n[workspaces.local]\ncompute = "local"\n')
    assert amlctl("submit", "train.py").code == 0
    assert amlctl("--workspace", "local", "submit", "train.py", "--env-from", "current").code == 0
    shown = amlctl("--json", "runs", "compare", "@2", "@last")
    assert shown.code == 0, shown.err
    rows = {row["field"]: row["values"] for row in shown.document["differences"]}
    assert sorted(rows["workspace"]) == ["cloud", "local"]
    assert "script" not in rows


def test_a_job_has_the_git_state_of_its_project(
    amlctl: Amlctl, project: Path, service: AzureMLService, tmp_path: Path
) -> None:
    """The SDK would ask in the working folder, with a status that data counts for, and keep a remote's password."""
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "pipeline", ".amlctl.toml"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], cwd=project, check=True)
    subprocess.run([*git, "remote", "add", "origin", "http://me:hunt@r22@example.org/x.git"], cwd=project, check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], cwd=project, capture_output=True, text=True, check=True)
    (project / ".gitignore").write_text("/*\n!/pipeline\n!/data_blobs\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run([*git, "init", "-q"], cwd=elsewhere, check=True)
    done = amlctl("--json", "--project", str(project), "submit", "train.py", "--detach", cwd=elsewhere)
    assert done.code == 0, done.err
    found = service.job(done.document["run"]).asked["properties"]
    assert {key: found[key] for key in found if "git" in key} == {
        "mlflow.source.git.commit": head.stdout.strip(),
        "mlflow.source.git.branch": found["mlflow.source.git.branch"],
        "mlflow.source.git.repoURL": "http://example.org/x.git",
        "azureml.git.dirty": "False",
    }


def test_the_sdk_leaves_nothing_behind(
    amlctl: Amlctl, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file, and nothing on the screen: it logs notes on experimental fields, and warns in many places."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (project / "jobs").mkdir()
    (project / "jobs/job.yml").write_text("command: echo ran\nqueue_settings: {job_tier: spot}\n")
    (project / "compute/gpu.yaml").write_text("type: amlcompute\nname: gpu\nsize: Standard_DS3_v2\nlocation: eastus\n")
    for words in (("submit", "jobs/job.yml", "--detach"), ("compute", "create", "gpu")):
        done = amlctl(*words)
        assert done.code == 0, done.err
        assert "xperimental" not in done.err + done.out
        assert "arning" not in done.err + done.out
    assert list((tmp_path / "tmp").iterdir()) == []


def test_what_is_asked_for(started_amlctl: Amlctl, service: AzureMLService) -> None:
    """Calls of the control plane; `azure.ai.ml` is loaded only where something is made."""
    amlctl = started_amlctl
    assert amlctl("submit", "train.py").code == 0
    service.faults.holds_queue = True
    again = amlctl("--json", "submit", "train.py", "--detach")
    run = again.document["run"]
    put = next(at for at, call in enumerate(again.calls) if call.method == "PUT")
    assert again.calls[put].path.endswith(f"/jobs/{run}")
    assert [call.path.rpartition("/")[2] for call in again.calls[: put + 1]] == ["listSecrets", run]
    assert len(again.calls) == put + 1  # its answer tells how the run is

    status = amlctl("--json", "runs", "show", run)
    assert status.document["status"] in ("Starting", "Preparing", "Queued")
    assert [call.path.rpartition("/")[2] for call in status.calls] == ["details"]
    assert not status.loaded & {"amlctl.stores.azure_blob.store", "amlctl.snapshots.manifests", "yaml"}
    listed = amlctl("--json", "runs")
    assert listed.document["runs"][0]["run"] == run
    assert [call.path.rpartition("/")[2] for call in listed.calls] == ["jobs"]  # one page holds them all
    service.faults.holds_queue = False
    service.job(run).wait()

    logs = amlctl("logs", run)
    assert "text: hello" in logs.out
    assert "azure.ai.ml" in again.loaded
    for done in (status, listed, logs, amlctl("fetch", run), amlctl("sync", "data_blobs/raw"), amlctl("--help")):
        assert not [name for name in done.loaded if name.startswith(("azure.ai", "azure.mgmt"))]


def test_a_plain_job_is_watched_without_a_key_to_the_store(
    amlctl: Amlctl, project: Path, service: AzureMLService, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in service.login_variables.items():
        monkeypatch.setenv(name, value)
    connection = Connection(settings_for(service), Project(project), os.environ)
    connection.facts  # noqa: B018  (asked for now, and remembered)
    run = f"plain{uuid.uuid4().hex[:8]}"
    asked = {"jobType": "Command", "command": "echo hello; sleep 600", "environmentId": "azureml:AzureML-x:1"}
    connection.workspace("PUT", f"/jobs/{run}", "2025-01-01-preview", {"properties": asked})
    connection.close()
    service.job(run).wait_for("Running")
    wait_until(lambda: "hello" in amlctl("logs", run).out, what="its first line")
    for done in (amlctl("runs", "show", run), amlctl("logs", run), amlctl("cancel", run)):
        assert done.code == 0, done.err
        assert not [call for call in done.calls if call.path.endswith("listSecrets")]
    assert service.job(run).wait() == "Canceled"
    secrets = [call.path for call in amlctl("fetch", run).calls if call.path.endswith("/listSecrets")]
    assert len(secrets) == len(set(secrets)) == 2  # of the store and of the artifacts, whose folders are listed
    repeated = amlctl("submit", "--from", run)
    assert (repeated.code, f"run {run} was not submitted by amlctl" in repeated.err) == (4, True)


def test_a_run_with_an_unconfirmed_start_is_what_it_became(amlctl: Amlctl, service: AzureMLService) -> None:
    assert amlctl("submit", "train.py").code == 0
    service.faults.lose_answer("PUT .*/jobs/")
    service.faults.answer(503, "GET .*/jobs/train", times=99)
    done = amlctl("--json", "submit", "train.py")
    assert (done.code, done.document["error"]["kind"]) == (6, "unconfirmed")
    run = done.document["error"]["hint"].split()[3]
    service.faults.reset()
    service.job(run).wait()
    assert amlctl("--json", "runs", "show", run).document["status"] == "Completed"


def test_cancel(amlctl: Amlctl, project: Path, service: AzureMLService) -> None:
    (project / "pipeline/wait.py").write_text("import time\nprint('ready', flush=True)\ntime.sleep(600)\n")
    run = amlctl("--json", "submit", "wait.py", "--detach").document["run"]
    service.job(run).wait_for("Running")
    wait_until(lambda: "ready" in amlctl("logs", run).out, what="the first line")
    assert amlctl("--json", "cancel", run).document["was_ended"] is False
    service.job(run).wait()
    shown = amlctl("--json", "runs", "show", run).document
    assert (shown["status"], "CancelRequested" in shown["times"]) == ("Canceled", True)


def test_a_folder_is_not_a_store_for_nodes(amlctl: Amlctl, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names what has set it."""
    path = project / ".amlctl.toml"
    path.write_text(path.read_text() + 'store = ".amlctl/store"\n')
    done = amlctl("submit", "train.py")
    assert (done.code, "error: .amlctl.toml:" in done.err, "cannot mount" in done.err) == (3, True, True)
    monkeypatch.setenv("AMLCTL_STORE", "/elsewhere")
    done = amlctl("submit", "train.py")
    assert (done.code, "error: AMLCTL_STORE: the store of workspace" in done.err) == (3, True)


def test_local_and_remote_runs_are_one_list(amlctl: Amlctl, project: Path, service: AzureMLService) -> None:
    """And RUN is found in the workspace that has it, whichever is in use."""
    remote = amlctl("--json", "submit", "train.py", "--no-fetch").document["run"]
    (project / "pipeline/here.py").write_text("print('was here')")
    local = amlctl("--workspace", "local", "--json", "submit", "here.py", "--env-from", "current").document["run"]
    heading, *lines = amlctl("runs").out.splitlines()
    assert "WORKSPACE" in heading
    assert [line.split()[2] for line in lines] == ["local", "cloud"]
    for options in ([], ["--workspace", "local"], ["--workspace", "cloud"]):
        assert [run["run"] for run in amlctl(*options, "--json", "runs").document["runs"]] == [local, remote]
    settings = (project / ".amlctl.toml").read_text()
    (project / ".amlctl.toml").write_text(settings.replace('"cloud"', '"local"', 1))
    assert "text: hello" in amlctl("logs", remote).out
    assert "was here" in amlctl("logs", "@last").out
    assert amlctl("--json", "runs", "show", "@2").document["workspace"] == "cloud"
    assert amlctl("--json", "fetch", "@2").document["downloaded_files"] == 1
    assert amlctl("--workspace", "local", "logs", remote).code == 4


def test_runs_of_others_in_an_experiment_that_is_named(amlctl: Amlctl, project: Path, service: AzureMLService) -> None:
    run = amlctl("--json", "submit", "train.py", "--experiment", "theirs", "--no-fetch").document["run"]
    shutil.rmtree(project / ".amlctl/runs")  # as on a machine that has not submitted it
    assert amlctl("--json", "runs").document["runs"] == []
    assert [one["run"] for one in amlctl("--json", "runs", "--experiment", "theirs").document["runs"]] == [run]


def test_a_run_of_a_workspace_that_does_not_answer_is_shown_as_it_was(
    amlctl: Amlctl, project: Path, service: AzureMLService
) -> None:
    (project / "pipeline/long.py").write_text("import time; time.sleep(600)")
    run = amlctl("--json", "submit", "long.py", "--detach").document["run"]
    service.faults.deny("/runs/", "runs/read")
    done = amlctl("--workspace", "local", "--json", "runs")
    [listed] = done.document["runs"]
    assert listed["run"] == run
    assert "workspace cloud:" in done.err
    service.faults.deny("/jobs", "jobs/read")
    in_use = amlctl("--json", "runs")
    assert (in_use.code, [one["run"] for one in in_use.document["runs"]]) == (0, [run])
    assert "workspace cloud:" in in_use.err
    service.faults.reset()
    amlctl("cancel", run)


def test_a_cluster_is_made_with_the_first_run_and_found_with_the_next(
    amlctl: Amlctl, project: Path, service: AzureMLService
) -> None:
    name = f"c{uuid.uuid4().hex[:8]}"
    (project / f"compute/{name}.yaml").write_text(
        f"name: {name}\ntype: amlcompute\nsize: Standard_DS3_v2\nmax_instances: 2\n"
    )
    first = amlctl("--json", "submit", "train.py", "--compute", name)
    assert first.document["status"] == "Completed", first.err
    assert first.document["compute"] == name
    assert len([call for call in first.calls if call.method == "PUT" and call.path.endswith(name)]) == 1
    again = amlctl("--json", "submit", "train.py", "--compute", name, "--detach")
    assert again.code == 0
    made = next(number for number, call in enumerate(again.calls, 1) if call.method == "PUT" and "/jobs/" in call.path)
    assert made <= 3, again.calls
    assert not [call for call in again.calls if call.method == "PUT" and "/computes/" in call.path]
    amlctl("cancel", again.document["run"])


def test_an_unknown_target_is_reported_before_anything_is_uploaded(
    amlctl: Amlctl, project: Path, service: AzureMLService
) -> None:
    done = amlctl("submit", "train.py", "--compute", "nowhere")
    assert done.code == 4
    assert "nowhere" in done.err


def test_a_dry_run_reports_an_unknown_target(amlctl: Amlctl, service: AzureMLService) -> None:
    done = amlctl("submit", "train.py", "--dry-run", "--compute", "nowhere")
    assert (done.code, "nowhere" in done.err) == (4, True)
    assert not [call for call in done.calls if call.method == "PUT"]


@pytest.mark.parametrize(("first", "second"), [("local", "cloud"), ("cloud", "local")])
def test_a_run_is_repeated_in_the_other_workspace(amlctl: Amlctl, project: Path, first: str, second: str) -> None:
    """With the code and the data that it had, whatever became of them here."""
    environment = [] if first == "cloud" else ["--env-from", "current"]
    before = amlctl("--workspace", first, "--json", "submit", "train.py", *environment)
    assert before.code == 0, before.err
    run = before.document["run"]
    (project / "pipeline/train.py").write_text("raise SystemExit(1)")
    (project / "data_blobs/raw/a.txt").write_text("other")
    environment = [] if second == "cloud" else ["--env-from", "current"]
    foreseen = amlctl("--workspace", second, "--json", "submit", "--from", run, "--dry-run", *environment)
    assert foreseen.document["code"]["id"] == before.document["code"], foreseen.err
    again = amlctl("--workspace", second, "--json", "submit", "--from", run, *environment)
    assert again.code == 0, again.err
    assert "text: hello" in again.err
    for field in ("code", "datasets", "experiment"):
        assert again.document[field] == before.document[field]
    assert again.document["workspace"] == second
    assert (project / "outputs" / again.document["run"] / "model.bin").is_file()


def test_doctor_reports_one_cause_once(amlctl: Amlctl, service: AzureMLService) -> None:
    assert amlctl("doctor").code == 0
    service.storage.default_datastore = "workspacefilestore"
    done = amlctl("--json", "doctor")
    assert done.code == 1
    assert [check["name"] for check in done.document["checks"] if not check["ok"]] == ["datastore"]
