"""Azure ML as its SDK means it to be used, and as `az ml` uses it: one task a process.

Which workspace it is stands in SUBSCRIPTION_ID, RESOURCE_GROUP and WORKSPACE_NAME.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from azure.ai.ml import MLClient, command
from azure.ai.ml.entities import Environment
from azure.identity import DefaultAzureCredential

_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04"
_CONDA = {"channels": ["conda-forge"], "dependencies": ["python=3.11"]}


def submit(client: MLClient, name: str, script: str, code: str = "pipeline") -> None:
    job = command(
        name=name,
        code=code,
        command=f"python -u {script}",
        environment=Environment(image=_IMAGE, conda_file=_CONDA),
    )
    print(client.jobs.create_or_update(job).studio_url)


def status(client: MLClient, name: str) -> None:
    print(client.jobs.get(name).status)


def stream(client: MLClient, name: str) -> None:
    client.jobs.stream(name)


def download(client: MLClient, name: str, target: str) -> None:
    client.jobs.download(name, download_path=target)


if __name__ == "__main__":
    task, *arguments = sys.argv[1:]
    workspace = [os.environ[name] for name in ("SUBSCRIPTION_ID", "RESOURCE_GROUP", "WORKSPACE_NAME")]
    tasks: dict[str, Callable[..., None]] = {"submit": submit, "status": status, "stream": stream, "download": download}
    tasks[task](MLClient(DefaultAzureCredential(), *workspace), *arguments)
