"""The process is pointed at the loopback Azure ML."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from azure.core import PipelineClient
from azure.core.pipeline.policies import BearerTokenCredentialPolicy
from azure.core.rest import HttpRequest, HttpResponse
from azure.identity import DefaultAzureCredential

from tests.contract.azureml_service.requests import Client, Send, environment_document
from tests.support.azureml_service import AzureMLService, Faults


@pytest.fixture(autouse=True)
def faults(azureml: AzureMLService, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """The process is pointed at the service, which behaves again after each test."""
    for name, value in azureml.stock_variables.items():
        monkeypatch.setenv(name, value)
    before = os.environ.pop("AZUREML_CURRENT_CLOUD", None)
    with azureml.faults.while_testing() as switches:
        yield switches
    os.environ.pop("AZUREML_CURRENT_CLOUD", None)  # the SDK's constructor writes it
    if before is not None:
        os.environ["AZUREML_CURRENT_CLOUD"] = before


@pytest.fixture
def name() -> str:
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def send(azureml: AzureMLService) -> Iterator[Send]:
    """One request to the workspace, or to a path from the root; azure-core repeats what it repeats."""
    with DefaultAzureCredential() as credential:
        policies = [BearerTokenCredentialPolicy(credential, "https://management.azure.com/.default")]
        client: Client = PipelineClient(azureml.endpoint, per_retry_policies=policies, retry_total=0)
        with client:

            def send_one(method: str, path: str, body: Any = None, *, version: str = "2024-10-01") -> HttpResponse:
                whole = (
                    path if path.lower().startswith(("/subscriptions", "/history", "http")) else azureml.place.id + path
                )
                query = "" if "api-version=" in whole else f"{'&' if '?' in whole else '?'}api-version={version}"
                address = client.format_url(whole + query)
                return client.send_request(HttpRequest(method, address, json=body))

            yield send_one


@pytest.fixture
def ml(azureml: AzureMLService) -> Any:
    """The SDK's client, unmodified."""
    from azure.ai.ml import MLClient

    logging.getLogger("azure").setLevel(logging.ERROR)
    return MLClient(
        DefaultAzureCredential(),
        azureml.subscription_id,
        azureml.resource_group,
        azureml.workspace_name,
        polling_interval=0.05,
    )


@pytest.fixture
def environment(send: Send) -> str:
    """The id of one that is there already."""
    answer = send("PUT", "/environments/plain/versions/1", environment_document("name: x\n"))
    return str(answer.json()["id"])


@pytest.fixture
def submit(azureml: AzureMLService, send: Send, environment: str, name: str) -> Callable[..., str]:
    """Submit a serverless job of this command. Returns its name."""

    def submit_one(command: str, **more: Any) -> str:
        asked = {"jobType": "Command", "command": command, "environmentId": environment, **more}
        answer = send("PUT", f"/jobs/{name}", {"properties": asked})
        assert answer.status_code == 201, answer.text()
        return name

    return submit_one
