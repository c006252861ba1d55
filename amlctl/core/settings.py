"""Settings as every other part sees them: resolved, checked, frozen. `config.settings` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Optional, get_args

from amlctl.core.message import did_you_mean
from amlctl.errors import SettingsError

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

LayoutName = Literal["auto", "pack", "mirror"]
Mode = Literal["mount", "download"]
OnInterrupt = Literal["ask", "cancel", "detach"]
Engine = Literal["local", "azureml"]

LAYOUTS: tuple[LayoutName, ...] = get_args(LayoutName)
MODES: tuple[Mode, ...] = get_args(Mode)
ON_INTERRUPT: tuple[OnInterrupt, ...] = get_args(OnInterrupt)
ENGINES: tuple[Engine, ...] = get_args(Engine)
IDENTITIES = ("user_identity", "managed", "managed_identity", "aml_token")

LOCAL_WORKSPACE = "local"
DEFAULT_LOCAL_STORE = ".amlctl/store"
"""A folder, relative to the project's root."""


@dataclass(frozen=True)
class WorkspaceSettings:
    """One `[workspaces.NAME]`. `compute` is the engine: `local` or `azureml`.

    `store` is as written: a folder (relative ones are relative to the project's root) or a URL; None means the
    workspace's own blob datastore. `default_compute` names a file of `compute/`, or is `serverless`. `identity` is what
    jobs use to reach data (`IDENTITIES`), where their job file says nothing.
    """

    name: str
    compute: Engine = "local"
    store: Optional[str] = None
    default_compute: Optional[str] = None
    subscription_id: Optional[str] = None
    resource_group: Optional[str] = None
    workspace_name: Optional[str] = None
    tenant_id: Optional[str] = None
    cloud: Optional[str] = None
    endpoint: Optional[str] = None
    identity: Optional[str] = None

    @property
    def runs_here(self) -> bool:
        """Runs are processes of this machine, otherwise jobs of Azure ML."""
        return self.compute == "local"


@dataclass(frozen=True)
class SyncSettings:
    """`[sync]`. Sizes are bytes; `ignore` has Git's patterns, relative to the dataset's root."""

    layout: LayoutName = "auto"
    pack_below: int = MIB
    pack_size: int = 64 * MIB
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True)
class SubmitSettings:
    """`[submit]`."""

    mode: Mode = "mount"
    fetch: bool = True
    on_interrupt: OnInterrupt = "ask"


@dataclass(frozen=True)
class RunsSettings:
    """`[runs]`. `metric` is the one that lists of runs show."""

    metric: Optional[str] = None


@dataclass(frozen=True)
class CacheSettings:
    """`[cache]`. `limit` in bytes: copies of what a store on the network has are evicted above it, and `doctor` reports
    a project that takes more."""

    limit: int = 20 << 30


@dataclass(frozen=True)
class Settings:
    """All settings of one command.

    `default_workspace` is the one this command works with: option and variable are taken into account.
    `environments_dir` is where the environments of local runs are; None: in the user's cache folder.
    `origins` has, by dotted key (`sync.layout`, `workspaces.cloud.store`) of what is not a default, where its value
    came from: a variable's name, an option, or `file:line`. `broken` has the workspaces that cannot be used, and why;
    one of them does not stop work in another.
    """

    default_workspace: str = LOCAL_WORKSPACE
    experiment: str = "default"
    environments_dir: Optional[str] = None
    workspaces: Mapping[str, WorkspaceSettings] = field(
        default_factory=lambda: {LOCAL_WORKSPACE: WorkspaceSettings(LOCAL_WORKSPACE, store=DEFAULT_LOCAL_STORE)}
    )
    sync: SyncSettings = SyncSettings()
    submit: SubmitSettings = SubmitSettings()
    cache: CacheSettings = CacheSettings()
    runs: RunsSettings = RunsSettings()
    origins: Mapping[str, str] = field(default_factory=dict)
    broken: Mapping[str, SettingsError] = field(default_factory=dict)

    def workspace(self, name: Optional[str] = None) -> WorkspaceSettings:
        """The workspace of that name, or the one in use. Raises SettingsError: with the nearest name, or what is wrong
        with its section."""
        wanted = name or self.default_workspace
        if wanted in self.broken:
            raise self.broken[wanted]
        if wanted in self.workspaces:
            return self.workspaces[wanted]
        raise SettingsError(
            f"no workspace {wanted!r} in the settings: there is {', '.join(sorted(self.workspaces))}",
            hint=did_you_mean(wanted, self.workspaces) or f"add a section [workspaces.{wanted}] to .amlctl.toml",
        )
