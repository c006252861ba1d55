"""Runs of a shared store that another project has started, on this machine or on another one.

Their processes cannot be ended from here, and what their supervisors write comes to the store whatever others write
there. So they are read, and left alone until they have ended. One whose project is lost never ends; nothing of it
changes any more.
"""

from __future__ import annotations

from datetime import datetime

from amlctl.core.message import Command, Message
from amlctl.core.run import RunRecord
from amlctl.core.run_id import parent_of
from amlctl.core.store_keys import RUNS, record_key, run_prefix
from amlctl.errors import Conflict
from amlctl.runs.known import read_order
from amlctl.stores.contract import Store
from amlctl.workspaces.local.run_paths import RunPaths

QUIET_DAYS = 30


def is_elsewhere(paths: RunPaths) -> bool:
    """A run that was made here has a record, or a folder, or, as long as it was not handed over, its place in the
    order of runs."""
    if paths.record.exists() or paths.folder.exists():
        return False
    return not {paths.run, parent_of(paths.run)[0]} & {*read_order(paths.state_dir)}


def refuse_cancel(record: RunRecord) -> Conflict:
    where = "@".join(filter(None, (record.user, record.host))) or "another machine"
    return Conflict(
        f"run {record.run} is {record.status} in another project folder, where {where} has started it",
        hint=Message("cancel it there: ", Command("cancel", record.run)),
    )


def is_quiet(store: Store, run: str, now: datetime) -> bool:
    """Whether nothing of the run has changed for a long time; nor of its sweep, in which it may be waiting."""
    limit_s = now.timestamp() - QUIET_DAYS * 86400
    record = store.info(record_key(run))
    if record is not None and record.modified_at > limit_s:
        return False  # which saves the listings
    family = parent_of(run)[0] or run
    runs = [one for one in store.folders(RUNS) if one == family or parent_of(one)[0] == family]
    return all(entry.modified_at <= limit_s for one in runs for entry in store.list(run_prefix(one)))
