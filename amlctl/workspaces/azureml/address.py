"""Pure: the cloud and the workspace of settings, as hosts, scopes of tokens and resource ids."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import quote, urlsplit

from amlctl.core.message import did_you_mean
from amlctl.core.settings import WorkspaceSettings
from amlctl.errors import SettingsError


@dataclass(frozen=True)
class Cloud:
    """Addresses of an Azure cloud, without a slash at the end.

    `audience` is that of tokens for the resource manager, `service` that of tokens for Azure ML itself.
    """

    name: str
    resource_manager: str
    authority: str
    storage_suffix: str
    studio: str
    service: str
    audience: str = ""

    def has_manager(self, url: str) -> bool:
        """Whether an address belongs to the resource manager, or to it in a region; its default port may be given."""
        theirs, ours = _origin(url), _origin(self.resource_manager)
        return theirs[::2] == ours[::2] and (theirs[1] == ours[1] or theirs[1].endswith(f".{ours[1]}"))


def _origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host, port."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else None)


_PUBLIC = Cloud(
    "AzureCloud",
    "https://management.azure.com",
    "https://login.microsoftonline.com",
    "core.windows.net",
    studio="https://ml.azure.com",
    service="https://ml.azure.com",
)
_GOVERNMENT = Cloud(
    "AzureUSGovernment",
    "https://management.usgovcloudapi.net",
    "https://login.microsoftonline.us",
    "core.usgovcloudapi.net",
    studio="https://ml.azure.us",
    service="https://ml.azure.us",
)
_CHINA = Cloud(
    "AzureChinaCloud",
    "https://management.chinacloudapi.cn",
    "https://login.chinacloudapi.cn",
    "core.chinacloudapi.cn",
    studio="https://studio.ml.azure.cn",
    service="https://ml.azure.cn",
)
_CLOUDS = {cloud.name.lower(): cloud for cloud in (_PUBLIC, _GOVERNMENT, _CHINA)} | {"azurepubliccloud": _PUBLIC}


@dataclass(frozen=True)
class WorkspaceAddress:
    """`tenant_id` is empty if the login selects it."""

    name: str
    cloud: Cloud
    subscription_id: str
    resource_group: str
    workspace_name: str
    tenant_id: str = ""

    @property
    def id(self) -> str:
        """The resource id, as in documents."""
        return (
            f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{self.workspace_name}"
        )

    @property
    def path(self) -> str:
        """The resource id in a URL: names of groups may have brackets and letters of any script."""
        return quote(self.id)

    @property
    def shown(self) -> str:
        return f"{self.workspace_name} in {self.resource_group}"

    def studio_url(self, run: str, tenant_id: str = "") -> str:
        """The page of a run."""
        group = self.path.partition("/providers/")[0].replace("/resourceGroups/", "/resourcegroups/")
        tenant = f"&tid={tenant_id}" if tenant_id else ""
        return f"{self.cloud.studio}/runs/{run}?wsid={group}/workspaces/{quote(self.workspace_name, safe='')}{tenant}"


def workspace_address(settings: WorkspaceSettings) -> WorkspaceAddress:
    """Raises SettingsError: an unknown cloud, an endpoint that is not an https address, a missing name."""
    for key in ("subscription_id", "resource_group", "workspace_name"):
        if not getattr(settings, key):
            raise SettingsError(f"[workspaces.{settings.name}] has no {key}", hint="az ml workspace show")
    return WorkspaceAddress(
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
            f"[workspaces.{settings.name}]: unknown cloud {name!r}",
            hint=did_you_mean(name, _CLOUDS) or f"one of {', '.join(known)}",
        )
    cloud = replace(cloud, audience=cloud.resource_manager)
    if not settings.endpoint:
        return cloud
    try:
        scheme, host, _ = _origin(settings.endpoint)
    except ValueError:
        scheme, host = "", ""
    if scheme != "https" or not host:
        raise SettingsError(
            f"[workspaces.{settings.name}]: endpoint {settings.endpoint!r} is not an https address",
            hint=f"for example {cloud.resource_manager}",
        )
    return replace(cloud, resource_manager=settings.endpoint.rstrip("/"))
