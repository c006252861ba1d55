"""Requests to the loopback Azure ML as azure-core sends them, and what they say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from azure.core import PipelineClient
from azure.core.exceptions import ResourceNotFoundError
from azure.core.rest import HttpRequest, HttpResponse

from tests.support.azureml_service import AzureMLService

IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04"
Send = Callable[..., HttpResponse]
Client = PipelineClient[HttpRequest, HttpResponse]


def put_blob(service: AzureMLService, path: str, text: str) -> None:
    service.storage.send_text(text, service.default_container, path)


def artifact(service: AzureMLService, job: str, path: str) -> str:
    blob = service.storage.blob("azureml", f"ExperimentRun/dcid.{job}/{path}")
    return blob.download_blob().readall().decode()


def log_of(service: AzureMLService, job: str, log: str = "std_log.txt") -> str:
    return artifact(service, job, f"user_logs/{log}")


def without_login(url: str) -> HttpResponse:
    client: Client = PipelineClient(url, policies=[])
    with client:
        return client.send_request(HttpRequest("GET", url))


def environment_document(conda: str | None = None, image: str = IMAGE) -> dict[str, Any]:
    return {"properties": {"image": image, **({"condaFile": conda} if conda else {})}}


def cluster_document(**inner: Any) -> dict[str, Any]:
    scale = {"minNodeCount": 0, "maxNodeCount": 2, "nodeIdleTimeBeforeScaleDown": "PT2M"}
    properties = {"vmSize": "Standard_DS3_v2", "vmPriority": "Dedicated", "scaleSettings": scale, **inner}
    return {"location": "eastus", "properties": {"computeType": "AmlCompute", "properties": properties}}


def log_or_nothing(service: AzureMLService, job: str) -> str:
    try:
        return log_of(service, job)
    except ResourceNotFoundError:
        return ""
