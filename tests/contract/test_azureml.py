"""The Azure ML workspace keeps the promises of every workspace, on a loopback Azure ML that runs jobs for real."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from amlctl.core.settings import WorkspaceSettings
from amlctl.stores.azure_blob.store import open_blob_store
from amlctl.stores.contract import Store
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.azureml.datastore import datastore_credential, default_datastore
from amlctl.workspaces.azureml.timing import AzureMLTiming
from amlctl.workspaces.azureml.workspace import AzureMLWorkspace
from tests.contract.workspace import Bench, WorkspaceSuite
from tests.support.azureml_service import AzureMLService
from tests.support.runs import make_project

QUICK = AzureMLTiming(
    first_poll_s=0.05, longest_poll_s=0.2, log_poll_s=0.05, fresh_s=0.02, settle_s=0.3, settled_after_s=60.0
)


@pytest.fixture(autouse=True)
def pointed_at(azureml: AzureMLService, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process logs in at the service, which behaves again after each test, with a datastore of its own."""
    for name, value in azureml.stock_variables.items():
        monkeypatch.setenv(name, value)
    before = azureml.storage.default_datastore
    name = f"d{uuid.uuid4().hex[:12]}"
    azureml.datastores.add(name, name)
    azureml.storage.default_datastore = name
    with azureml.faults.while_testing():
        yield
    azureml.storage.default_datastore = before


def settings_for(azureml: AzureMLService) -> WorkspaceSettings:
    return WorkspaceSettings(
        "cloud",
        "azureml",
        subscription_id=azureml.subscription_id,
        resource_group=azureml.resource_group,
        workspace_name=azureml.workspace_name,
        endpoint=azureml.endpoint,
    )


@pytest.fixture
def bench(azureml: AzureMLService, tmp_path: Path) -> Iterator[Bench]:
    project = make_project(tmp_path / "project")
    variables: Mapping[str, str] = os.environ
    connection = Connection(settings_for(azureml), project, variables)
    datastore = default_datastore(connection)

    def open_store(url: str) -> Store:
        return open_blob_store(url, variables, credential=datastore_credential(connection, datastore, variables))

    store = open_blob_store(datastore.url, variables, credential=datastore_credential(connection, datastore, variables))
    experiment = f"e{uuid.uuid4().hex[:8]}"
    workspace = AzureMLWorkspace(
        "cloud", connection, project, store, experiment=experiment, open_store=open_store, timing=QUICK
    )
    yield Bench(project, store, workspace, {"compute": "serverless", "experiment": experiment})
    store.close()
    connection.close()


class TestAzureMLWorkspace(WorkspaceSuite):
    @pytest.fixture
    def bench(self, bench: Bench) -> Bench:
        return bench
