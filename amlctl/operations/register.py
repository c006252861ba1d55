"""`--register NAME`: a mirrored dataset as a data asset of the workspace, so that runs show where data is from."""

from __future__ import annotations

import re
from typing import Protocol

from amlctl.core.job import AssetName
from amlctl.core.message import Command, below_data_blobs
from amlctl.errors import UsageError
from amlctl.workspaces.contract import KeepsAssets, Workspace

MIRROR = "mirror"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")


class Registration(Protocol):
    def __call__(self, store_url: str, dataset: str, snapshot: str, layout: str, *, is_file: bool) -> AssetName:
        """The version is the snapshot. Raises UsageError (packed), Conflict (that version is something else)."""
        ...


def registration(workspace: Workspace, name: str) -> Registration:
    """Raises UsageError, before anything is sent, where the workspace or the name cannot be used."""
    if not isinstance(workspace, KeepsAssets):
        raise UsageError(
            f"workspace {workspace.name} keeps no data assets", hint="use --workspace with one that is in Azure ML"
        )
    if _NAME.fullmatch(name) is None:
        raise UsageError(
            f"Invalid name of a data asset {name!r}: letters, digits, '-', '_' and '.', and 255 of them at most",
            hint="use another name with --register",
        )
    assets = workspace.assets

    def register(store_url: str, dataset: str, snapshot: str, layout: str, *, is_file: bool) -> AssetName:
        if layout != MIRROR:
            raise UsageError(
                f"dataset {dataset} is packed in the store, and a data asset needs plain files",
                hint=Command("sync", below_data_blobs(dataset), "--layout", MIRROR, "--register", name),
            )
        return assets.register_mirror(name, store_url, dataset, snapshot, is_file=is_file)

    return register
