"""Runs whose supervisor is dead: noticed by whoever reads them, ended, and shown as what they are.

The supervisor holds the run's lock from before the run is known until its record is final. So a record that is
not final and a lock that is free mean that nobody looks after the run.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from amlctl.core.events import EventSink, Warned, null_sink
from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState
from amlctl.errors import AmlctlError, IntegrityError, SettingsError
from amlctl.localfs.atomic import read_json
from amlctl.runs import local_records as run_records
from amlctl.runs.documents import load_record
from amlctl.runtime.log_pump import wait_until_written_out
from amlctl.runtime.node_processes import read_end
from amlctl.runtime.script import OUTPUTS_VARIABLE
from amlctl.stores.contract import Store
from amlctl.workspaces.local import records
from amlctl.workspaces.local.cgroup import find_cgroup
from amlctl.workspaces.local.ending import Clock, Ending, finish
from amlctl.workspaces.local.places import RunPlaces
from amlctl.workspaces.local.processes import ProcessIdentity, end_session, is_alive
from amlctl.workspaces.local.reserve import machine_error

_START_LIMIT_S = 5.0
_LOOK_S = 0.01
"""A supervisor that has just been started says within moments who it is; so long a reader waits for that."""
_KILLED = 137
"""128 + SIGKILL: what a script ends with that outlived its supervisor, and is killed here."""


def recover(
    places: RunPlaces, store: Store, clock: Clock, sink: EventSink = null_sink, *, workspace: str | None = None
) -> RunRecord | None:
    """The record as it is; where nobody looks after the run, its processes are ended and it is Failed first.
    The record of a run of another workspace than `workspace`, where one is given, is left as it is.

    Of several readers at once one does it and the others wait for it. None without a record. A damaged working
    copy is named to `sink` and replaced by the store's. Raises IntegrityError where neither can be read.
    """
    record = _load(places, store, sink)
    if record is None or record.is_final or workspace not in (None, record.spec.workspace):
        return record
    with taken_over(places) as is_ours:
        if not is_ours:
            return _load(places, store, null_sink)
        record = _load_held(places, store)
        if record is None or record.is_final:
            return record
        ended = _stored_end(places, store)
        if ended is not None:  # its supervisor was killed between the two copies of the final record
            with suppress(OSError):
                run_records.save(places.state_dir, ended)
            return ended
        leader, were_killed = read_leader(places), 0
        if leader is not None:
            were_killed = end_session(leader, variables=_script_variables(places, record))
            if (cgroup := find_cgroup(places)) is not None:
                cgroup.end()
            for rank in range(record.spec.layout.world_size):
                wait_until_written_out(str(places.log_of(rank)))
        exit_code = _exit_code(places, record)
        if exit_code is None and were_killed and RunState.RUNNING in record.times:
            exit_code = _KILLED
        reason = _reason(leader, record)
        ending = Ending(RunState.FAILED, exit_code, "supervisor", reason)
        try:
            return finish(places, store, record, ending, clock)
        except OSError as error:
            # On a full disk the run is shown as what it is all the same; the next look tries again to record it.
            trouble = machine_error(places, error).message
            record.error = {"kind": "supervisor", "message": f"{reason}, and that cannot be recorded: {trouble}"}
            record.reached(RunState.FAILED, clock())
            return record


def _load(places: RunPlaces, store: Store, sink: EventSink) -> RunRecord | None:
    """Also of a run that ended while it was handed over, before there was a working copy."""
    try:
        record = records.load_copy(places)
    except IntegrityError as error:
        record = records.load(places, store)
        sink(Warned(f"{error.message}; it was taken from the store again"))
        with taken_over(places) as is_ours:
            if is_ours or not places.lock.exists():
                return _load_held(places, store)
    return load_record(store, places.run) if record is None and places.lock.exists() else record


def _load_held(places: RunPlaces, store: Store) -> RunRecord | None:
    """The same for the holder of the lock, who puts a damaged working copy right."""
    with suppress(OSError):
        records.restore_copy(places, store)
    record = records.load(places, store)
    return load_record(store, places.run) if record is None else record


def _stored_end(places: RunPlaces, store: Store) -> RunRecord | None:
    try:
        stored = load_record(store, places.run)
    except AmlctlError:
        return None
    return stored if stored is not None and stored.is_final else None


@contextmanager
def taken_over(places: RunPlaces) -> Iterator[bool]:
    """Hold the run's lock, if nobody who is alive looks after the run; says whether it is held."""
    try:
        descriptor = _open_lock(places)
    except (FileNotFoundError, NotADirectoryError):
        yield False
        return
    try:
        yield _lock(descriptor, places)
    finally:
        os.close(descriptor)


def _open_lock(places: RunPlaces) -> int:
    try:
        return os.open(places.lock, os.O_RDWR)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        return os.open(places.lock, os.O_RDONLY)  # who may only read the project sees how the run ended as well


def is_abandoned(places: RunPlaces) -> bool:
    """Whether nobody holds the run's lock."""
    with taken_over(places) as is_ours:
        return is_ours


def read_leader(places: RunPlaces) -> ProcessIdentity | None:
    """The run's supervisor; None where it has not said yet who it is, and so has started nothing."""
    try:
        return ProcessIdentity.from_json(read_json(places.supervisor))
    except (FileNotFoundError, SettingsError, KeyError, TypeError, ValueError):
        return None


def _lock(descriptor: int, places: RunPlaces) -> bool:
    deadline = time.monotonic() + _START_LIMIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            leader = read_leader(places)
        if leader is not None:
            break
        if time.monotonic() >= deadline:
            return False
        time.sleep(_LOOK_S)
    if is_alive(leader):
        return False
    # The supervisor is dead, so the holder is another reader that is finishing the run right now.
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return True


def _script_variables(places: RunPlaces, record: RunRecord) -> list[str]:
    """By which what the script has started can be known, whatever sessions it has made."""
    return [f"{OUTPUTS_VARIABLE}={places.node_folders(node).outputs_dir}" for node in range(record.spec.instances)]


def _exit_code(places: RunPlaces, record: RunRecord) -> int | None:
    """What the first script to fail has noted, or all that have ended well; None where nothing is known."""
    folders = [places.node_folders(node).state_dir for node in range(record.spec.instances)]
    ends = [end for folder in folders for local in range(record.spec.processes) if (end := read_end(folder, local))]
    failed = sorted((end.ended_ns, end.exit_code) for end in ends if end.exit_code)
    if failed:
        return failed[0][1]
    return 0 if len(ends) == record.spec.layout.world_size else None


def _reason(leader: ProcessIdentity | None, record: RunRecord) -> str:
    process = f" (process {leader.pid})" if leader is not None else ""
    return f"the supervisor of the run{process} was killed, or died, while the run was {record.status}"
