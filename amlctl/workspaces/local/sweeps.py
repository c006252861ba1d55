"""Sweeps on this machine: a parent without a process, and its runs in lanes.

A run starts the next one when it has ended, in as many lanes as may run at a time, so a sweep continues as long as one
of its supervisors lives. The state of the parent follows from its runs, whenever it is read. The process that makes the
folder of a run first starts it; a cancel makes those of all runs that have not started.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState, is_final
from amlctl.core.store_keys import record_key
from amlctl.core.sweep import ending
from amlctl.errors import AmlctlError, NotFound, StoreGone
from amlctl.localfs.atomic import remove_at_once
from amlctl.localfs.folders import make_private_folder, touch_private
from amlctl.localfs.locks import is_held
from amlctl.localfs.machine import utc_now
from amlctl.localfs.project import Project
from amlctl.runs.records import load_either, load_record, save_both
from amlctl.stores.contract import Store
from amlctl.workspaces.local.run_paths import RunPaths, make_folder, paths_of
from amlctl.workspaces.local.starting import SupervisorSettings


class Sweep:
    """One parent. `read` and `cancel` are those of its workspace."""

    def __init__(
        self,
        paths: RunPaths,
        store: Store,
        read: Callable[[str], RunRecord],
        cancel: Callable[[str], None],
    ) -> None:
        self._paths = paths
        self._store = store
        self._read = read
        self._cancel = cancel

    def start(
        self, parent: RunRecord, children: Sequence[RunRecord], lanes: int, start: Callable[[RunRecord], None]
    ) -> None:
        """Record all, and start the first of each lane. If one cannot be started, the others are not, either.

        Raises OSError, and what `start` raises.
        """
        lock = make_folder(self._paths, self._paths.sweep_lock)
        if lock is None:
            return
        try:
            parent.reached(RunState.RUNNING, utc_now())
            for record in (parent, *children):
                if (failure := save_both(self._paths.state_dir, self._store, record)) is not None:
                    raise failure
            try:
                for child in children[:lanes]:
                    start(child)
            except BaseException:
                self.cancel(parent)
                raise
        finally:
            os.close(lock)
        self._with_end(parent)

    def start_next(self, parent: RunRecord, start: Callable[[RunRecord], None]) -> None:
        """The next run that has not started; after the last one the parent is finished."""
        for run in self._waiting(parent):
            record = load_either(self._paths.state_dir, self._store, run)
            with suppress(AmlctlError):  # which is recorded as its end
                if record is not None:
                    start(record)
                    return
        self._with_end(self._with_states(parent))

    def present(self, parent: RunRecord) -> RunRecord:
        """As it is now. Where all supervisors were ended, the runs that are left are recorded as canceled."""
        seen = self._with_states(parent)
        waiting = self._waiting(seen)  # one that has ended may be without its folder, too: see `clean --logs`
        if not waiting or self._is_continued(seen, waiting):
            return self._with_end(seen)
        stored = {run: record.status for run in waiting if (record := load_record(self._store, run)) is not None}
        if set(stored.values()) - {RunState.NOT_STARTED}:  # by the project that this one was copied from
            found = [{**one, "status": stored.get(one["run"], one["status"])} for one in seen.children]
            return self._with_end(replace(seen, children=found))
        self._cancel_all(waiting)
        return self._with_end(self._with_states(seen), reason="the supervisors of its runs were ended: ")

    def _is_continued(self, parent: RunRecord, waiting: Sequence[str]) -> bool:
        """Whether a lane will start the runs that wait. One starts a run before it gives up the lock of its last."""
        if not self._paths.folder.exists() or is_held(self._paths.sweep_lock):
            return True  # it was started elsewhere, or is being started
        started = [one for one in parent.children if one["run"] not in waiting]
        if any(not is_final(one["status"]) or is_held(self._of(one["run"]).lock) for one in started):
            return True
        return self._waiting(parent) != waiting

    def _with_end(self, parent: RunRecord, *, reason: str = "") -> RunRecord:
        """With its end, if all of its runs have ended; recorded where it was started."""
        found = ending(parent.children)
        if found is None:
            return parent
        state, error = found
        if state is not RunState.COMPLETED and self._paths.cancel_request.exists():
            state = RunState.CANCELED
        elif reason:
            state = RunState.FAILED
        parent.error = None if error is None else {**error, "message": reason + error["message"]}
        parent.reached(state, utc_now())
        if self._paths.folder.exists():
            with suppress(StoreGone):  # the next reader records it, when the store is back
                self._store.info(record_key(parent.run))
                save_both(self._paths.state_dir, self._store, parent)
                remove_at_once(self._paths.folder)
        return parent

    def cancel(self, parent: RunRecord) -> None:
        """The last ones first, so that no lane starts another one meanwhile."""
        make_private_folder(self._paths.folder)  # where it was recorded but never handed over
        touch_private(self._paths.cancel_request)
        self._cancel_all([one["run"] for one in reversed(parent.children) if not is_final(one["status"])])

    def _cancel_all(self, runs: Sequence[str]) -> None:
        for run in runs:
            with suppress(NotFound):
                self._cancel(run)

    def _with_states(self, parent: RunRecord) -> RunRecord:
        return replace(parent, children=[self._with_state(one) for one in parent.children])

    def _with_state(self, child: Mapping[str, str]) -> dict[str, str]:
        if is_final(child["status"]):
            return dict(child)
        try:
            status = self._read(child["run"]).status
        except NotFound:  # it was deleted, which takes an end
            status = RunState.CANCELED
        return {**child, "status": status}

    def _waiting(self, parent: RunRecord) -> list[str]:
        """Those that have not started."""
        runs = [one["run"] for one in parent.children if not is_final(one["status"])]
        return [run for run in runs if not self._of(run).folder.exists()]

    def _of(self, run: str) -> RunPaths:
        return paths_of(self._paths.state_dir, run)


def continue_sweep(settings: SupervisorSettings, store: Store, record: RunRecord, variables: Mapping[str, str]) -> None:
    """After a run of a sweep, in its supervisor, which was given `variables`."""
    from amlctl.core.settings import WorkspaceSettings
    from amlctl.workspaces.local.workspace import LocalWorkspace  # here, since it imports this module

    workspace = LocalWorkspace(
        Project(Path(settings.state_dir).parent),
        WorkspaceSettings(record.spec.workspace),
        store,
        environments_dir=Path(settings.environments_dir),
        variables=variables,
        timing=settings.timing,
    )
    workspace.start_next(record)
