"""The composition root: from a folder and its settings to a store and a workspace.

Providers are imported here and nowhere else, on first use; so is what only commands about runs need.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from amlctl.config.settings import load_settings
from amlctl.core.events import EventSink, null_sink
from amlctl.core.settings import DEFAULT_LOCAL_STORE, Settings
from amlctl.errors import RightsError, SettingsError
from amlctl.localfs.project import Project, find_project
from amlctl.stores.contract import Links, PlainFiles, Store

if TYPE_CHECKING:
    from amlctl.snapshots.known import DatasetContents
    from amlctl.stores.azure_blob.credentials import Credential
    from amlctl.workspaces.azureml.connection import Connection
    from amlctl.workspaces.contract import EnvironmentCache, Workspace
    from amlctl.workspaces.local.disk import LocalDisk


@dataclass(frozen=True)
class App:
    """A project with its settings; store and workspace are opened on first use."""

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

    @cached_property
    def dataset_contents(self) -> DatasetContents:
        """See `operations.context.Context`."""
        from amlctl.snapshots.known import DatasetContents

        return DatasetContents(self.store)

    @property
    def store_url(self) -> str:
        """The URL of the store of the workspace in use. Raises SettingsError."""
        workspace = self.settings.workspace()
        if workspace.runs_here:
            return workspace.store or DEFAULT_LOCAL_STORE
        if workspace.store is None:
            from amlctl.workspaces.azureml.datastores import default_datastore

            return default_datastore(self.connection).url
        if not _is_remote(workspace.store):
            raise SettingsError(
                f"{self.settings.origins[f'workspaces.{workspace.name}.store']}: the store of workspace "
                f"{workspace.name!r} is the folder {workspace.store}, which nodes of Azure ML cannot mount",
                hint="remove that to use the workspace's own blob datastore",
            )
        return workspace.store

    def open_store(self, url: str, *, workers: int | None = None, bytes_per_s: int | None = None) -> Store:
        """A folder (relative to the project), a `file://` URL, or the URL of a prefix in an Azure Blob container,
        with `workers` parallel requests. `bytes_per_s` limits both directions together.

        One that is gone is not taken for an empty one; manifests of a remote store are cached on this machine. Raises
        SettingsError.
        """
        from amlctl.stores.presence import RememberedStore
        from amlctl.stores.wrappers import CachedStore, Pace, PacedStore

        pace = Pace(bytes_per_s) if bytes_per_s else None
        if not url:  # `--store "$UNSET"` does not mean the project's folder
            raise _invalid_store(url, "is empty", hint=_STORES)
        if url != url.strip() or set("\t\r\n") & set(url):  # urlsplit drops line breaks silently
            raise _invalid_store(url, "starts or ends with a blank, or contains a line break", hint=_STORES)
        if not _is_remote(url):
            folder = self._open_folder(url)
            return RememberedStore(folder if pace is None else PacedStore(folder, pace), self.project)
        from amlctl.stores.azure_blob.store import AzureBlobStore

        credential = None
        if not self.settings.workspace().runs_here:
            from amlctl.workspaces.azureml.datastores import credential_for

            credential = credential_for(self.connection, url, self.variables)
        store = AzureBlobStore(url, self.variables, workers=workers, pace=pace, credential=credential, tell=self.sink)
        with suppress(RightsError):  # a project that cannot be written keeps no copies
            self.project.ensure_state_dir()
        copies = self.project.state_dir / "cache" / "manifests"
        return CachedStore(RememberedStore(store, self.project), copies)

    def _open_folder(self, url: str) -> Store:
        from amlctl.stores.directory import DirectoryStore

        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise _invalid_store(url, "is not a valid URL", hint=_STORES) from error
        if parts.scheme == "file":
            if parts.netloc not in ("", "localhost"):
                raise _invalid_store(url, "names another host", hint=_FILE_URL)
            if not parts.path.strip("/"):
                raise _invalid_store(url, "does not name a folder", hint=_FILE_URL)
            folder = Path(unquote(parts.path))
        elif "://" in url or _TYPO.match(url):
            raise _invalid_store(url, "is not a supported kind of URL", hint=_STORES)
        else:
            folder = _expanded(url)
        store = DirectoryStore(self.project.root / folder)
        if os.path.isfile(store.folder):  # a folder that may not be looked at is for the first request to refuse
            raise SettingsError(f"the store {store.url} is a file, not a folder", hint="choose a folder")
        return store

    def open_address(self, url: str, is_public: bool) -> tuple[Store, str]:
        """See `operations.context.Context`. An address that is not public is read with the login of the workspace in
        use, or else of the first one of Azure ML in the settings."""
        from amlctl.core.job import container_of
        from amlctl.stores.azure_blob.credentials import Credential
        from amlctl.stores.azure_blob.store import AzureBlobStore

        blob = container_of(url)
        clouds = [one.name for one in self.settings.workspaces.values() if not one.runs_here]
        credential: Credential | None = Credential()  # for public data
        if blob is None and not clouds:
            raise SettingsError(
                f"{url} is in Azure ML, but the settings have no workspace there",
                hint="add a section [workspaces.cloud] to .amlctl.toml, or use a file or folder of this project",
            )
        if not is_public and not clouds:
            credential = None
        elif not is_public:
            from amlctl.workspaces.azureml.assets import data_address
            from amlctl.workspaces.azureml.datastores import credential_for

            app = self.in_workspace(clouds[0]) if self.settings.workspace().runs_here else self
            blob = blob or data_address(app.connection, url)
            credential = credential_for(app.connection, blob[0], self.variables)
        assert blob is not None  # only blobs are public
        return AzureBlobStore(blob[0], self.variables, credential=credential, prefix="", tell=self.sink), blob[1]

    def links(self, until: datetime) -> Links:
        """Links to values of the store, which is not a folder. Raises SettingsError, UsageError, RightsError."""
        from amlctl.stores.azure_blob.store import AzureBlobStore

        store = innermost(self.store)
        assert isinstance(store, AzureBlobStore)
        return store.links(until)

    def plain_files(self, prefix: str) -> PlainFiles:
        """Files beside the store: below a prefix of its container, or in a folder."""
        store = innermost(self.store)
        if store.folder is not None:
            from amlctl.stores.folder_files import FolderFiles

            return FolderFiles(store, _expanded(prefix).absolute())
        from amlctl.stores.azure_blob.store import AzureBlobStore

        assert isinstance(store, AzureBlobStore)
        return store.plain_files(prefix)

    @cached_property
    def disk(self) -> LocalDisk:
        """What runs of this project have left on this machine."""
        from amlctl.workspaces.local.disk import LocalDisk

        return LocalDisk(self.project, self.environments)

    @cached_property
    def workspace(self) -> Workspace:
        """The workspace in use. Raises SettingsError."""
        settings = self.settings.workspace()
        if settings.runs_here:
            from amlctl.workspaces.local.workspace import LocalWorkspace

            return LocalWorkspace(
                self.project,
                settings,
                self.store,
                environments_dir=self.environments_dir,
                cache_limit=self.settings.cache.limit,
                variables=self.variables,
                sink=self.sink,
            )
        from amlctl.workspaces.azureml.workspace import AzureMLWorkspace

        return AzureMLWorkspace(
            self.connection,
            lambda: self.store,
            experiment=self.settings.experiment,
            open_store=self.open_store,
            sink=self.sink,
        )

    @property
    def environments_dir(self) -> Path:
        """One for all projects of the user; the project's own if the user's cache folder cannot be written."""
        if self.settings.environments_dir is not None:
            return self.project.root / _expanded(self.settings.environments_dir)
        from platformdirs import user_cache_path

        folder = user_cache_path("amlctl") / "environments"
        there = next((one for one in folder.parents if os.path.exists(one)), folder)
        is_usable = folder.is_absolute() and os.path.isdir(there) and os.access(there, os.W_OK | os.X_OK)
        return folder if is_usable else self.project.state_dir / "environments"

    @property
    def environments(self) -> EnvironmentCache:
        """The environments on this machine, whichever workspace is in use."""
        from amlctl.workspaces.local.environments import Environments

        return Environments(self.environments_dir, self.variables)

    def with_store(self, store: Store) -> App:
        """The same with another store in use."""
        return replace(self, other_store=store)

    def in_workspace(self, name: str) -> App:
        """The same with another workspace in use."""
        return replace(self, settings=replace(self.settings, default_workspace=name))

    def in_experiment(self, name: str) -> App:
        """The same with another experiment; runs of other people in it are listed as well."""
        return replace(self, settings=replace(self.settings, experiment=name))

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
    """The project that contains `project` (default: AMLCTL_PROJECT, then `cwd`).

    Raises NotFound outside a project, SettingsError for invalid settings.
    """
    found = locate_project(cwd, variables, project=project)
    settings = load_settings(found, variables, user_file=_user_file(), workspace=workspace)
    found.tidy_state()
    return App(found, settings, variables, sink)


def locate_project(cwd: Path, variables: Mapping[str, str], *, project: Path | None = None) -> Project:
    """The project alone, even if its settings are invalid. Raises NotFound, SettingsError (they are not a file)."""
    named = project or variables.get("AMLCTL_PROJECT")
    return find_project(cwd / named if named else cwd)


_STORES = "use a folder, or https://ACCOUNT.blob.core.windows.net/CONTAINER/PREFIX"
_FILE_URL = "use file:///FOLDER"

_TYPO = re.compile(r"(?i)https?[:/]")
"""`https:/x` and `https//x` are typos, not folders of that name."""


def _expanded(path: str) -> Path:
    folder = Path(os.path.expanduser(path))
    if path[:1] == "~" and not folder.is_absolute():
        raise SettingsError(f"{path!r} names a home folder that does not exist", hint="use the full path")
    return folder


def _invalid_store(url: str, what: str, *, hint: str) -> SettingsError:
    from amlctl.stores.azure_blob.address import without_secrets

    return SettingsError(f"store {without_secrets(url)!r} {what}", hint=hint)


def innermost(store: Store) -> Store:
    """Of stores around each other the one that has the bytes."""
    from amlctl.stores.wrappers import StoreWrapper

    while isinstance(store, StoreWrapper):
        store = store.store
    return store


def _user_file() -> Path | None:
    """None if it does not exist, or the home folder is not accessible."""
    from platformdirs import user_config_path

    path = user_config_path("amlctl") / "config.toml"
    return path if path.is_absolute() and os.path.exists(path) else None


def _is_remote(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))
