"""`doctor` for an Azure ML workspace: what is wrong is named, with what to type."""

from __future__ import annotations

import dataclasses
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from amlctl.core.compute import ClusterTarget
from amlctl.core.settings import WorkspaceSettings
from amlctl.errors import NotFound
from amlctl.localfs.project import Project
from amlctl.workspaces.azureml.checks import checks
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.azureml.datastores import Datastore
from amlctl.workspaces.contract import Check
from tests.support.azureml_bench import settings_for
from tests.support.azureml_service import AzureMLService
from tests.support.runs import make_project, wait_until

CLUSTER = ClusterTarget("gpu", "amlcompute", size="Standard_NC6s_v3", max_instances=4)


@pytest.fixture(autouse=True)
def pointed_at(azureml: AzureMLService, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in azureml.variables.items():
        monkeypatch.setenv(name, value)
    workspaces = azureml.workspaces
    with azureml.faults.while_testing():
        yield
    workspaces.quotas.clear()
    workspaces.low_priority_cores = 100
    workspaces.cores_in_use.clear()
    workspaces.not_actions.clear()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path / "project")


@pytest.fixture
def settings(azureml: AzureMLService) -> WorkspaceSettings:
    return settings_for(azureml)


def found(settings: WorkspaceSettings, project: Project, target: ClusterTarget | None = CLUSTER) -> dict[str, Check]:
    connection = Connection(settings, project, os.environ, sleep=lambda seconds: None)
    try:
        return {check.name: check for check in checks(connection, target)}
    finally:
        connection.close()


def test_a_workspace_in_order(settings: WorkspaceSettings, project: Project, azureml: AzureMLService) -> None:
    reported = found(settings, project)
    assert list(reported) == ["login", "workspace", "cloud clock", "rights", "datastore", "quota"]
    assert [check for check in reported.values() if not check.ok] == []
    assert "tenant 11111111-2222-3333-4444-555555555555" in reported["login"].message
    assert azureml.workspace_name in reported["workspace"].message
    assert azureml.default_container in reported["datastore"].message
    assert "100 of 100 cores" in reported["quota"].message


def test_another_tenant(settings: WorkspaceSettings, project: Project) -> None:
    reported = found(dataclasses.replace(settings, tenant_id="22222222-0000-0000-0000-000000000000"), project)
    assert not reported["login"].ok
    assert reported["login"].hint == "az login --tenant 22222222-0000-0000-0000-000000000000"


def test_no_such_workspace(settings: WorkspaceSettings, project: Project) -> None:
    reported = found(dataclasses.replace(settings, workspace_name="typo"), project)
    assert list(reported) == ["login", "workspace"]
    assert not reported["workspace"].ok
    assert "typo" in reported["workspace"].message
    assert "az ml workspace list" in reported["workspace"].hint


@pytest.mark.parametrize(
    ("field", "hint"),
    [("subscription_id", "az account list"), ("resource_group", "az ml workspace list")],
)
def test_every_request_for_a_missing_container_says_that_it_is_missing(
    settings: WorkspaceSettings, project: Project, field: str, hint: str
) -> None:
    wrong: dict[str, Any] = {field: "typo"}
    connection = Connection(dataclasses.replace(settings, **wrong), project, os.environ)
    with pytest.raises(NotFound, match="does not find the workspace") as caught:
        connection.workspace("GET", "/datastores", "1")
    assert hint in caught.value.hint
    connection.close()


@pytest.mark.parametrize(
    ("identity", "has_own", "ok", "reported"),
    [
        ("user_identity", False, True, "as you, which requires the role Storage Blob Data Contributor"),
        ("", True, True, "as the managed identity of gpu, which requires the role Storage Blob Data Contributor"),
        ("", False, False, "gpu has no managed identity"),
    ],
)
def test_a_datastore_without_a_key(
    settings: WorkspaceSettings,
    project: Project,
    azureml: AzureMLService,
    identity: str,
    has_own: bool,
    ok: bool,
    reported: str,
) -> None:
    azureml.faults.has_identity_datastores = True
    name = f"gpu{uuid.uuid4().hex[:6]}"
    connection = Connection(settings, project, os.environ)
    body = {"location": "eastus", "properties": {"computeType": "AmlCompute", "properties": {"vmSize": "S"}}}
    kind = {"identity": {"type": "SystemAssigned"}} if has_own else {}
    connection.workspace("PUT", f"/computes/{name}", "1", {**body, **kind})
    connection.close()
    target = dataclasses.replace(CLUSTER, name=name)
    check = found(dataclasses.replace(settings, identity=identity or None), project, target)["identity"]
    assert check.ok == ok
    assert reported in check.message.replace(name, "gpu")
    assert ("identity =" in check.hint) == (not ok)


def test_another_default_datastore(settings: WorkspaceSettings, project: Project, azureml: AzureMLService) -> None:
    before = azureml.storage.default_datastore
    found(settings, project)
    azureml.datastores.add("another", "another")
    azureml.storage.default_datastore = "another"
    try:
        reported = found(settings, project)["datastore"].message
    finally:
        azureml.storage.default_datastore = before
    assert reported.startswith("another: ")
    assert f"it was {before} before" in reported


def test_no_right_to_the_datastore(settings: WorkspaceSettings, project: Project, azureml: AzureMLService) -> None:
    found(settings, project)
    azureml.faults.deny("/datastores", "Microsoft.MachineLearningServices/workspaces/datastores/read")
    reported = found(settings, project)["datastore"]
    assert (reported.ok, "No right to read datastore" in reported.message) == (False, True)
    assert "AzureML Data Scientist" in reported.hint


def test_without_a_login(
    settings: WorkspaceSettings, project: Project, azureml: AzureMLService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDENTITY_HEADER", "wrong")
    reported = found(settings, project)
    assert list(reported) == ["login"]
    assert (reported["login"].ok, reported["login"].hint) == (False, "az login")


def test_an_unknown_kind_of_login(
    settings: WorkspaceSettings, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "nonsense")
    reported = found(settings, project)
    assert list(reported) == ["login"]
    assert (reported["login"].ok, "nonsense" in reported["login"].message) == (False, True)
    assert "AZURE_TOKEN_CREDENTIALS" in reported["login"].hint


def test_a_subscription_of_another_tenant(
    settings: WorkspaceSettings, project: Project, azureml: AzureMLService
) -> None:
    tenant = "44444444-0000-0000-0000-000000000000"
    challenge = f'Bearer authorization_uri="https://login.windows.net/{tenant}", error="invalid_token"'
    azureml.faults.answer(
        401, times=2, code="InvalidAuthenticationTokenTenant", headers={"WWW-Authenticate": challenge}
    )
    reported = found(settings, project)["login"]
    assert (reported.ok, reported.hint) == (
        False,
        f'az login --tenant {tenant}, and tenant_id = "{tenant}" in [workspaces.cloud]',
    )


def test_a_workspace_that_was_recreated(settings: WorkspaceSettings, project: Project, azureml: AzureMLService) -> None:
    """Under its old name, with another storage account: what was remembered would lead astray."""
    connection = Connection(settings, project, os.environ)
    facts = connection.facts
    gone = Datastore("workspaceblobstore", "gone", "gone", "https://gone.example.org", False)
    connection.memory.set("facts", {**vars(facts), "workspace_id": "another"})
    connection.memory.set("datastore", vars(gone))
    connection.close()
    reported = found(settings, project)
    assert "created again" in reported["workspace"].message
    assert azureml.default_container in reported["datastore"].message
    assert "created again" not in found(settings, project)["workspace"].message


def test_a_clock_that_is_wrong(settings: WorkspaceSettings, project: Project, azureml: AzureMLService) -> None:
    azureml.faults.clock_ahead_s = 600
    reported = found(settings, project)["cloud clock"]
    assert (reported.ok, reported.message) == (False, "this machine's clock is 10 minutes behind Azure's")


def test_a_role_that_may_not_submit(settings: WorkspaceSettings, project: Project, azureml: AzureMLService) -> None:
    azureml.workspaces.not_actions += ["Microsoft.MachineLearningServices/workspaces/jobs/*"]
    reported = found(settings, project)["rights"]
    assert not reported.ok
    assert "submit runs" in reported.message
    assert "register code" not in reported.message
    assert "AzureML Data Scientist" in reported.hint


def test_a_role_that_may_not_make_clusters(
    settings: WorkspaceSettings, project: Project, azureml: AzureMLService
) -> None:
    # As the built-in role AzureML Data Scientist has it.
    azureml.workspaces.not_actions += ["Microsoft.MachineLearningServices/workspaces/computes/*/write"]
    reported = found(settings, project)["rights"]
    assert (reported.ok, reported.message) == (True, "may submit runs; may not create clusters")


@pytest.mark.parametrize(("cores", "is_ok", "words"), [(0, False, "0 of 0"), (6, True, "1 of the 4 nodes")])
def test_a_quota_that_is_too_small(
    settings: WorkspaceSettings, project: Project, azureml: AzureMLService, cores: int, is_ok: bool, words: str
) -> None:
    azureml.workspaces.quotas["standardNCSv3Family"] = cores
    reported = found(settings, project)["quota"]
    assert reported.ok is is_ok
    assert words in reported.message
    assert is_ok or "ask for more" in reported.hint


@pytest.mark.parametrize(("cores", "is_ok"), [(0, False), (24, True)])
def test_low_priority_has_a_quota_of_its_own(
    settings: WorkspaceSettings, project: Project, azureml: AzureMLService, cores: int, is_ok: bool
) -> None:
    azureml.workspaces.quotas["standardNCSv3Family"] = 0
    azureml.workspaces.low_priority_cores = cores
    reported = found(settings, project, dataclasses.replace(CLUSTER, tier="low_priority"))["quota"]
    assert reported.ok is is_ok
    assert f"{cores} of {cores} cores of TotalLowPriorityCores are free" in reported.message


def test_a_region_that_is_full(settings: WorkspaceSettings, project: Project, azureml: AzureMLService) -> None:
    azureml.workspaces.quotas["TotalDedicatedCores"] = 20
    azureml.workspaces.cores_in_use["TotalDedicatedCores"] = 18
    reported = found(settings, project)["quota"]
    assert (reported.ok, "2 of 20 cores of TotalDedicatedCores" in reported.message) == (False, True)


def test_nodes_that_are_there_need_no_further_quota(
    settings: WorkspaceSettings, project: Project, azureml: AzureMLService
) -> None:
    name = f"c{uuid.uuid4().hex[:8]}"
    scale = {"minNodeCount": 1, "maxNodeCount": 1}
    body = {"computeType": "AmlCompute", "properties": {"vmSize": CLUSTER.size, "scaleSettings": scale}}
    connection = Connection(settings, project, os.environ)
    connection.workspace("PUT", f"/computes/{name}", "2023-08-01-preview", {"properties": body, "location": "eastus"})
    wait_until(
        lambda: "computeLocation" in connection.workspace("GET", f"/computes/{name}", "1").document["properties"]
    )
    connection.close()
    azureml.workspaces.quotas["standardNCSv3Family"] = azureml.workspaces.cores_in_use["standardNCSv3Family"] = 6
    assert found(settings, project, dataclasses.replace(CLUSTER, name=name, max_instances=1))["quota"].ok
    assert not found(settings, project)["quota"].ok


def test_a_role_on_the_workspace_alone_sees_no_quota(
    settings: WorkspaceSettings, project: Project, azureml: AzureMLService
) -> None:
    azureml.faults.deny("/usages", "Microsoft.MachineLearningServices/locations/usages/read")
    reported = found(settings, project)["quota"]
    assert (reported.ok, "may not see" in reported.message) == (True, True)


def test_a_size_that_the_location_has_not(settings: WorkspaceSettings, project: Project) -> None:
    reported = found(settings, project, dataclasses.replace(CLUSTER, size="Standard_Typo"))["quota"]
    assert not reported.ok
    assert "Standard_Typo" in reported.message


def test_a_missing_cluster_is_not_an_error(settings: WorkspaceSettings, project: Project) -> None:
    assert found(settings, project, None)["quota"].ok
