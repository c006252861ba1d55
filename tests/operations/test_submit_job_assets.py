"""Job files that name what is registered in a workspace."""
# ruff: noqa: F811  (fixtures)

from __future__ import annotations

from pathlib import Path

import pytest

from tests.operations.test_azureml import Amlctl, amlctl, project, service  # noqa: F401  (fixtures)
from tests.support.azureml_assets import registered  # noqa: F401  (fixture)
from tests.support.azureml_service import AzureMLService
from tests.support.azureml_service.place import asset_of

_REGISTERED = """\
command: >-
  cat ${{inputs.table}} ${{inputs.folder}}/a.txt > ${{outputs.report}}/both.txt &&
  echo kept > ${{outputs.own}}/own.txt
environment: azureml:theirs@latest
inputs:
  table:
    type: uri_file
    path: azureml:table:2
    mode: download
  folder:
    path: azureml:folder@latest
outputs:
  report:
    path: azureml://datastores/theirs/paths/reports/${{name}}/
  own:
compute: serverless
"""


def test_what_is_registered_in_the_workspace_is_used(amlctl: Amlctl, project: Path, registered: AzureMLService) -> None:
    (project / "jobs").mkdir()
    (project / "jobs/job.yml").write_text(_REGISTERED)
    done = amlctl("--json", "submit", "jobs/job.yml")
    assert done.code == 0, done.err
    document = done.document
    run = document["run"]
    assert (document["status"], document["environment"]) == ("Completed", "azureml:theirs:7")
    asked = registered.job(run).asked
    workspace = registered.place.id
    assert asked["environmentId"] == f"{workspace}/environments/theirs/versions/7"
    assert asked["inputs"]["table"] == {
        "jobInputType": "uri_file",
        "mode": "Download",
        "uri": f"{workspace}/data/table/versions/2",
    }
    assert asked["inputs"]["folder"] == {
        "jobInputType": "uri_folder",
        "uri": f"{workspace}/data/folder/versions/2",
    }
    assert registered.storage.blob("theirs", f"reports/{run}/both.txt").download_blob().readall() == b"1,2\na\n"
    outputs = project / "outputs" / run
    fetched = [path.relative_to(outputs).as_posix() for path in outputs.rglob("*") if path.is_file()]
    assert (fetched, (outputs / "own/own.txt").read_text()) == (["own/own.txt"], "kept\n")
    assert not [call for call in done.calls if call.method == "PUT" and "/environments/" in call.path]
    again = amlctl("--json", "submit", "--from", run)
    assert again.document["status"] == "Completed", again.err


def test_an_image_and_addresses_go_to_azure_ml(amlctl: Amlctl, project: Path, registered: AzureMLService) -> None:
    address = f"https://{registered.storage.azurite.account}.blob.core.windows.net/theirs/table.csv"
    (project / "jobs").mkdir()
    (project / "jobs/job.yml").write_text(
        "command: cat ${{inputs.table}} > outputs/table.csv\nenvironment: {image: example.org/python:3.11}\n"
        f"inputs:\n  table: {{type: uri_file, path: '{address}'}}\n"
    )
    done = amlctl("--json", "submit", "jobs/job.yml")
    assert (done.code, done.document["environment"]) == (0, "image:example.org/python:3.11"), done.err
    run = done.document["run"]
    assert (project / "outputs" / run / "table.csv").read_text() == "1,2\n"
    asked = registered.job(run).asked
    assert asked["inputs"]["table"] == {"jobInputType": "uri_file", "uri": address}
    _, version = asset_of(asked["environmentId"], "environments") or ("", "")
    made = registered.environments.document("amlctl-env", version)
    assert made is not None
    assert (made["properties"]["image"], "condaFile" in made["properties"]) == ("example.org/python:3.11", False)
    assert amlctl("--json", "submit", "--from", run).document["status"] == "Completed"


def test_an_environment_of_a_registry_is_named_as_it_is(amlctl: Amlctl, project: Path, service: AzureMLService) -> None:
    name = "azureml://registries/azureml/environments/sklearn-1.5/labels/latest"
    (project / "jobs").mkdir()
    (project / "jobs/job.yml").write_text(f"command: echo ran\nenvironment: {name}\n")
    done = amlctl("--json", "submit", "jobs/job.yml")
    assert (done.code, done.document["environment"]) == (0, name), done.err
    assert service.job(done.document["run"]).asked["environmentId"] == name
    assert not [call for call in done.calls if "/environments/" in call.path]


@pytest.mark.parametrize(
    ("old", "new", "line", "reported"),
    [
        ("azureml:theirs@latest", "azureml:theirs:8", 4, "azureml:theirs:8"),
        ("azureml:theirs@latest", "azureml:nowhere@latest", 4, "azureml:nowhere@latest"),
        ("azureml:table:2", "azureml:table:3", 8, "azureml:table:3"),
        ("azureml:folder@latest", "azureml:nowhere:1", 11, "azureml:nowhere:1"),
        ("datastores/theirs", "datastores/nowhere", 14, "datastores/nowhere"),
    ],
)
def test_what_is_not_registered_is_reported_with_its_line(
    amlctl: Amlctl, project: Path, registered: AzureMLService, old: str, new: str, line: int, reported: str
) -> None:
    (project / "jobs").mkdir()
    (project / "jobs/job.yml").write_text(_REGISTERED.replace(old, new))
    done = amlctl("submit", "jobs/job.yml")
    assert done.code == 4
    assert done.err.partition("error: ")[2].startswith(f"jobs/job.yml:{line}: ")
    assert reported in done.err
    assert not [call for call in done.calls if call.method == "PUT"]


def test_data_of_another_type_is_reported(amlctl: Amlctl, project: Path, registered: AzureMLService) -> None:
    (project / "jobs").mkdir()
    (project / "jobs/job.yml").write_text(_REGISTERED.replace("type: uri_file", "type: uri_folder"))
    done = amlctl("submit", "jobs/job.yml")
    assert (done.code, "jobs/job.yml:8: the data azureml:table:2 is a uri_file" in done.err) == (2, True)


_LOCAL = """\
command: >-
  cat ${{inputs.folder}}/a.txt ${{inputs.table}} ${{inputs.path}}/folder/a.txt ${{inputs.blobs}}/a.txt > outputs/all
inputs:
  folder: {path: azureml:folder@latest}
  table: {type: uri_file, path: azureml:table:2}
  path: {path: azureml://datastores/theirs/paths/}
"""


@pytest.mark.parametrize("access", ["container", None])
def test_data_of_the_workspace_is_read_on_this_machine(
    amlctl: Amlctl, project: Path, registered: AzureMLService, access: str | None
) -> None:
    """With the login of the workspace that the settings name; a public container needs none."""
    (project / "jobs").mkdir()
    wasbs = f"wasbs://theirs@{registered.storage.azurite.account}.blob.core.windows.net/folder"
    (project / "jobs/job.yml").write_text(f"{_LOCAL}  blobs: {{path: '{wasbs}'}}\n")
    container = registered.storage.container("theirs")
    container.set_container_access_policy({}, public_access=access)
    done = amlctl("--json", "--workspace", "local", "submit", "jobs/job.yml", "--env-from", "current")
    assert done.code == 0, done.err
    assert (project / "outputs" / done.document["run"] / "all").read_text() == "a\n1,2\na\na\n"
    container.upload_blob("folder/b.txt", b"b")
    container.upload_blob("folder/a.txt", b"changed\n", overwrite=True)
    again = amlctl("--json", "--workspace", "local", "submit", "jobs/job.yml", "--env-from", "current")
    assert (project / "outputs" / again.document["run"] / "all").read_text() == "changed\n1,2\nchanged\nchanged\n"
    assert "2 files" in again.err
    assert "table.csv: 1 file" not in again.err
    container.delete_blob("folder/b.txt")
    amlctl("--workspace", "local", "submit", "jobs/job.yml", "--env-from", "current")
    assert not list(project.glob(".amlctl/inputs/*/*/b.txt"))


@pytest.mark.parametrize(
    ("path", "reported"),
    [
        ("azureml:nowhere:1", "data azureml:nowhere:1 not found in the workspace"),
        ("azureml://datastores/nowhere/paths/x", "datastore nowhere"),
        ("azureml://datastores/theirs/paths/gone", "not found"),
    ],
)
def test_data_that_is_not_in_the_workspace_is_reported_here(
    amlctl: Amlctl, project: Path, registered: AzureMLService, path: str, reported: str
) -> None:
    (project / "jobs").mkdir()
    (project / "jobs/job.yml").write_text(f"command: echo ran\ninputs:\n  x: {{path: '{path}'}}\n")
    done = amlctl("--workspace", "local", "submit", "jobs/job.yml", "--env-from", "current")
    assert done.code == 4
    assert done.err.partition("error: ")[2].startswith("jobs/job.yml:3: ")
    assert reported in done.err
