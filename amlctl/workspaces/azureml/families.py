"""Sweeps, pipelines and the like: the SDK hands their files to the service, which makes runs of their own for them."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from amlctl.azure_access.azure_ai_ml import first_line
from amlctl.core.run import RunRecord
from amlctl.errors import UsageError
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.azureml.job import run_properties
from amlctl.workspaces.azureml.submission import AcceptedJob, submit_job
from amlctl.workspaces.contract import RunFile, RunFiles


def hand_over(connection: Connection, record: RunRecord, path: Path) -> AcceptedJob:
    """Raises as `submit_job` does."""
    with connection.sdk.client():
        from azure.ai.ml import load_job
        from azure.ai.ml.exceptions import MlException
        from marshmallow.exceptions import ValidationError

        try:
            job = load_job(path)
        except (MlException, ValidationError) as error:
            raise UsageError(f"azure-ai-ml does not accept {record.script}: {first_line(error)}") from error
    job.name = record.run
    job.display_name = job.display_name or record.run
    job.experiment_name = record.experiment
    job.tags = {**(job.tags or {}), **record.tags}
    job.properties = {**(job.properties or {}), **run_properties(record)}
    with contextlib.redirect_stderr(io.StringIO()):  # the SDK tells of each upload
        return submit_job(connection, job, record.git)


def children_of(connection: Connection, run: str) -> list[dict[str, str]]:
    """The runs that the service has made for a run, oldest first. Raises ServiceUnavailable."""
    path = f"/runs/{run}/children"
    page: Mapping[str, Any] = connection.history("GET", path, accept=(404,)).document or {}
    documents: list[Mapping[str, Any]] = page.get("value") or []
    while token := str(page.get("continuationToken") or ""):
        page = connection.history("GET", path, query={"$continuationtoken": token}).document or {}
        documents += page.get("value") or []
    documents.sort(key=lambda one: str(one.get("createdUtc") or ""))
    return [
        {
            "run": str(one.get("runId") or ""),
            "name": str(one.get("displayName") or one.get("runId") or ""),
            "status": str(one.get("status") or ""),
        }
        for one in documents
    ]


def in_words(children: Sequence[Mapping[str, str]]) -> str:
    """How many of them are in which state."""
    return ", ".join(f"{number} {status}" for status, number in Counter(one["status"] for one in children).items())


class FamilyFiles:
    """Satisfies `RunFiles`: a run's own files, and those of its children in a folder each."""

    def __init__(self, own: RunFiles, children: Mapping[str, RunFiles]) -> None:
        self._members = {"": own, **children}

    def files(self) -> Sequence[RunFile]:
        return [
            RunFile(str(PurePosixPath(folder, file.path)), file.size_bytes, file.modified_at)
            for folder, member in self._members.items()
            for file in member.files()
        ]

    def download(self, file: RunFile, target: Path) -> None:
        folder = next((one for one in self._members if one and file.path.startswith(f"{one}/")), "")
        path = file.path[len(folder) + 1 :] if folder else file.path
        self._members[folder].download(RunFile(path, file.size_bytes, file.modified_at), target)


def folder_names(children: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """By folder, the run whose files it gets: a step's name, where it is a file name and not there twice."""
    counted = Counter(one["name"] for one in children)
    names = {}
    for one in children:
        is_plain = counted[one["name"]] == 1 and "/" not in one["name"] and one["name"].strip(". ")
        names[one["name"] if is_plain else one["run"]] = one["run"]
    return names
