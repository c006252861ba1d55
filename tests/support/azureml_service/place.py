"""Where the one workspace of the service stands, and the ids and times of things in it."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from typing import Any

PROVIDER = "Microsoft.MachineLearningServices"
_PERSON = {"By": "Test Person", "ByType": "User"}


@dataclass(frozen=True)
class Place:
    """`endpoint` is https://127.0.0.1:PORT, without a slash at the end."""

    endpoint: str
    subscription_id: str
    resource_group: str
    workspace_name: str
    workspace_id: str
    tenant_id: str
    region: str = "eastus"
    authority: str = ""
    """The file of the certificate that the service's own is signed with."""

    @property
    def id(self) -> str:
        return (
            f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
            f"/providers/{PROVIDER}/workspaces/{self.workspace_name}"
        )

    @property
    def location_id(self) -> str:
        return f"/subscriptions/{self.subscription_id}/providers/{PROVIDER}/locations/{self.region}"

    def resource(self, kind: str, name: str, properties: dict[str, Any], created: str, modified: str) -> dict[str, Any]:
        """`kind` is the path of types between workspace and name, as `codes/NAME/versions`."""
        types = "/".join(part for index, part in enumerate(kind.split("/")) if index % 2 == 0)
        return {
            "id": f"{self.id}/{kind}/{name}",
            "name": name,
            "type": f"{PROVIDER}/workspaces/{types}",
            "properties": properties,
            "systemData": {
                **{f"created{key}": value for key, value in {"At": created, **_PERSON}.items()},
                **{f"lastModified{key}": value for key, value in {"At": modified, **_PERSON}.items()},
            },
        }


def now() -> str:
    """The service's way to write a time."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")


def last_name(resource_id: str) -> str:
    return resource_id.rstrip("/").rpartition("/")[2]


def asset_of(resource_id: str, kind: str) -> tuple[str, str] | None:
    """Name and version in an id of this workspace, such as `…/codes/NAME/versions/VERSION`."""
    found = re.search(rf"/workspaces/[^/]+/{kind}/([^/]+)/versions/([^/]+)$", resource_id, re.IGNORECASE)
    return (found[1], found[2]) if found else None
