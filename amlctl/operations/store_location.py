"""A store that is a folder must lie apart from what is sent to it: each sync would send it into itself."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Optional

from amlctl.core.store_keys import AREAS
from amlctl.errors import UsageError
from amlctl.localfs.scan import Scan
from amlctl.stores.contract import Store

_AREAS = tuple(area.name for area in AREAS)
_HINT = "choose a store outside of data_blobs/ and pipeline/, such as .amlctl/store"

Id = tuple[int, int]


def check_store_is_outside(store: Store, folder: Path, what: str, scanned: Optional[Scan] = None) -> None:
    """Raises UsageError where `folder` holds the store, also by a link in it, or lies in what is the store's own.

    `what` names the folder; `scanned` are the folders in it, if they were looked at.
    """
    root = store.folder
    if root is None:
        return
    real, inside = Path(os.path.realpath(root)), Path(os.path.realpath(folder))  # Path.resolve raises for a loop
    if real == inside:
        raise UsageError(f"the store {root} is the very folder of {what}", hint=_HINT)
    if inside in real.parents:
        raise UsageError(f"the store {root} lies inside {what}: it would be sent into itself", hint=_HINT)
    if any(real / area in (inside, *inside.parents) for area in _AREAS):
        raise UsageError(f"{what} lies inside the store {root}", hint="keep datasets and stores apart")
    if scanned is not None and (linked := _link_into(root, folder, scanned)):
        raise UsageError(f"{what}/{linked} leads into the store {root}: it would be sent into itself", hint=_HINT)


def _link_into(root: Path, folder: Path, scanned: Scan) -> str:
    """A folder of the scan that is the store or one of its areas, or empty. Only folders that look like a part of a
    store are asked for, so that a large dataset costs no call to the system."""
    own = {found for found in map(_id, (root, *(root / area for area in _AREAS))) if found is not None}
    if not own:
        return ""
    inside = {name for area in ("datasets", "mirror") for name in _names(root / area)}
    return next((path for path in sorted(_suspects(scanned, inside)) if _id(folder / path) in own), "")


def _suspects(scanned: Scan, inside: Collection[str]) -> Iterable[str]:
    """`inside` are names of folders in the store's areas."""
    found = set()
    for one in scanned.folders:
        above, _, name = one.path.rpartition("/")
        if one.is_empty or name in _AREAS:
            found |= {one.path, above}
        elif len(name) == 2 or name in inside:  # packs/ab, objects/ab, datasets/working
            found.add(above)
    return found - {""}


def _names(folder: Path) -> Sequence[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return ()


def _id(path: Path) -> Optional[Id]:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
