"""A store that is a folder must lie apart from what is sent to it: each sync would send it into itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Optional

from amlctl.core.store_keys import AREAS
from amlctl.errors import UsageError
from amlctl.localfs.scan import Scan
from amlctl.stores.contract import Store

_HINT = "choose a store outside of data_blobs/ and pipeline/, such as .amlctl/store"


def check_store_is_outside(store: Store, folder: Path, what: str, scanned: Optional[Scan] = None) -> None:
    """Raises UsageError where `folder` holds the store, also by a link in it, or lies in what is the store's own.

    `what` names the folder; `scanned` are the folders in it, if they were looked at.
    """
    root = store.folder
    if root is None:
        return
    real, inside = _real(root), _real(folder)
    if real == inside:
        raise UsageError(f"the store {root} is the very folder of {what}", hint=_HINT)
    if inside in real.parents:
        raise UsageError(f"the store {root} lies inside {what}: it would be sent into itself", hint=_HINT)
    if _is_part(inside, real):
        raise UsageError(f"{what} lies inside the store {root}", hint="keep datasets and stores apart")
    for link in sorted(scanned.links) if scanned is not None else ():
        target = _real(folder / link)
        if target == real or _is_part(target, real) or _was_scanned(scanned, link, target, real):
            raise UsageError(f"{what}/{link} leads into the store {root}: it would be sent into itself", hint=_HINT)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # Path.resolve raises for a loop


def _is_part(folder: Path, store: Path) -> bool:
    return any(store / area.name in (folder, *folder.parents) for area in AREAS)


def _was_scanned(scanned: Optional[Scan], link: str, target: Path, store: Path) -> bool:
    """Whether the store lies below the target of the link, where no ignore file excludes it."""
    if scanned is None or target not in store.parents:
        return False
    at = f"{link}/{store.relative_to(target).as_posix()}"
    return any(f"{one.path}/".startswith(f"{at}/") for one in scanned.folders)
