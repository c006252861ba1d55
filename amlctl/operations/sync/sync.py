"""Make the store hold what a dataset's folder holds now.

Order of writing: bytes, then manifest, then HEAD under a condition. A sync that loses the race for HEAD plans again on
the new one. Three-way: changes that another machine has synced since are kept; where both changed the same file it is a
Conflict, unless `ours` or `theirs` decides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from amlctl.core.events import Note
from amlctl.core.store_keys import FORMAT_KEY, check_dataset_name, lease_key
from amlctl.localfs.machine import passed_s
from amlctl.mirror.plain_files import MirrorLease
from amlctl.operations.context import Context
from amlctl.operations.sync.attempt import SyncAttempt
from amlctl.operations.sync.dataset_state import local_state, look_at
from amlctl.operations.sync.merge import new_store_confirmed
from amlctl.operations.sync.repair import repair_format
from amlctl.operations.sync.result import Measure
from amlctl.operations.sync.result import SyncOptions as SyncOptions
from amlctl.operations.sync.result import SyncResult as SyncResult
from amlctl.parallel import ended_by_interrupt
from amlctl.snapshots.heads import HeadMoved
from amlctl.snapshots.known import ValuesLost

_TRIES = 8
"""Times that a sync plans again because another writer has moved HEAD."""


def sync(context: Context, dataset: str, options: SyncOptions, *, clock: Callable[[], float] = passed_s) -> SyncResult:
    """By `clock`, in seconds, the lease of a mirror runs out.

    Raises NotFound (no such folder), Conflict, RightsError (unreadable files), IntegrityError, and what the store
    raises.
    """
    check_dataset_name(dataset)
    store, sink = context.store, context.sink
    measure = Measure(store)
    with (
        new_store_confirmed(store, options.command(dataset), options),
        MirrorLease(store, lease_key(dataset), sink, clock=clock) as lease,
        local_state(context, f"amlctl sync {dataset}") as state,
    ):
        if options.repair and repair_format(store):
            sink(Note(f"{FORMAT_KEY} of {store.url} was damaged: repaired"))
        lost: set[str] = set()
        for attempt in range(_TRIES):
            try:
                with ended_by_interrupt(store):
                    result = SyncAttempt(look_at(context, dataset, options, state), lease, lost=lost).run()
                break
            except ValuesLost as error:
                if attempt == _TRIES - 1:
                    raise
                lost.update(error.contents)
                sink(Note(f"{dataset}: the store has lost some of what was reused or sent; sending it again"))
            except HeadMoved:
                if attempt == _TRIES - 1:
                    raise
                sink(Note(f"{dataset}: another machine has synced at the same time; planning again"))
    return measure.taken(replace(result, uploaded_bytes=measure.sent_bytes))


def dry_run(context: Context, dataset: str, options: SyncOptions) -> SyncResult:
    """What `sync` would do, from the same plan; `uploaded_bytes` is the content that would be sent."""
    check_dataset_name(dataset)
    store = context.store
    measure = Measure(store)
    lease = MirrorLease(store, lease_key(dataset), context.sink)
    with (
        new_store_confirmed(store, options.command(dataset), options),
        local_state(context, f"amlctl sync --dry-run {dataset}", is_reading=True) as state,
        ended_by_interrupt(store),
    ):
        result = SyncAttempt(look_at(context, dataset, options, state), lease).run(is_dry_run=True)
    return measure.taken(result, is_dry_run=True)
