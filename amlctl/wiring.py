"""The composition root: from a folder and its settings to a store and a workspace.

Providers are imported here and nowhere else, each only when it is needed; so is what only runs need.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from amlctl.config.settings import load_settings
from amlctl.core.events import EventSink, Warned, null_sink
from amlctl.core.settings import DEFAULT_LOCAL_STORE, Settings
from amlctl.errors import AmlctlError, IntegrityError, NotFound, RightsError, SettingsError
from amlctl.localfs.project import Project, find_project
from amlctl.stores.contract import Store

if TYPE_CHECKING:
    from amlctl.stores.azure_blob.credentials import Credential
    from amlctl.workspaces.azureml.connection import Connection
    from amlctl.workspaces.contract import Workspace


@dataclass(frozen=True)
class App:
    """A project with its settings; store and workspace are opened when they are asked for."""

    project: Project
    settings: Settings
    variables: Mapping[str, str]
    sink: EventSink = null_sink
    """Receives the events of operations, and each retry of a request to a service."""
    other_store: Store | None = None
    """Used instead of the one of the workspace."""

    @cached_property
    def store(self) -> Store:
        """The store of the workspace in use. Raises SettingsError."""
        return self.other_store or self.open_store(self.store_url)

    @property
    def store_url(self) -> str:
        """Where the store of the workspace in use is. Raises SettingsError."""
        workspace = self.settings.workspace()
        if workspace.store is None and not workspace.is_local:
            from amlctl.workspaces.azureml.datastores import default_datastore

            return default_datastore(self.connection).url
        if workspace.store and not workspace.is_local and not _is_remote(workspace.store):
            raise SettingsError(
                f"the store of workspace {workspace.name!r} is the folder {workspace.store}, which no node of Azure ML "
                "can mount",
                hint=f"leave store out of [workspaces.{workspace.name}]: then it is the workspace's own blob datastore",
            )
        return workspace.store or DEFAULT_LOCAL_STORE

    def open_store(self, url: str, *, workers: int | None = None, bytes_per_s: int | None = None) -> Store:
        """See `open_store`; what lies behind a network keeps copies of its manifests here."""
        credential = None
        if not self.settings.workspace().is_local and _is_remote(url):
            from amlctl.workspaces.azureml.datastores import credential_for

            credential = credential_for(self.connection, url, self.variables)
        store = open_store(
            url,
            self.project,
            self.variables,
            workers=workers,
            bytes_per_s=bytes_per_s,
            credential=credential,
            tell=self.sink,
        )
        return _with_copies(store, self.project) if store.url.startswith("http") else store

    def open_address(self, url: str, is_public: bool) -> tuple[Store, str]:
        """See `operations.context.Context`. What is not public is read with the login of the workspace in use, else
        with that of the first one of Azure ML in the settings."""
        from amlctl.core.asset import container_of
        from amlctl.stores.azure_blob.credentials import Credential
        from amlctl.stores.azure_blob.store import open_blob_store

        blob = container_of(url)
        clouds = [one.name for one in self.settings.workspaces.values() if not one.is_local]
        credential: Credential | None = Credential()
        if blob is None and not clouds:
            raise SettingsError(
                f"{url} is in Azure ML, and the settings name no workspace there",
                hint="add a section [workspaces.cloud] to .amlctl.toml, or name a file or folder of this project",
            )
        if not is_public and not clouds:
            credential = None
        elif not is_public:
            from amlctl.workspaces.azureml.assets import data_address
            from amlctl.workspaces.azureml.datastores import credential_for

            app = self.in_workspace(clouds[0]) if self.settings.workspace().is_local else self
            blob = blob or data_address(app.connection, url)
            credential = credential_for(app.connection, blob[0], self.variables)
        assert blob is not None  # what is public is a blob
        return open_blob_store(blob[0], self.variables, credential=credential, prefix="", tell=self.sink), blob[1]

    @cached_property
    def workspace(self) -> Workspace:
        """The workspace in use. Raises SettingsError."""
        settings = self.settings.workspace()
        if settings.is_local:
            from amlctl.workspaces.local.workspace import LocalWorkspace

            return LocalWorkspace(self.project, settings, self.store, variables=self.variables, sink=self.sink)
        from amlctl.workspaces.azureml.workspace import AzureMLWorkspace

        return AzureMLWorkspace(
            settings.name,
            self.connection,
            self.project,
            lambda: self.store,
            experiment=self.settings.experiment,
            open_store=self.open_store,
            sink=self.sink,
        )

    def with_store(self, store: Store) -> App:
        """The same with another store in use."""
        return replace(self, other_store=store)

    def in_workspace(self, name: str) -> App:
        """The same with another workspace in use."""
        return replace(self, settings=replace(self.settings, default_workspace=name))

    def in_experiment(self, name: str) -> App:
        """The same with another experiment, of which the runs of others are listed, too."""
        return replace(self, settings=replace(self.settings, experiment=name))

    def holding(self, reference: str) -> tuple[App, str]:
        """With the workspace in use to which RUN belongs, as far as this machine has seen it, and what is left to be
        looked up there: the whole id, or RUN as it was. Raises UsageError."""
        from amlctl.core.run import find_run
        from amlctl.runs.records import local_records

        if len(self.settings.workspaces) == 1:
            return self, reference
        damaged: list[str] = []
        recorded = local_records(self.project.state_dir, on_damaged=damaged.append)
        if damaged:
            # Without them `@last` would be another run. Whose they are, only their workspace can tell.
            self._restore_records(damaged)
            recorded = local_records(self.project.state_dir)
        try:
            run = find_run(reference, [record.run for record in recorded])
        except NotFound:
            return (self if reference.startswith("@") else self._asked_for(reference)), reference
        workspace = next(record.workspace for record in recorded if record.run == run)
        if workspace == self.settings.workspace().name or workspace not in self.settings.workspaces:
            return self, run
        return self.in_workspace(workspace), run

    def _asked_for(self, run: str) -> App:
        """With the workspace in use that has a run which was not seen from here; the present one where none has."""
        in_use = self.settings.workspace().name
        for name in dict.fromkeys([in_use, *self.settings.workspaces]):
            app = self if name == in_use else self.in_workspace(name)
            try:
                app.workspace.read(run)
            except NotFound:
                continue
            except IntegrityError:
                pass  # it is there
            except AmlctlError as error:
                self.sink(Warned(f"workspace {name} was not asked for run {run}: {error.message}"))
                continue
            return app
        return self

    def restore_records(self) -> None:
        """Let each workspace take its damaged records from its store. One that is alone does so by itself."""
        from amlctl.runs.records import local_records

        damaged: list[str] = []
        if len(self.settings.workspaces) > 1:
            local_records(self.project.state_dir, on_damaged=damaged.append)
            self._restore_records(damaged)

    def _restore_records(self, runs: Sequence[str]) -> None:
        for name in self.settings.workspaces if runs else ():
            with suppress(AmlctlError):
                workspace = self.in_workspace(name).workspace
                for run in runs:
                    with suppress(NotFound, IntegrityError):
                        workspace.read(run)

    @cached_property
    def connection(self) -> Connection:
        """To the Azure ML workspace in use. Raises SettingsError."""
        from amlctl.workspaces.azureml.connection import Connection

        return Connection(self.settings.workspace(), self.project, self.variables, tell=self.sink)


def open_app(
    cwd: Path,
    variables: Mapping[str, str],
    *,
    project: Path | None = None,
    workspace: str | None = None,
    sink: EventSink = null_sink,
) -> App:
    """The project that `project` (else AMLCTL_PROJECT, else `cwd`) lies in.

    Raises NotFound outside a project, SettingsError for settings that cannot be used.
    """
    found = locate_project(cwd, variables, project=project)
    settings = load_settings(found, variables, user_file=_user_file(), workspace=workspace)
    found.narrow_state()
    return App(found, settings, variables, sink)


def locate_project(cwd: Path, variables: Mapping[str, str], *, project: Path | None = None) -> Project:
    """The project alone, also where its settings are broken. Raises NotFound, SettingsError (they are no file)."""
    named = project or variables.get("AMLCTL_PROJECT")
    return find_project(cwd / named if named else cwd)


_STORES = "a folder, or https://ACCOUNT.blob.core.windows.net/CONTAINER/PREFIX"


_SLIP = re.compile(r"(?i)https?[:/]")
"""`https:/x` and `https//x` are slips, not folders of that name."""


def open_store(
    url: str,
    project: Project,
    variables: Mapping[str, str],
    *,
    workers: int | None = None,
    bytes_per_s: int | None = None,
    credential: Credential | None = None,
    tell: EventSink = null_sink,
) -> Store:
    """A folder (a relative one is relative to the project's root), a `file://` URL, or the URL of a prefix in an
    Azure Blob container, which `workers` requests at a time go to. `bytes_per_s` bounds both ways together;
    `credential` is for a container, where it is not the one that the URL, the variables or the login give. `tell` gets
    an event for each request that has to be repeated.

    Raises SettingsError.
    """
    from amlctl.stores.pace import Pace

    pace = Pace(bytes_per_s) if bytes_per_s else None
    if not url:  # `--store "$UNSET"`; the project itself is no store
        raise _no_store(url, "is none", hint=_STORES)
    if url != url.strip() or set("\t\r\n") & set(url):  # urlsplit would leave line breaks out, and tell nobody
        raise _no_store(url, "has a blank at an end, or a line break", hint=_STORES)
    if _is_remote(url):
        from amlctl.stores.azure_blob.store import open_blob_store

        return open_blob_store(url, variables, workers=workers, pace=pace, credential=credential, tell=tell)
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _no_store(url, "is no URL", hint="a folder, or file:///FOLDER") from error
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise _no_store(url, "names another host", hint="file:///FOLDER")
        if not parts.path.strip("/"):
            raise _no_store(url, "names no folder", hint="file:///FOLDER")
        folder = Path(unquote(parts.path))
    elif "://" in url or _SLIP.match(url):
        raise _no_store(url, "is of no known kind", hint=_STORES)
    else:
        folder = Path(os.path.expanduser(url))
        if url[0] == "~" and not folder.is_absolute():
            raise _no_store(url, "names a home folder that does not exist", hint="write the whole path")
    from amlctl.stores.directory import DirectoryStore

    store = DirectoryStore(project.root / folder)
    if pace is None:
        return store
    from amlctl.stores.paced import PacedStore

    return PacedStore(store, pace)


def _no_store(url: str, what: str, *, hint: str) -> SettingsError:
    from amlctl.stores.azure_blob.address import without_secrets

    return SettingsError(f"store {without_secrets(url)!r} {what}", hint=hint)


def _with_copies(store: Store, project: Project) -> Store:
    from amlctl.stores.cached import CachedStore

    with suppress(RightsError):  # where nothing can be written, nothing is kept
        project.ensure_state_dir()
    return CachedStore(store, project.state_dir / "cache" / "manifests")


def without_copies(store: Store) -> Store:
    """The store alone, for whoever wants to know what is really in it."""
    from amlctl.stores.cached import CachedStore

    return store.store if isinstance(store, CachedStore) else store


def _user_file() -> Path | None:
    """None where it does not exist, or the home folder cannot be entered, or is not one."""
    from platformdirs import user_config_path

    path = user_config_path("amlctl") / "config.toml"
    return path if path.is_absolute() and os.path.exists(path) else None


def _is_remote(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))
