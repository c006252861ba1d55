"""A workspace of the loopback Azure ML with a project, as contract tests use it."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from amlctl.core.events import EventSink, null_sink
from amlctl.core.settings import WorkspaceSettings
from amlctl.stores.azure_blob.store import AzureBlobStore
from amlctl.workspaces.azureml import clients
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.azureml.datastores import credential_for, default_datastore
from amlctl.workspaces.azureml.looks import AzureMLTiming
from amlctl.workspaces.azureml.workspace import AzureMLWorkspace
from tests.contract.workspace import Bench
from tests.support.azureml_service import AzureMLService
from tests.support.runs import make_project

QUICK = AzureMLTiming(
    first_poll_s=0.05,
    longest_poll_s=0.2,
    log_poll_s=0.05,
    fresh_s=0.02,
    settle_s=0.3,
    settled_after_s=60.0,
    queue_patience_s=0.1,
    queue_fresh_s=0.2,
)


@pytest.fixture(autouse=True)
def pointed_at(azureml: AzureMLService, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process logs in at the service, which behaves again after each test, with a datastore of its own."""
    for name, value in azureml.stock_variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(clients, "_POLL_S", 0.05)
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


@contextmanager
def opened_bench(
    azureml: AzureMLService,
    folder: Path,
    *,
    experiment: str = "",
    store_url: str = "",
    timing: AzureMLTiming = QUICK,
    sleep: Callable[[float], None] = time.sleep,
    settle: Callable[[float], None] = time.sleep,
    identity: str | None = None,
    sink: EventSink = null_sink,
) -> Iterator[Bench]:
    """`sleep` is the pause before a request is repeated, `settle` the one for which the logs of an ended run wait."""
    project = make_project(folder / "project")
    variables: Mapping[str, str] = os.environ
    connection = Connection(replace(settings_for(azureml), identity=identity), project, variables, sleep=sleep)

    opened: list[AzureBlobStore] = []

    def open_store(url: str) -> AzureBlobStore:
        opened.append(AzureBlobStore(url, variables, credential=credential_for(connection, url, variables)))
        return opened[-1]

    store = open_store(store_url or default_datastore(connection).url)
    experiment = experiment or f"e{uuid.uuid4().hex[:8]}"
    workspace = AzureMLWorkspace(
        connection,
        lambda: store,
        experiment=experiment,
        open_store=open_store,
        timing=replace(timing, sleep=settle),
        sink=sink,
    )
    fields = {"compute": "serverless", "experiment": experiment}
    yield Bench(project, store, sink, workspace=workspace, fields=fields)
    for one in opened:
        one.close()
    connection.close()


@pytest.fixture
def bench(azureml: AzureMLService, tmp_path: Path) -> Iterator[Bench]:
    with opened_bench(azureml, tmp_path) as opened:
        yield opened
