"""The environments on this machine: what there is, and removing what no run uses."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amlctl.errors import Conflict, RightsError, SettingsError
from amlctl.localfs.atomic import read_json
from amlctl.localfs.disk_use import measured
from amlctl.localfs.folders import remove_tree
from amlctl.localfs.regular_file import open_regular
from amlctl.workspaces.contract import KeptEnvironment
from amlctl.workspaces.local.environments import READY_FILE, USED_FILE


@dataclass(frozen=True)
class LocalEnvironments:
    """See `workspaces.contract.EnvironmentCache`."""

    folder: Path

    def list(self) -> Sequence[KeptEnvironment]:
        try:
            places = [one for one in self.folder.iterdir() if one.is_dir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(map(_kept, places), key=lambda one: one.used_at, reverse=True)

    def remove(self, environment: str) -> None:
        place = self.folder / environment
        try:
            with _held(place.with_name(f"{environment}.lock"), f"environment {environment} is being made"):
                with _held(place / USED_FILE, f"environment {environment} is used by a run"):
                    (place / READY_FILE).unlink(missing_ok=True)  # from here on it does not count
                    remove_tree(place)
                for left in self.folder.glob(f"{environment}-*.resolved"):
                    left.unlink(missing_ok=True)
                place.with_name(f"{environment}.lock").unlink(missing_ok=True)
        except OSError as error:
            raise RightsError(f"cannot remove {place}: {error.strerror}", hint=f"remove it by hand: {place}") from error


@contextmanager
def _held(path: Path, otherwise: str) -> Iterator[None]:
    with open_regular(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(otherwise, hint="try again later") from error
        yield


def _kept(place: Path) -> KeptEnvironment:
    ready: dict[str, Any] = {}
    with suppress(OSError, SettingsError):
        found = read_json(place / READY_FILE)
        ready = found if isinstance(found, dict) else {}
    used = place / USED_FILE
    times = [_modified_at(one) for one in (used, place / READY_FILE, place)]
    return KeptEnvironment(
        id=place.name,
        location=str(place / str(ready.get("folder", ""))),
        tool=str(ready.get("tool", "")),
        python=str(ready.get("python", "")),
        packages=len(ready.get("packages") or ()),
        lists=[str(line) for line in ready.get("lists") or ()],
        size_bytes=measured(place)[0],
        used_at=next((time for time in times if time), 0.0),
        is_in_use=_is_in_use(used),
        is_whole=bool(ready),
    )


def _is_in_use(used: Path) -> bool:
    try:
        with used.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # runs share it
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _modified_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
