"""What a submit reports: what it would do, or how its run ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from amlctl.core.run import RunRecord, RunSpec
from amlctl.errors import AmlctlError
from amlctl.operations.data_asset import registered_as
from amlctl.operations.fetch import FetchResult
from amlctl.operations.watch import SweepView
from amlctl.workspaces.contract import EnvironmentInfo


@dataclass(frozen=True)
class SubmitPlan:
    """What a submit would send and run. `sources` says where each value of the spec comes from; `datasets` has the
    sync's document, or the snapshot that is used. `code_files` and `code_bytes` are the user's own. `equal_run` is the
    run that `--needed` would show instead.
    """

    spec: RunSpec
    sources: Mapping[str, str]
    datasets: Mapping[str, Mapping[str, Any]]
    code_files: int
    code_bytes: int
    environment: EnvironmentInfo
    combinations: Sequence[Mapping[str, str]] = ()
    equal_run: str = ""

    @property
    def command(self) -> list[str]:
        """What the runtime will start, relative to the working container."""
        spec = self.spec
        if spec.command is not None:
            return ["bash", "-c", spec.command]
        config = spec.config_arguments(f"config/{Path(spec.config).name}") if spec.config else []
        return ["python", spec.script, *config, *spec.arguments]

    def to_json(self) -> dict[str, Any]:
        names = ("script", "config", "config_content", "workspace", "compute", "mode", "distribution", "processes")
        return {
            "dry_run": True,
            "equal_run": self.equal_run or None,
            **{name: getattr(self.spec, name) for name in (*names, "instances", "experiment")},
            "datasets": {name: dict(document) for name, document in self.datasets.items()},
            "produces": list(self.spec.produces),
            "code": {"id": self.spec.code, "files": self.code_files, "bytes": self.code_bytes},
            "environment": asdict(self.environment),
            "variables": dict(self.spec.variables),
            "command": self.command,
            "sources": dict(self.sources),
            **({"combinations": [dict(one) for one in self.combinations]} if self.combinations else {}),
        }


@dataclass(frozen=True)
class SubmitResult:
    """`run_error` says why the run failed; `fetched` is None if nothing was fetched; `fetch_error`: why that failed.
    `is_reused`: it is an equal run of before. `results` are those of a sweep that was followed."""

    record: RunRecord
    seconds: float = 0.0
    run_error: AmlctlError | None = None
    fetched: FetchResult | None = None
    fetch_error: AmlctlError | None = None
    is_reused: bool = False
    results: SweepView | None = None

    @property
    def failure(self) -> AmlctlError | None:
        """The error of a command that waited for the run: it did not complete, or its outputs are not here."""
        return self.run_error or self.fetch_error

    @property
    def registered(self) -> list[str]:
        """Data assets, as `azureml:NAME:VERSION`."""
        return registered_as(self.record)

    def to_json(self) -> dict[str, Any]:
        record, spec = self.record, self.record.spec
        return {
            **{
                name: getattr(record, name) for name in ("run", "status", "exit_code", "error", "outputs", "studio_url")
            },
            **{name: getattr(spec, name) for name in ("experiment", "workspace", "compute", "environment", "code")},
            "datasets": dict(spec.datasets),
            "published": dict(record.published),
            "registered": self.registered,
            "metrics": dict(record.metrics),
            "fetched": None if self.fetched is None else self.fetched.to_json(),
            "fetch_error": None if self.fetch_error is None else self.fetch_error.message,
            "is_reused": self.is_reused,
            "seconds": self.seconds,
            **({"results": self.results.to_json()} if self.results is not None else {}),
        }
