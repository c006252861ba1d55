"""What a submit has to report: what it would do, or what has become of its run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from amlctl.core.message import Command
from amlctl.core.run import RunRecord
from amlctl.errors import AmlctlError
from amlctl.operations.fetch import FetchResult
from amlctl.operations.logs import run_failure
from amlctl.operations.submit.run_spec import RunSpec
from amlctl.workspaces.contract import EnvironmentInfo


@dataclass(frozen=True)
class SubmitPlan:
    """What a submit would send and run. `datasets` has the sync's document, or the snapshot that is used.

    `code_files` and `code_bytes` are the user's own.
    """

    spec: RunSpec
    datasets: Mapping[str, Mapping[str, Any]]
    code: str
    code_files: int
    code_bytes: int
    environment: EnvironmentInfo
    workspace: str

    def to_json(self) -> dict[str, Any]:
        return {
            "dry_run": True,
            "script": self.spec.script,
            "config": self.spec.config,
            "config_content": self.spec.config_content,
            "datasets": {name: dict(document) for name, document in self.datasets.items()},
            "produces": list(self.spec.produces),
            "code": {"id": self.code, "files": self.code_files, "bytes": self.code_bytes},
            "environment": {
                "id": self.environment.id,
                "is_ready": self.environment.is_ready,
                "tool": self.environment.tool,
                "location": self.environment.location,
            },
            "workspace": self.workspace,
            "compute": self.spec.compute,
            "mode": self.spec.mode,
            "distribution": self.spec.distribution.kind,
            "processes": self.spec.distribution.processes,
            "instances": self.spec.distribution.instances,
            "experiment": self.spec.experiment,
            "variables": dict(self.spec.variables),
            "command": self.spec.command,
        }


@dataclass(frozen=True)
class SubmitResult:
    """`fetched` is None where nothing was fetched; `fetch_error` says why not, if that was not wanted."""

    record: RunRecord
    seconds: float
    fetched: FetchResult | None = None
    fetch_error: AmlctlError | None = None

    @property
    def failure(self) -> AmlctlError | None:
        """What a command that waited for the run has to report: it did not complete, or its outputs are not here."""
        return run_failure(self.record, hint=Command("logs", self.record.run)) or self.fetch_error

    def to_json(self) -> dict[str, Any]:
        record = self.record
        return {
            "run": record.run,
            "status": record.status,
            "experiment": record.spec.experiment,
            "exit_code": record.exit_code,
            "error": record.error,
            "workspace": record.spec.workspace,
            "compute": record.spec.compute,
            "environment": record.spec.environment,
            "code": record.spec.code,
            "datasets": dict(record.spec.datasets),
            "published": dict(record.published),
            "outputs": record.outputs,
            "fetched": None if self.fetched is None else self.fetched.to_json(),
            "fetch_error": None if self.fetch_error is None else self.fetch_error.message,
            "studio_url": record.studio_url,
            "seconds": self.seconds,
        }
