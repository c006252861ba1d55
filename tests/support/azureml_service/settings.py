"""Settings of a project whose default workspace is the service."""

from __future__ import annotations

from tests.support.azureml_service import AzureMLService


def settings_text(service: AzureMLService, *, experiment: str) -> str:
    """The text of `.amlctl.toml`."""
    return f"""\
default_workspace = "cloud"
experiment = "{experiment}"

[workspaces.cloud]
compute = "azureml"
subscription_id = "{service.subscription_id}"
resource_group = "{service.resource_group}"
workspace_name = "{service.workspace_name}"
endpoint = "{service.endpoint}"
default_compute = "serverless"
"""
