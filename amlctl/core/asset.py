"""Names of what is registered in a workspace of Azure ML: `azureml:NAME:VERSION` and `azureml:NAME@latest`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

_NAME = re.compile(r"azureml:([A-Za-z0-9_][\w.-]*)(?::([\w.-]+)|@latest)")


@dataclass(frozen=True)
class AssetName:
    """`version` is empty for the latest one, which is another one tomorrow."""

    name: str
    version: str = ""

    def __str__(self) -> str:
        return f"azureml:{self.name}:{self.version}" if self.version else f"azureml:{self.name}@latest"


def parse_asset(text: str) -> Optional[AssetName]:
    """None for what is no such name: an address, a name alone, one of a registry."""
    found = _NAME.fullmatch(text)
    return None if found is None else AssetName(found[1], found[2] or "")
