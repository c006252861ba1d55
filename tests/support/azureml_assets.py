"""What others have registered in the loopback workspace."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from amlctl.workspaces.azureml.connection import Connection
from tests.support.azureml_bench import settings_for
from tests.support.azureml_service import AzureMLService
from tests.support.runs import make_project


@pytest.fixture
def registered(service: AzureMLService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AzureMLService:
    """What others have made in the workspace: an environment, data, and a datastore."""
    service.datastores.add("theirs", "theirs")
    for name, text in (("table.csv", "1,2\n"), ("folder/a.txt", "a\n")):
        service.storage.send_text(text, "theirs", name)
    for name, value in service.login_variables.items():
        monkeypatch.setenv(name, value)
    connection = Connection(settings_for(service), make_project(tmp_path / "theirs"), os.environ)
    for path, properties in (
        ("/environments/theirs/versions/1", {"image": "example.org/old"}),
        ("/environments/theirs/versions/7", {"image": "example.org/new"}),
        ("/data/table/versions/2", {"dataType": "uri_file", "dataUri": address_of("table.csv")}),
        ("/data/folder/versions/1", {"dataType": "uri_folder", "dataUri": address_of("nothing/")}),
        ("/data/folder/versions/2", {"dataType": "uri_folder", "dataUri": address_of("folder/")}),
    ):
        connection.workspace("PUT", path, "2023-04-01-preview", {"properties": properties})
    connection.close()
    return service


def address_of(path: str) -> str:
    return f"azureml://datastores/theirs/paths/{path}"
