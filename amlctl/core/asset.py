"""Names of what is registered in a workspace of Azure ML: `azureml:NAME:VERSION` and `azureml:NAME@latest`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional
from urllib.parse import quote, unquote

_NAME = re.compile(r"azureml:([A-Za-z0-9_][\w.-]*)(?::([\w.-]+)|@latest)")


_BLOB = re.compile(r"(?:wasbs?|abfss?)://([^@/]+)@([^/]+?)\.(?:blob|dfs)\.([^/]+)/?(.*)")
_AT_ACCOUNT = re.compile(r"(https?://[^/]+\.blob\.[^/]+/[^/?]+)/?([^?]*)(.*)")


def https_of(url: str) -> str:
    """The address by which anyone may read what `url` names, if it is public; empty if it has no such address."""
    if found := _BLOB.fullmatch(url):
        return f"https://{found[2]}.blob.{found[3]}/{found[1]}/{quote(found[4], safe='/%')}"
    return url if url.startswith(("http://", "https://")) else ""


def container_of(url: str) -> Optional[tuple[str, str]]:
    """URL of a container, and the path in it, of data in Azure's blobs."""
    found = _AT_ACCOUNT.fullmatch(https_of(url))
    return None if found is None else (found[1] + found[3], unquote(found[2]))


@dataclass(frozen=True)
class AssetName:
    """`version` is empty for the latest one, which is another one tomorrow."""

    name: str
    version: str = ""

    def __str__(self) -> str:
        return f"azureml:{self.name}:{self.version}" if self.version else f"azureml:{self.name}@latest"


def parse_asset(text: str) -> Optional[AssetName]:
    """None for anything else: an address, a name alone, one of a registry."""
    found = _NAME.fullmatch(text)
    return None if found is None else AssetName(found[1], found[2] or "")
