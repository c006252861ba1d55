"""Which blobs of a container are files: hierarchical namespaces and some tools keep an empty blob for each folder."""

from __future__ import annotations

from collections.abc import Mapping

from amlctl.errors import UsageError
from amlctl.operations.sync.pull_target import parents


def files_among(sizes: Mapping[str, int]) -> set[str]:
    """`sizes` in bytes, by name. Raises UsageError for a file that is a folder as well."""
    folders = {folder for name in sizes for folder in parents(name)}
    files = {
        name for name, size_bytes in sizes.items() if not name.endswith("/") and (size_bytes or name not in folders)
    }
    if both := sorted(files & folders):
        raise UsageError(f"{both[0]!r} is a file and a folder as well", hint="rename it in the container", details=both)
    return files
