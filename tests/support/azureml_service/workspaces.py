"""The workspace itself, discovery of its hosts, the cloud's addresses, sizes and quotas of the region."""

from __future__ import annotations

from typing import Any

from .place import PROVIDER, Place, now
from .replies import Handler, Reply, Request, arm_error

_SIZES: dict[str, tuple[str, int, int, float]] = {
    "Standard_DS3_v2": ("standardDSv2Family", 4, 0, 14.0),
    "Standard_F16s_v2": ("standardFSv2Family", 16, 0, 32.0),
    "Standard_NC6s_v3": ("standardNCSv3Family", 6, 1, 112.0),
    "Standard_NC24ads_A100_v4": ("standardNCADSA100v4Family", 24, 1, 220.0),
}
"""Name to family, cores, GPUs, memory in GB."""


class Workspaces:
    """`quotas` are dedicated cores by family, `low_priority_cores` those of low priority, all families together; what
    is not in it has 100. `cores_in_use` are by the same names. `not_actions` are denied to the caller."""

    def __init__(self, place: Place, account: str) -> None:
        self._place = place
        self._account = account
        self._created = now()
        self.quotas: dict[str, int] = {}
        self.low_priority_cores = 100
        self.cores_in_use: dict[str, int] = {}
        self.not_actions: list[str] = []

    def routes(self) -> list[tuple[str, str, Handler]]:
        location = f"/subscriptions/[^/]+/providers/{PROVIDER}/locations/[^/]+"
        return [
            ("GET", "/metadata/endpoints", self._clouds),
            ("GET", "/discovery", self._discovery),
            (
                "GET",
                f"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/{PROVIDER}/workspaces/(?P<name>[^/]+)",
                self._get,
            ),
            (
                "GET",
                f"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/{PROVIDER}/workspaces/[^/]+"
                "/providers/Microsoft.Authorization/permissions",
                self._permissions,
            ),
            ("GET", f"{location}/vmSizes", self._vm_sizes),
            ("GET", f"{location}/usages", self._usages),
        ]

    def refuse_others(self, path: str) -> None:
        """Raises for an address below another workspace than this one."""
        parts = path.split("/")
        here = self._place
        if len(parts) > 8 and parts[1].lower() == "subscriptions" and parts[7].lower() == "workspaces":
            if parts[2].lower() != here.subscription_id.lower():
                text = f"The subscription '{parts[2]}' could not be found."
                raise arm_error(404, "SubscriptionNotFound", text)
            if parts[4].lower() != here.resource_group.lower():
                raise arm_error(404, "ResourceGroupNotFound", f"Resource group '{parts[4]}' could not be found.")
            if parts[8].lower() != here.workspace_name.lower():
                raise arm_error(
                    404,
                    "ResourceNotFound",
                    f"The Resource '{PROVIDER}/workspaces/{parts[8]}' under resource group '{parts[4]}' was not "
                    "found. For more details please go to https://aka.ms/ARMResourceNotFoundFix",
                )

    def _clouds(self, request: Request) -> Reply:
        endpoint = self._place.endpoint
        cloud = {
            "name": "Loopback",
            "portal": "https://portal.azure.com",
            "resourceManager": f"{endpoint}/",
            "authentication": {"loginEndpoint": "https://login.microsoftonline.com/", "tenant": "common"},
            "suffixes": {"storage": "core.windows.net"},
        }
        return Reply(200, [cloud])

    def _discovery(self, request: Request) -> Reply:
        kinds = ("api", "catalog", "experimentation", "gallery", "history", "hyperdrive", "labeling", "modelmanagement")
        return Reply(
            200, {**dict.fromkeys(kinds, self._place.endpoint), "notebooks": "", "studio": "https://ml.azure.com"}
        )

    def _get(self, request: Request) -> Reply:
        return Reply(200, self._document())

    def _document(self) -> dict[str, Any]:
        place = self._place
        group = f"/subscriptions/{place.subscription_id}/resourceGroups/{place.resource_group}/providers"
        base = place.resource("x", place.workspace_name, {}, self._created, self._created)
        host = place.endpoint.removeprefix("https://")
        return {
            **base,
            "id": place.id,
            "type": f"{PROVIDER}/workspaces",
            "location": place.region,
            "tags": {},
            "etag": None,
            "kind": "Default",
            "properties": {
                "friendlyName": place.workspace_name,
                "description": "",
                "storageAccount": f"{group}/Microsoft.Storage/storageAccounts/{self._account}",
                "keyVault": f"{group}/Microsoft.Keyvault/vaults/vault",
                "applicationInsights": f"{group}/Microsoft.insights/components/insights",
                "hbiWorkspace": False,
                "tenantId": place.tenant_id,
                "imageBuildCompute": None,
                "provisioningState": "Succeeded",
                "containerRegistry": None,
                "notebookInfo": {
                    "resourceId": place.workspace_id.replace("-", ""),
                    "fqdn": f"ml-{place.workspace_name}.{place.region}.notebooks.azure.net",
                    "isPrivateLinkEnabled": False,
                    "notebookPreparationError": None,
                },
                "storageHnsEnabled": False,
                "workspaceId": place.workspace_id,
                "linkedModelInventoryArmId": None,
                "privateLinkCount": 0,
                "publicNetworkAccess": "Enabled",
                "discoveryUrl": f"{place.endpoint}/discovery",
                "mlFlowTrackingUri": f"azureml://{host}/mlflow/v1.0{place.id}",
                "sdkTelemetryAppInsightsKey": None,
                "sasGetterUri": "",
            },
            "identity": {
                "type": "SystemAssigned",
                "principalId": "00000000-0000-0000-0000-000000000002",
                "tenantId": place.tenant_id,
            },
            "sku": {"name": "Basic", "tier": "Basic"},
        }

    def _permissions(self, request: Request) -> Reply:
        grant = {"actions": ["*"], "notActions": self.not_actions, "dataActions": [], "notDataActions": []}
        return Reply(200, {"value": [grant]})

    def _vm_sizes(self, request: Request) -> Reply:
        sizes = [
            {
                "name": name,
                "family": family,
                "vCPUs": cores,
                "gpus": gpus,
                "osVhdSizeMB": 1047552,
                "maxResourceVolumeMB": 28672,
                "memoryGB": memory,
                "lowPriorityCapable": True,
                "premiumIO": True,
                "supportedComputeTypes": ["AmlCompute", "ComputeInstance"],
            }
            for name, (family, cores, gpus, memory) in _SIZES.items()
        ]
        return Reply(200, {"value": sizes})

    def _usages(self, request: Request) -> Reply:
        """A family stands there twice under one name, distinguished by type; -1 means unlimited."""
        families = sorted({size[0] for size in _SIZES.values()})
        rows = [
            ("TotalDedicatedCores", "dedicatedCores", self.quotas.get("TotalDedicatedCores", 1000)),
            ("TotalLowPriorityCores", "lowPriorityCores", self.low_priority_cores),
            *((family, "vmFamily/lowPriorityCores", -1) for family in families),
            *((family, "vmFamily/dedicatedCores", self.quotas.get(family, 100)) for family in families),
        ]
        usages = [
            {
                "id": f"{self._place.location_id}/usages/{name}",
                "type": f"{PROVIDER}/{kind}/usages",
                "unit": "Count",
                "currentValue": self.cores_in_use.get(name, 0),
                "limit": limit,
                "name": {"value": name, "localizedValue": name},
            }
            for name, kind, limit in rows
        ]
        return Reply(200, {"value": usages})
