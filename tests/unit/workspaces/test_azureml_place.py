"""Who gets the login for Azure ML: only addresses of the resource manager itself."""

from __future__ import annotations

import pytest

from amlctl.core.settings import WorkspaceSettings
from amlctl.errors import SettingsError
from amlctl.workspaces.azureml.address import workspace_address


@pytest.mark.parametrize(
    ("url", "is_ours"),
    [
        ("https://management.azure.com/subscriptions/1", True),
        ("https://management.azure.com:443/subscriptions/1", True),
        ("https://Management.Azure.com/subscriptions/1", True),
        ("https://eastus.management.azure.com/subscriptions/1", True),
        ("http://management.azure.com/subscriptions/1", False),
        ("https://management.azure.com:8443/subscriptions/1", False),
        ("https://management.azure.com.example.org/subscriptions/1", False),
        ("https://elsewheremanagement.azure.com/subscriptions/1", False),
        ("https://management.usgovcloudapi.net/subscriptions/1", False),
        ("/subscriptions/1", False),
    ],
)
def test_addresses_of_the_resource_manager(url: str, is_ours: bool) -> None:
    settings = WorkspaceSettings("cloud", "azureml", subscription_id="s", resource_group="g", workspace_name="w")
    assert workspace_address(settings).cloud.has_manager(url) is is_ours


def test_names_are_encoded_in_addresses_alone() -> None:
    settings = WorkspaceSettings("cloud", "azureml", subscription_id="s", resource_group="ml (ü)", workspace_name="w")
    place = workspace_address(settings)
    assert place.id == "/subscriptions/s/resourceGroups/ml (ü)/providers/Microsoft.MachineLearningServices/workspaces/w"
    assert place.path.startswith("/subscriptions/s/resourceGroups/ml%20%28%C3%BC%29/providers/")
    assert "wsid=/subscriptions/s/resourcegroups/ml%20%28%C3%BC%29/workspaces/w" in place.studio_url("r")


@pytest.mark.parametrize("endpoint", ["http://host", "https://", "https://[x", "https://host:99999", "host"])
def test_an_endpoint_that_is_not_an_address_is_reported(endpoint: str) -> None:
    names = {"subscription_id": "s", "resource_group": "g", "workspace_name": "w"}
    with pytest.raises(SettingsError, match="is not an https address"):
        workspace_address(WorkspaceSettings("cloud", "azureml", **names, endpoint=endpoint))
