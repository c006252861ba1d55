"""What a submit takes from an earlier run: its record, its code, its data. The run may be one of another workspace,
and then what the store of this one lacks is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from amlctl.core.events import Note
from amlctl.core.run import RunRecord
from amlctl.operations.context import Context
from amlctl.operations.runs import RunAt, resolve_run
from amlctl.operations.submit.run_spec import Pinned, RunSpec
from amlctl.parallel import ended_by_interrupt
from amlctl.runs.copies import copy_code, copy_snapshot
from amlctl.stores.contract import Store

FindRun = Callable[[str], RunAt]
"""From RUN as it was typed. Raises NotFound, UsageError."""


def run_to_repeat(reference: str, context: Context, find_run: FindRun | None) -> tuple[RunRecord, Store]:
    """Its record and the store that it used; without `find_run` it is looked for in this workspace. Raises NotFound."""
    if find_run is None:
        return context.workspace.read(resolve_run(context.workspace, reference)), context.store
    found = find_run(reference)
    return found.context.workspace.read(found.run), found.context.store


def copy_from(origin: Store, context: Context, spec: RunSpec) -> Mapping[str, Pinned]:
    """Code and snapshots of the spec from `origin` into `store`; the snapshots as they are named there.

    Raises NotFound, IntegrityError, Conflict, ServiceUnavailable.
    """
    store, project = context.store, context.project
    context.sink(
        Note(f"code and data of run {spec.from_run}: copied from {origin.url}, as far as {store.url} lacks them")
    )
    project.ensure_state_dir()
    with ended_by_interrupt(origin, store):
        if spec.code is not None:
            copy_code(origin, store, spec.code)
        return {
            dataset: replace(
                pinned, manifest_key=copy_snapshot(origin, store, pinned.manifest_key, scratch=project.state_dir)
            )
            for dataset, pinned in spec.pinned.items()
        }
