"""What an operation works on, which the composition root (`wiring.App`) provides, and which workspace has a run."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from amlctl.core.events import EventSink, Warned
from amlctl.core.settings import Settings
from amlctl.errors import AmlctlError, IntegrityError, NotFound
from amlctl.localfs.project import Project
from amlctl.stores.contract import Store

if TYPE_CHECKING:
    from amlctl.core.run import RunRecord
    from amlctl.workspaces.contract import EnvironmentCache, Workspace


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
    def workspace(self) -> Workspace: ...

    @property
    def sink(self) -> EventSink: ...

    @property
    def environments(self) -> EnvironmentCache: ...

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


def holding(context: AnyContext, reference: str) -> tuple[AnyContext, str]:
    """With the workspace in use that has RUN, as far as this machine has seen it, and what to look up there: the whole
    id, or RUN as it was typed. Raises UsageError."""
    from amlctl.core.run_id import find_run  # here, since most commands need no runs

    settings = context.settings
    if len(settings.workspaces) == 1:
        return context, listed_id(context, reference)
    recorded = {record.run: record.spec.workspace for record in restored_records(context)}
    try:
        run = find_run(reference, list(recorded))
    except NotFound:
        if reference.startswith("@"):
            return context, reference
        run = listed_id(context, reference)
        return _with_unseen(context, run), run
    if recorded[run] == settings.workspace().name or recorded[run] not in settings.workspaces:
        return context, run
    return context.in_workspace(recorded[run]), run


def listed_id(context: Context, reference: str) -> str:
    """The id of a run of others that was listed here, if no run of this machine has the prefix; else RUN as it was
    typed. Raises UsageError."""
    from amlctl.core.run_id import find_run
    from amlctl.runs.known import shared_folder

    copies = shared_folder(context.project.state_dir).glob("*.json")
    listed = [copy.stem for copy in copies if reference and copy.stem.startswith(reference)]
    if not listed or reference in listed:
        return reference
    is_own = any(record.run.startswith(reference) for record in restored_records(context))
    return reference if is_own else find_run(reference, listed)


def _with_unseen(context: AnyContext, run: str) -> AnyContext:
    """With the workspace in use that has a run which this machine has not seen; else unchanged."""
    in_use = context.settings.workspace().name
    for name in dict.fromkeys([in_use, *context.settings.workspaces]):
        found = context if name == in_use else context.in_workspace(name)
        try:
            found.workspace.read(run)
        except NotFound:
            continue
        except IntegrityError:
            pass  # it exists
        except AmlctlError as error:
            context.sink(Warned(f"could not look for run {run} in workspace {name}: {error.message}"))
            continue
        return found
    return context


def restored_records(context: Context) -> list[RunRecord]:
    """Those of this machine, newest first. Without damaged ones `@last` would be another run, so each workspace
    restores its own from its store."""
    from amlctl.runs.records import local_records

    damaged: list[str] = []
    records = local_records(context.project.state_dir, on_damaged=damaged.append)
    if not damaged:
        return records
    for name in context.settings.workspaces:
        with suppress(AmlctlError):
            workspace = context.in_workspace(name).workspace
            for run in damaged:
                with suppress(NotFound, IntegrityError):
                    workspace.read(run)
    return local_records(context.project.state_dir)
