"""How runs and this machine reach the storage of an Azure ML workspace: keys, logins, datastores and other stores."""
# ruff: noqa: F811  (fixtures)

from __future__ import annotations

import os
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from amlctl.errors import LoginError, RightsError
from amlctl.stores.azure_blob.address import parse_address
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.azureml.datastores import credential_for, datastore_of, default_datastore
from tests.support.azureml_bench import bench, opened_bench, pointed_at, settings_for  # noqa: F401  (fixtures)
from tests.support.azureml_service import AzureMLService
from tests.support.runs import make_project


@pytest.mark.parametrize("way", ["key", "sas", "denied", "identity"])
def test_ways_to_the_storage(
    azureml: AzureMLService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
    azureml.faults.has_identity_datastores = way == "identity"
    if way != "identity":
        azureml.faults.secrets = way  # type: ignore[assignment]
    with opened_bench(azureml, tmp_path) as bench:
        if way in ("denied", "identity"):
            # Azurite over plain http takes no login; what is asked of it is one.
            with pytest.raises((LoginError, RightsError)):
                bench.store.put("a", b"1")
            return
        bench.store.put("a", b"1")
        assert bench.store.get("a") == b"1"
        assert len(azureml.calls_like(f"POST .*/datastores/{azureml.storage.default_datastore}/listSecrets")) == 1


def test_a_key_that_the_workspace_has_from_before_is_named(
    azureml: AzureMLService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
    azureml.faults.secrets = "rotated"
    with opened_bench(azureml, tmp_path) as bench, pytest.raises(RightsError, match="the key from datastore") as caught:
        bench.store.put("a", b"1")
    assert "az ml workspace sync-keys --name loopback-workspace" in caught.value.hint


@pytest.mark.parametrize("is_lake", [False, True])
def test_a_store_of_its_own(azureml: AzureMLService, tmp_path: Path, is_lake: bool) -> None:
    """In another datastore of the workspace, which nodes mount by its name; code goes to the default one."""
    name = f"own{uuid.uuid4().hex[:8]}"
    azureml.datastores.add(name, name, is_lake=is_lake)
    url = f"https://{azureml.storage.azurite.account}.blob.core.windows.net/{name}/some/where"
    with opened_bench(azureml, tmp_path, store_url=url) as bench:
        record = bench.run("print('here')", produces=[])
        assert record.status == "Completed", record.error
        assert bench.store.url == url
        assert azureml.job(record.run).asked["inputs"]["store"]["uri"].startswith(f"azureml://datastores/{name}/paths/")
        code = azureml.codes.uri("amlctl", record.spec.code) or ""
        assert ("/amlctl/code/" in code, f"/{name}/" in code) == (True, False)


def test_a_store_that_is_not_a_datastore_is_logged_in_to_as_the_workspace_is(
    azureml: AzureMLService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = "33333333-0000-0000-0000-000000000000"
    settings = replace(settings_for(azureml), tenant_id=tenant, cloud="AzureUSGovernment")
    connection = Connection(settings, make_project(tmp_path / "project"), os.environ)
    url = "https://elsewhere.blob.core.usgovcloudapi.net/data"
    credential = credential_for(connection, url, {})
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    with pytest.raises(LoginError) as caught:
        credential.renew()
    assert f"--tenant {tenant}" in caught.value.hint
    connection.close()


def test_a_store_that_is_not_a_datastore_is_looked_for_once(azureml: AzureMLService, tmp_path: Path) -> None:
    """And is asked for again by the next command: it may have been made one meanwhile."""
    project, address = (
        make_project(tmp_path / "project"),
        parse_address("https://elsewhere.blob.core.windows.net/data")[0],
    )
    for _ in range(2):
        connection = Connection(settings_for(azureml), project, os.environ)
        default_datastore(connection)
        before = len(azureml.calls)
        assert [datastore_of(connection, address) for _ in range(3)] == [None] * 3
        assert [call.path.rpartition("/")[2] for call in azureml.calls[before:]] == ["datastores"]
        connection.close()


def test_a_datastore_without_an_endpoint_has_that_of_the_cloud(azureml: AzureMLService, tmp_path: Path) -> None:
    azureml.datastores.endpoint = None
    settings = replace(settings_for(azureml), cloud="AzureChinaCloud")
    connection = Connection(settings, make_project(tmp_path / "project"), os.environ)
    try:
        assert default_datastore(connection).account_url.endswith(".blob.core.chinacloudapi.cn")
    finally:
        azureml.datastores.endpoint = "core.windows.net"
        connection.close()
