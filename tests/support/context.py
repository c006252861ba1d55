"""What operations work on, put together by a test."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

from amlctl.core.events import EventSink, null_sink
from amlctl.core.settings import Settings
from amlctl.errors import SettingsError
from amlctl.localfs.project import Project
from amlctl.snapshots.known import DatasetContents
from amlctl.stores.contract import Store
from amlctl.workspaces.local.disk import LocalDisk
from amlctl.workspaces.local.environments import Environments


@dataclass
class Context:
    """Satisfies `amlctl.operations.context.Context`; there is one workspace, whatever its name."""

    project: Project
    store: Store
    sink: EventSink = null_sink
    workspace: Any = None
    settings: Settings = field(default_factory=Settings)
    environments: Any = None

    @cached_property
    def dataset_contents(self) -> DatasetContents:
        return DatasetContents(self.store)

    @property
    def disk(self) -> LocalDisk:
        return LocalDisk(self.project, Environments(self.project.state_dir / "environments", {}))

    def in_workspace(self, name: str) -> Self:
        return replace(self, settings=replace(self.settings, default_workspace=name))

    def open_address(self, url: str, is_public: bool) -> tuple[Store, str]:
        raise SettingsError(f"{url} cannot be read here")
