"""`doctor` for an Azure ML workspace: what is wrong is named, with what to type."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from amlctl.core.check import Check
from amlctl.core.compute import ClusterTarget
from amlctl.core.settings import WorkspaceSettings
from amlctl.localfs.project import Project
from amlctl.workspaces.azureml.checks import checks
from amlctl.workspaces.azureml.connection import Connection
from tests.support.azureml_service import AzureMLService
from tests.support.runs import make_project

CLUSTER = ClusterTarget("gpu", "amlcompute", size="Standard_NC6s_v3", max_instances=4)


@pytest.fixture(autouse=True)
def pointed_at(azureml: AzureMLService, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in azureml.variables.items():
        monkeypatch.setenv(name, value)
    workspaces = azureml.workspaces
    with azureml.faults.while_testing():
        yield
    workspaces.quotas.clear()
    workspaces.not_actions.clear()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path / "project")


@pytest.fixture
def settings(azureml: AzureMLService) -> WorkspaceSettings:
    return WorkspaceSettings(
        "cloud",
        "azureml",
        subscription_id=azureml.subscription_id,
        resource_group=azureml.resource_group,
        workspace_name=azureml.workspace_name,
        endpoint=azureml.endpoint,
    )


def found(settings: WorkspaceSettings, project: Project, target: ClusterTarget | None = CLUSTER) -> dict[str, Check]:
    connection = Connection(settings, project, os.environ, sleep=lambda seconds: None)
    try:
        return {check.name: check for check in checks(connection, target)}
    finally:
        connection.close()


def test_a_workspace_in_order(settings: WorkspaceSettings, project: Project, azureml: AzureMLService) -> None:
    told = found(settings, project)
    assert list(told) == ["login", "workspace", "cloud clock", "rights", "datastore", "quota"]
    assert [check for check in told.values() if not check.ok] == []
    assert "tenant 11111111-2222-3333-4444-555555555555" in told["login"].message
    assert azureml.workspace_name in told["workspace"].message
    assert azureml.default_container in told["datastore"].message
    assert "100 of 100 cores" in told["quota"].message


def test_another_tenant(settings: WorkspaceSettings, project: Project) -> None:
    told = found(dataclasses.replace(settings, tenant_id="22222222-0000-0000-0000-000000000000"), project)
    assert not told["login"].ok
    assert told["login"].hint == "az login --tenant 22222222-0000-0000-0000-000000000000"


def test_no_such_workspace(settings: WorkspaceSettings, project: Project) -> None:
    told = found(dataclasses.replace(settings, workspace_name="typo"), project)
    assert list(told) == ["login", "workspace"]
    assert not told["workspace"].ok
    assert "typo" in told["workspace"].message
    assert "az ml workspace list" in told["workspace"].hint


def test_nobody_is_logged_in(
    settings: WorkspaceSettings, project: Project, azureml: AzureMLService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDENTITY_HEADER", "wrong")
    told = found(settings, project)
    assert list(told) == ["login"]
    assert (told["login"].ok, told["login"].hint) == (False, "az login")


def test_a_clock_that_is_wrong(settings: WorkspaceSettings, project: Project, azureml: AzureMLService) -> None:
    azureml.faults.clock_ahead_s = 600
    told = found(settings, project)["cloud clock"]
    assert (told.ok, told.message) == (False, "this machine's clock is 10 minutes behind Azure's")


def test_a_role_that_may_not_submit(settings: WorkspaceSettings, project: Project, azureml: AzureMLService) -> None:
    azureml.workspaces.not_actions += ["Microsoft.MachineLearningServices/workspaces/jobs/*"]
    told = found(settings, project)["rights"]
    assert not told.ok
    assert "submit runs" in told.message
    assert "register code" not in told.message
    assert "AzureML Data Scientist" in told.hint


def test_a_role_that_may_not_make_clusters(
    settings: WorkspaceSettings, project: Project, azureml: AzureMLService
) -> None:
    # As the built-in role AzureML Data Scientist has it.
    azureml.workspaces.not_actions += ["Microsoft.MachineLearningServices/workspaces/computes/*/write"]
    told = found(settings, project)["rights"]
    assert (told.ok, told.message) == (True, "may submit runs; may not make clusters")


@pytest.mark.parametrize(("cores", "is_ok", "words"), [(0, False, "0 of 0"), (6, True, "1 of the 4 nodes")])
def test_a_quota_that_is_too_small(
    settings: WorkspaceSettings, project: Project, azureml: AzureMLService, cores: int, is_ok: bool, words: str
) -> None:
    azureml.workspaces.quotas["standardNCSv3Family"] = cores
    told = found(settings, project)["quota"]
    assert told.ok is is_ok
    assert words in told.message
    assert is_ok or "ask for more" in told.hint


def test_a_size_that_the_location_has_not(settings: WorkspaceSettings, project: Project) -> None:
    told = found(settings, project, dataclasses.replace(CLUSTER, size="Standard_Typo"))["quota"]
    assert not told.ok
    assert "Standard_Typo" in told.message


def test_no_cluster_is_no_fault(settings: WorkspaceSettings, project: Project) -> None:
    assert found(settings, project, None)["quota"].ok
