"""Which cloud, which workspace: hosts, scopes of tokens, resource ids."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import quote, urlsplit

from amlctl.core.settings import WorkspaceSettings
from amlctl.core.wording import did_you_mean
from amlctl.errors import SettingsError

PROVIDER = "Microsoft.MachineLearningServices"


@dataclass(frozen=True)
class Cloud:
    """Addresses of one of Azure's clouds, without a slash at the end.

    `audience` is what tokens for the resource manager are for, `service` the same for Azure ML itself.
    """

    name: str
    resource_manager: str
    audience: str
    authority: str
    storage_suffix: str
    studio: str
    service: str

    def has_manager(self, url: str) -> bool:
        """Whether an address is one of the resource manager, or of it in a region; its usual port may be named."""
        there, own = _origin(url), _origin(self.resource_manager)
        return there[::2] == own[::2] and (there[1] == own[1] or there[1].endswith(f".{own[1]}"))


def _origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host, port."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else None)


_PUBLIC = Cloud(
    "AzureCloud",
    "https://management.azure.com",
    "https://management.azure.com",
    "https://login.microsoftonline.com",
    "core.windows.net",
    "https://ml.azure.com",
    "https://ml.azure.com",
)
_CLOUDS = {
    cloud.name.lower(): cloud
    for cloud in (
        _PUBLIC,
        Cloud(
            "AzureUSGovernment",
            "https://management.usgovcloudapi.net",
            "https://management.usgovcloudapi.net",
            "https://login.microsoftonline.us",
            "core.usgovcloudapi.net",
            "https://ml.azure.us",
            "https://ml.azure.us",
        ),
        Cloud(
            "AzureChinaCloud",
            "https://management.chinacloudapi.cn",
            "https://management.chinacloudapi.cn",
            "https://login.chinacloudapi.cn",
            "core.chinacloudapi.cn",
            "https://studio.ml.azure.cn",
            "https://ml.azure.cn",
        ),
    )
}
_CLOUDS["azurepubliccloud"] = _PUBLIC


@dataclass(frozen=True)
class Place:
    """One workspace. `tenant_id` is empty where the login chooses."""

    name: str
    cloud: Cloud
    subscription_id: str
    resource_group: str
    workspace_name: str
    tenant_id: str = ""

    @property
    def id(self) -> str:
        """The resource id, as documents name it."""
        return (
            f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
            f"/providers/{PROVIDER}/workspaces/{self.workspace_name}"
        )

    @property
    def path(self) -> str:
        """The resource id as the path of an address: names of groups may have brackets and letters of any script."""
        return quote(self.id)

    @property
    def shown(self) -> str:
        return f"{self.workspace_name} in {self.resource_group}"

    def studio_url(self, run: str, tenant_id: str = "") -> str:
        """The page of a run."""
        group = self.path.partition("/providers/")[0].replace("/resourceGroups/", "/resourcegroups/")
        tenant = f"&tid={tenant_id}" if tenant_id else ""
        return f"{self.cloud.studio}/runs/{run}?wsid={group}/workspaces/{quote(self.workspace_name, safe='')}{tenant}"


def place_of(settings: WorkspaceSettings) -> Place:
    """Raises SettingsError for a cloud that is not known, an endpoint that is no https address, a missing name."""
    for key in ("subscription_id", "resource_group", "workspace_name"):
        if not getattr(settings, key):
            raise SettingsError(f"[workspaces.{settings.name}] has no {key}", hint="az ml workspace show tells it")
    return Place(
        settings.name,
        _cloud(settings),
        settings.subscription_id or "",
        settings.resource_group or "",
        settings.workspace_name or "",
        settings.tenant_id or "",
    )


def _cloud(settings: WorkspaceSettings) -> Cloud:
    name = settings.cloud or _PUBLIC.name
    cloud = _CLOUDS.get(name.lower())
    if cloud is None:
        known = sorted({cloud.name for cloud in _CLOUDS.values()})
        raise SettingsError(
            f"[workspaces.{settings.name}] names the cloud {name!r}, which is not known",
            hint=did_you_mean(name, _CLOUDS) or f"one of {', '.join(known)}",
        )
    if not settings.endpoint:
        return cloud
    parts = urlsplit(settings.endpoint)
    if parts.scheme != "https" or not parts.hostname:
        raise SettingsError(
            f"[workspaces.{settings.name}] endpoint {settings.endpoint!r} is no https address",
            hint=f"for example {cloud.resource_manager}",
        )
    return replace(cloud, resource_manager=settings.endpoint.rstrip("/"))
