"""What an operation works on, which the composition root (`wiring.App`) provides, and the document of a result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from amlctl.core.events import EventSink
from amlctl.core.settings import Settings
from amlctl.localfs.project import Project
from amlctl.stores.contract import Store

if TYPE_CHECKING:
    from amlctl.localfs.disk_use import DiskItem
    from amlctl.snapshots.known import DatasetContents
    from amlctl.workspaces.contract import EnvironmentCache, Workspace


class Disk(Protocol):
    """What runs on this machine have left."""

    def items(self) -> Iterator[DiskItem]: ...

    def free(self, item: DiskItem, store: Store) -> str:
        """Why it was not freed; empty where it was."""
        ...


class Context(Protocol):
    """A project with its settings, and the store and the workspace in use.

    Store and workspace are opened at first use, which raises SettingsError, LoginError, RightsError or
    ServiceUnavailable. `sink` receives the events of the operation.
    """

    @property
    def project(self) -> Project: ...

    @property
    def settings(self) -> Settings: ...

    @property
    def store(self) -> Store: ...

    @property
    def dataset_contents(self) -> DatasetContents:
        """What the command knows of the contents of the store's datasets."""
        ...

    @property
    def workspace(self) -> Workspace: ...

    @property
    def sink(self) -> EventSink: ...

    @property
    def environments(self) -> EnvironmentCache: ...

    @property
    def disk(self) -> Disk: ...

    def in_workspace(self, name: str) -> Self:
        """The same project with another workspace in use."""
        ...

    def open_address(self, url: str, is_public: bool) -> tuple[Store, str]:
        """A store with the data that an address in Azure names, and its key there (empty: all of the store).

        `is_public`: read it as anyone may, without a login. Raises SettingsError (no workspace of Azure ML is set up),
        NotFound, RightsError, LoginError, ServiceUnavailable.
        """
        ...


AnyContext = TypeVar("AnyContext", bound=Context)


class Document:
    """A dataclass whose document has all its fields."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload,no-any-return]  # not known to be a dataclass


def iso_time(seconds: float) -> str:
    """Since 1970, in ISO 8601, UTC. A file may have a time that no calendar has: then the last day that is one in every
    time zone."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return "9999-12-30T00:00:00+00:00"
