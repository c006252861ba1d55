"""Commands of compute and runs on the loopback Azure ML, as a user types them."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.cli.terminal import Terminal
from tests.operations.test_azureml import Amlctl, amlctl, project, service
from tests.support.azureml_service import AzureMLService

__all__ = ["amlctl", "project", "service"]


def make_cluster(amlctl: Amlctl, project: Path) -> str:
    name = f"c{uuid.uuid4().hex[:8]}"
    (project / "compute/gpu.yaml").write_text(f"name: {name}\ntype: amlcompute\nsize: Standard_DS3_v2\n")
    assert amlctl("compute", "create", name).code == 0
    return name


def test_deleting_a_target_asks(amlctl: Amlctl, project: Path, service: AzureMLService) -> None:
    name = make_cluster(amlctl, project)
    done = amlctl("--json", "compute", "delete", name)
    assert (done.code, done.document["error"]["kind"]) == (5, "needs_confirmation")
    assert done.document["error"]["hint"] == f"if that is intended: amlctl compute delete {name} --yes"
    variables = {key: value for key, value in service.stock_variables.items() if "STORAGE" not in key}
    command = [sys.executable, "-m", "amlctl", "compute", "delete", name]
    for typed, code in (("n", 5), ("y", 0)):
        terminal = Terminal(command, project, variables={**os.environ, **variables})
        terminal.wait_for("y/N")
        terminal.type(f"{typed}\n")
        assert terminal.finish() == code
        assert amlctl("compute", "show", name, "--json").document["state"] == ("ready" if code else "not made")
    make_cluster(amlctl, project)


def test_an_unknown_target_is_reported_at_once(amlctl: Amlctl, project: Path) -> None:
    name = make_cluster(amlctl, project)
    (project / "compute/gpu.yaml").unlink()
    for command in ("show", "start", "stop", "delete"):
        done = amlctl("--json", "compute", command, "nowhere-at-all")
        assert done.code == 4, done.err
        assert name in done.document["error"]["hint"]
    assert amlctl("compute", "show", name[:-1]).err.endswith(f"did you mean {name}?\n")
    done = amlctl("--json", "submit", "train.py", "--compute", "nowhere-at-all")
    assert (done.code, name in done.document["error"]["hint"]) == (4, True)


@pytest.mark.parametrize("name", ["local"])
def test_what_cannot_be_deleted_is_not_asked_about(amlctl: Amlctl, name: str) -> None:
    done = amlctl("--json", "--workspace", "local", "compute", "delete", name)
    assert (done.code, done.document["error"]["kind"]) == (2, "usage")


def test_a_mirrored_dataset_is_registered(amlctl: Amlctl, project: Path, service: AzureMLService) -> None:
    done = amlctl("--json", "sync", "data_blobs/raw", "--register", "screens")
    assert (done.code, done.document["layout"]) == (0, "mirror"), done.err
    snapshot = done.document["snapshot"]
    assert done.document["registered"] == f"azureml:screens:{snapshot}"
    uri = service.data.uri("screens", snapshot) or ""
    assert uri.endswith(f"/datastores/{service.storage.default_datastore}/paths/amlctl/mirror/raw/")
    again = amlctl("sync", "data_blobs/raw", "--register", "screens")
    assert (again.code, f"registered as azureml:screens:{snapshot}" in again.out) == (0, True), again.err
    (project / "data_blobs/raw/b.txt").write_text("more")
    newer = amlctl("--json", "sync", "data_blobs/raw", "--register", "screens").document
    assert newer["registered"] != f"azureml:screens:{snapshot}"


def test_what_a_run_produces_is_registered_by_its_job(amlctl: Amlctl, project: Path, service: AzureMLService) -> None:
    script = (project / "pipeline/train.py").read_text()
    (project / "pipeline/train.py").write_text(
        script + "os.makedirs('data_blobs/made')\nopen('data_blobs/made/x', 'w').write('1')\n"
    )
    command = ("submit", "train.py", "--produces", "made", "--register", "faces")
    done = amlctl("--json", *command)
    assert done.code == 0, done.err
    run = done.document["run"]
    assert done.document["registered"] == [f"azureml:faces:{run}"]
    output = service.job(run).asked["outputs"]["made"]
    assert (output["mode"], output["assetName"], output["assetVersion"]) == ("Upload", "faces", run)
    container, path = service.storage.address(service.data.uri("faces", run) or "")
    assert [one.name for one in service.storage.under(container, path)] == [f"{path}x"]
    assert amlctl("--json", "dataset", "show", "made").document["files"] == 1
    assert not (project / "outputs" / run / "made").exists()
    kept = amlctl("--json", "runs", "delete", run, "--yes")
    assert f"azureml:faces:{run}" in kept.out
    assert [*service.storage.under(container, path)]


@pytest.mark.parametrize(
    ("arguments", "code", "reported"),
    [
        (
            ("--workspace", "local", "submit", "train.py", "--produces", "a", "--register", "x"),
            2,
            "keeps no data assets",
        ),
        (("submit", "train.py", "--register", "x"), 2, "produces no dataset"),
        (("submit", "train.py", "--produces", "a", "--produces", "b", "--register", "x"), 2, "produces 2 datasets"),
        (("--workspace", "local", "sync", "data_blobs/raw", "--register", "x"), 2, "keeps no data assets"),
        (("sync", "data_blobs/raw", "--register", "no name"), 2, "Invalid name"),
        (("sync", "data_blobs/raw", "--pull", "--register", "x"), 2, "without --pull"),
        (("sync", "data_blobs/raw", "--layout", "pack", "--register", "x"), 2, "plain files"),
    ],
)
def test_what_cannot_be_registered(amlctl: Amlctl, arguments: tuple[str, ...], code: int, reported: str) -> None:
    done = amlctl(*arguments)
    assert (done.code, reported in done.err) == (code, True), done.err


def test_a_run_that_was_not_seen_here_is_found_in_any_workspace(
    amlctl: Amlctl, project: Path, service: AzureMLService
) -> None:
    run = amlctl("--json", "submit", "train.py").document["run"]
    for path in (project / ".amlctl/runs").glob("*"):
        (path / "record.json").unlink()
    settings = project / ".amlctl.toml"
    settings.write_text(settings.read_text().replace('default_workspace = "cloud"', 'default_workspace = "local"'))
    shown = amlctl("--json", "runs", "show", run)
    assert (shown.code, shown.document["workspace"]) == (0, "cloud"), shown.err
    assert amlctl("logs", run).out.startswith("text: hello")
    missing = amlctl("--json", "runs", "show", "nowhere")
    assert (missing.code, missing.document["error"]["kind"]) == (4, "not_found")


def test_outputs_are_shared_and_datasets_removed_and_restored(amlctl: Amlctl) -> None:
    run = amlctl("--json", "submit", "train.py").document["run"]
    shared = amlctl("--json", "runs", "share", run, "model.bin", "--expires", "1d")
    assert shared.code == 0, shared.err
    (link,) = shared.document["links"]
    assert shared.document["studio_url"]
    query = parse_qs(urlsplit(link["url"]).query)
    assert (query["sp"], query["spr"], query["sr"]) == (["r"], ["https"], ["b"])  # opened in test_azure_blob.py
    assert amlctl("--json", "runs", "share", run, "--revoke").document["revoked"] == 1
    (used,) = amlctl("--json", "dataset", "show", "raw").document["snapshots"]
    assert used["runs"] == [run]
    refused = amlctl("--json", "dataset", "remove", "raw")
    assert (refused.code, run in str(refused.document["error"]["details"])) == (5, True)
    assert amlctl("dataset", "remove", "raw", "--yes").code == 0
    assert amlctl("--json", "submit", "train.py").document["error"]["kind"] == "conflict"
    assert amlctl("dataset", "restore", "raw").code == 0
    assert amlctl("--json", "sync", "data_blobs/raw").document["unchanged"] == 1
    freed = amlctl("--json", "clean", "--outputs", "--yes").document["freed"]
    assert [item["name"] for item in freed] == [run]
    assert amlctl("--json", "fetch", run).document["downloaded_files"] == 1


@pytest.mark.parametrize(
    ("arguments", "reported", "hint"),
    [
        (("--experiment", "Bilder größer"), "experiment 'Bilder größer' is not a name", "--experiment Bilder-groer"),
        (
            ("--config", "base.json", "--set", f"x={','.join(map(str, range(1001)))}", "--sweep", "--yes"),
            "1,001 runs are too many",
            "split it",
        ),
        (("--compute", "two", "--instances", "3"), "two has at most 2 nodes, and the run requires 3", "--instances 2;"),
    ],
)
def test_what_azure_ml_would_refuse_is_refused_before_anything_is_sent(
    amlctl: Amlctl, project: Path, arguments: tuple[str, ...], reported: str, hint: str
) -> None:
    (project / "pipeline/base.json").write_text('{"x": 0}')
    (project / "compute/two.yaml").write_text("name: two\ntype: amlcompute\nsize: Standard_DS3_v2\nmax_instances: 2\n")
    for more in ((), ("--dry-run",)):
        done = amlctl("--json", "submit", "train.py", *arguments, *more)
        error = done.document["error"]
        assert (done.code, reported in error["message"], hint in error["hint"]) == (2, True, True), done.out
        assert not [call for call in done.calls if call.method != "GET"]


def test_an_attached_kubernetes_cluster_takes_runs_on_several_nodes(amlctl: Amlctl, service: AzureMLService) -> None:
    name = f"k{uuid.uuid4().hex[:8]}"
    service.computes.attach(name)
    done = amlctl("--json", "submit", "train.py", "--compute", name, "--instances", "2", "--dry-run")
    assert done.code == 0, done.out


def test_more_tags_than_documented_are_a_warning(amlctl: Amlctl) -> None:
    tags = [word for number in range(51) for word in ("--tag", f"t{number}={'x' * (1001 if number == 7 else 1)}")]
    done = amlctl("submit", "train.py", *tags)
    assert (done.code, "51 tags, and the documented limit is 50" in done.err) == (0, True), done.err
    assert "tag t7 has 1,001 characters" in done.err
