"""Where uv is."""

from __future__ import annotations

import shutil
from collections.abc import Mapping


def find_uv(variables: Mapping[str, str]) -> str:
    """Path of uv: the one that amlctl was installed with, else one on the PATH; empty without."""
    try:
        from uv import find_uv_bin

        return find_uv_bin()
    except (ImportError, FileNotFoundError):
        return shutil.which("uv", path=variables.get("PATH")) or ""
