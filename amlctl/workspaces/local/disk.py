"""What local runs have left on this disk, and how it is freed: containers, logs, environments, caches.

Nothing that an active run uses is freed. Whether there is one is asked again after the thing has been taken out of the
way, since a run that starts meanwhile is recorded before it looks for anything.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from amlctl.core.job import log_names
from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState
from amlctl.core.store_keys import area_of, log_key
from amlctl.errors import Conflict, IntegrityError
from amlctl.localfs.atomic import temporary_near
from amlctl.localfs.disk_use import CACHES, CONTAINERS, ENVIRONMENTS, LOGS, DiskItem, disk_item, folders_in
from amlctl.localfs.folders import remove_tree
from amlctl.localfs.project import Project
from amlctl.runs.records import load_local_record, local_records
from amlctl.stores.contract import Store
from amlctl.stores.directory import DirectoryStore
from amlctl.workspaces.contract import EnvironmentCache
from amlctl.workspaces.local.recovery import is_abandoned, wait_for_supervisor
from amlctl.workspaces.local.run_paths import RunPaths

_CACHES = ("data", "node-stores", "runtimes", "inputs", "cache")
_RECENT_S = 3600.0
"""Values of a node's store that were used so recently are not evicted."""


class LocalDisk:
    """Of one project."""

    def __init__(self, project: Project, environments: EnvironmentCache) -> None:
        self._state_dir = project.state_dir
        self._environments = environments

    def items(self) -> Iterator[DiskItem]:
        active = _active(self._state_dir)
        yield from self._runs({record.run for record in active})
        for env in self._environments.list():
            kept = "used by a run" if env.is_in_use else ""
            place = Path(env.location).parent if env.is_whole else Path(env.location)
            yield DiskItem(ENVIRONMENTS, env.id, place, env.size_bytes, env.used_at, kept)
        busy = f"run {active[0].run} is active" if active else ""
        for name in _CACHES:
            path = self._state_dir / name
            for one in folders_in(path) if name == "node-stores" else [path]:
                if one.is_dir():
                    kept = busy or self._unsaved(one)
                    yield disk_item(CACHES, one, name=one.relative_to(self._state_dir).as_posix(), kept=kept)

    def free(self, item: DiskItem, store: Store) -> str:
        """Why it was not freed; empty where it was. Raises what the store raises, and OSError."""
        if item.kind == LOGS:
            return self._free_run(item, store)
        if item.kind == ENVIRONMENTS:
            try:
                self._environments.remove(item.name)
            except Conflict as error:
                return error.message
            return ""
        if item.kind == CACHES:
            return self._free_cache(item)
        return item.kept

    def _runs(self, active: set[str]) -> Iterator[DiskItem]:
        for folder in folders_in(self._state_dir / "local"):
            run = folder.name
            is_active = run in active or not self._is_final(run)
            if not is_active:
                with suppress(OSError):  # a list also works where locks do not
                    wait_for_supervisor(RunPaths(self._state_dir, run))
            containers = [path for path in folders_in(folder) if path.name.startswith("container")]
            for path in containers:
                kept = "the run is active" if is_active else "its outputs are not in the store"
                yield disk_item(CONTAINERS, path, name=run, kept=kept)
            if not containers:
                yield disk_item(LOGS, folder, kept="the run is active" if is_active else "")

    def _is_final(self, run: str) -> bool:
        with suppress(IntegrityError, OSError):
            record = load_local_record(self._state_dir, run)
            return record is not None and record.is_final
        return False

    def _free_run(self, item: DiskItem, store: Store) -> str:
        run = item.name
        record = load_local_record(self._state_dir, run)
        paths = RunPaths(self._state_dir, run)
        if record is None or not record.is_final or (paths.lock.exists() and not is_abandoned(paths)):
            return "the run is active"
        names = enumerate(log_names(record.spec.process_group.world_size))
        if any(paths.log_of(rank).exists() and store.info(log_key(run, name)) is None for rank, name in names):
            return "its log is not in the store"
        remove_tree(item.path)
        return ""

    def _free_cache(self, item: DiskItem) -> str:
        trash = temporary_near(item.path)
        item.path.rename(trash)
        active = _active(self._state_dir)
        if active and not item.path.exists():
            trash.rename(item.path)
            return f"run {active[0].run} is active"
        remove_tree(trash)
        return ""

    def _unsaved(self, cache: Path) -> str:
        """A node's store has what a run has put out until the store on the network has it."""
        runs = folders_in(cache / "runs") if cache.parent.name == "node-stores" else []
        left = [path.name for path in runs if any(path.rglob("*"))]
        return f"results of run {left[0]} are not in the store" if left else ""


def keep_within(state_dir: Path, limit_bytes: int, *, starting: str) -> None:
    """Evict what stores on the network have left here, the least recently used first. Nothing while a run is
    active that may use it, but for the one that is `starting`."""
    if any(record.run != starting for record in _active(state_dir)):
        return
    values = []
    for folder in folders_in(state_dir / "node-stores"):
        node = DirectoryStore(folder)
        values += [(entry.modified_at, entry.size_bytes, entry.key, node) for entry in node.list("")]
    excess = sum(size_bytes for _, size_bytes, _, _ in values) - limit_bytes
    for used_at, size_bytes, key, node in sorted(values, key=lambda value: value[:3]):
        if excess <= 0 or used_at > time.time() - _RECENT_S:
            return
        if area_of(key).is_immutable:
            node.delete(key)
            excess -= size_bytes


def _active(state_dir: Path) -> list[RunRecord]:
    """Runs on this machine, those that are about to start too."""
    here = {path.name for path in folders_in(state_dir / "local")}
    found = [one for one in local_records(state_dir) if not one.is_final]
    return [one for one in found if one.run in here or one.status == RunState.NOT_STARTED]
