"""What a supervisor has left to the next reader of its run, and runs whose supervisor is elsewhere.

If it is dead, the run's processes are ended and the run is recorded as Failed. If the store could
not be written to at the end of the run (it was gone, or the network, or the login), the run is Failed until it can;
then outputs, log and record are saved there, and the run ends as its script did.

The supervisor holds the run's lock from before the run is known until its record is final. So a record that is not
final and a free lock mean that the supervisor is dead, or that the project was copied: its lock is another file, then.
The supervisor led a session, to which most of what it started belongs. What has made a session of its own has an
ancestor there, or has inherited the variables of the run's script. While one member of a session lives the system gives
the session's number to no other process, so the members are found when the leader is dead.

Runs of a shared store that another project has started, on this machine or on another one, cannot be ended from here,
and what their supervisors write comes to the store whatever others write there. So they are read, and left alone until
they have ended. One whose project is lost never ends; nothing of it changes any more.
"""

from __future__ import annotations

import copy
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING

from amlctl.core.events import EventSink, Warned, null_sink
from amlctl.core.message import Command, Message
from amlctl.core.run import RunRecord
from amlctl.core.run_id import parent_of
from amlctl.core.run_state import RunState
from amlctl.core.store_keys import RUNS, record_key, run_prefix
from amlctl.errors import AmlctlError, Conflict, IntegrityError, SettingsError, StoreGone
from amlctl.localfs.atomic import read_json
from amlctl.localfs.locks import try_lock
from amlctl.localfs.machine import ProcessIdentity, read_identity, utc_now
from amlctl.localfs.regular_file import open_regular, regular_descriptor
from amlctl.runs.known import read_order
from amlctl.runs.records import load_either, load_local_record, load_record
from amlctl.runtime.log_pump import wait_until_written_out
from amlctl.runtime.process_tree import end_session, is_alive
from amlctl.runtime.script import OUTPUTS_VARIABLE
from amlctl.stores.contract import Store
from amlctl.workspaces.local.rank_processes import find_cgroup
from amlctl.workspaces.local.run_paths import RunPaths, machine_error

if TYPE_CHECKING:
    from amlctl.workspaces.local.ending import Ending

_START_LIMIT_S = 5.0
"""How long a reader waits for the identity of a supervisor that has just been started."""
_POLL_S = 0.01
_KILLED = 137
"""128 + SIGKILL: exit code of a script that outlived its supervisor and is killed here."""


def recover(
    paths: RunPaths, store: Store, sink: EventSink = null_sink, *, workspace: str | None = None
) -> RunRecord | None:
    """The record; where the run's supervisor is dead, its processes are ended and it is recorded as Failed first.
    The record of a run of another workspace than `workspace`, where one is given, is returned as it is.

    Of several readers at once one does it and the others wait for it. None without a record. A damaged local record is
    reported to `sink` and replaced by the store's. Raises IntegrityError where neither can be read.
    """
    record = _load(paths, store, sink)
    if record is None or workspace not in (None, record.spec.workspace) or not record.may_change:
        return record
    if record.is_final and (record.error or {}).get("kind") != StoreGone.kind and not paths.ending.exists():
        return record
    with taken_over(paths) as is_ours:
        if not is_ours:
            return (is_copy(paths) and _stored(paths, store)) or _load(paths, store, null_sink)
        record = _load_held(paths, store)
        stored = _stored(paths, store)
        from amlctl.workspaces.local.ending import Ending, accept_end, finish, read_ending  # here, since it is rare

        if stored is not None and stored.is_final:
            with suppress(OSError):
                accept_end(paths, store, stored)
            return stored
        if record is None or (record.is_final and stored is None):
            return record

        ending, earlier = read_ending(paths), None
        if stored is not None and record.is_final:  # no one else has seen an end
            earlier = copy.deepcopy(record)
            message = (record.error or {}).get("message", "")
            ending = ending or Ending(RunState.FAILED, record.exit_code, StoreGone.kind, message)
            record.status, record.error = stored.status, None
            record.times.pop(RunState.FAILED, None)
        ending = ending or _end_processes(paths, record)
        try:
            return finish(paths, store, record, ending, earlier=earlier)
        except OSError as error:
            if (stored := _stored(paths, store)) is not None and stored.is_final:
                return stored
            # On a full disk the run is shown as Failed all the same; the next reader tries to record it again.
            why = machine_error(paths, error).message
            message = f"{ending.message or 'the script has ended'}, and that cannot be recorded: {why}"
            record.error = {"kind": ending.kind or "unavailable", "message": message}
            record.reached(RunState.FAILED, utc_now())
            return record


def _end_processes(paths: RunPaths, record: RunRecord) -> Ending:
    """How the run ends whose supervisor is dead."""
    from amlctl.workspaces.local.ending import Ending, script_exit_code  # here, since it is rare

    leader, were_killed = read_leader(paths), 0
    if leader is not None:
        were_killed = end_session(leader, variables=_script_variables(paths, record))
        if (cgroup := find_cgroup(paths)) is not None:
            cgroup.end()
        for rank in range(record.spec.process_group.world_size):
            wait_until_written_out(str(paths.log_of(rank)))
    exit_code = script_exit_code(paths, record)
    if exit_code is None and were_killed and RunState.RUNNING in record.times:
        exit_code = _KILLED
    return Ending(RunState.FAILED, exit_code, "supervisor", _reason(paths, leader, record))


def _load(paths: RunPaths, store: Store, sink: EventSink) -> RunRecord | None:
    """Also of a run that ended while it was handed over, before there was a local record."""
    try:
        record = load_local_record(paths.state_dir, paths.run)
    except IntegrityError as error:
        record = load_either(paths.state_dir, store, paths.run)
        sink(Warned(f"{error.message}; using the store's copy"))
        with taken_over(paths) as is_ours:
            if is_ours or not paths.lock.exists():
                return _load_held(paths, store)
    return load_record(store, paths.run) if record is None and paths.lock.exists() else record


def _load_held(paths: RunPaths, store: Store) -> RunRecord | None:
    """The same for the holder of the lock, which repairs a damaged local record."""
    record = load_either(paths.state_dir, store, paths.run, is_repair=True)
    return load_record(store, paths.run) if record is None else record


def _stored(paths: RunPaths, store: Store) -> RunRecord | None:
    """None where the store does not answer, too."""
    try:
        return load_record(store, paths.run)
    except AmlctlError:
        return None


@contextmanager
def taken_over(paths: RunPaths) -> Iterator[bool]:
    """Hold the run's lock, if its supervisor is dead; gives whether it is held."""
    try:
        descriptor = _open_lock(paths)
    except (FileNotFoundError, NotADirectoryError):
        yield False
        return
    try:
        yield _lock(descriptor, paths) and not is_copy(paths)
    finally:
        os.close(descriptor)


def _open_lock(paths: RunPaths) -> int:
    try:
        return regular_descriptor(paths.lock, os.O_RDWR)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        return regular_descriptor(paths.lock, os.O_RDONLY)  # a read-only project still shows how the run ended


def is_copy(paths: RunPaths) -> bool:
    """Whether the project was copied while the run was active, which is still supervised where it was started."""
    leader = read_leader(paths)
    return leader is not None and _was_copied(paths) and is_alive(leader)


def _was_copied(paths: RunPaths) -> bool:
    """The lock of a copy is another file than the one that the supervisor holds."""
    try:
        lock = paths.lock.stat().st_ino
        return bool(read_json(paths.supervisor).get("lock", lock) != lock)
    except (OSError, SettingsError, AttributeError):
        return False


def _was_moved(paths: RunPaths) -> bool:
    """The folder in which the supervisor has started is gone. By another name (a link) it would still be there."""
    try:
        return not os.path.lexists(read_json(paths.supervisor).get("folder", paths.folder))
    except (OSError, SettingsError, AttributeError, TypeError, ValueError):
        return False


def is_abandoned(paths: RunPaths) -> bool:
    """Whether no process holds the run's lock."""
    with taken_over(paths) as is_ours:
        return is_ours


def wait_for_supervisor(paths: RunPaths) -> None:
    """After the final record it still removes the container."""
    with suppress(FileNotFoundError), open_regular(paths.lock) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def read_leader(paths: RunPaths) -> ProcessIdentity | None:
    """The run's supervisor; None where it has not written its identity yet, and so has started nothing."""
    try:
        return read_identity(read_json(paths.supervisor))
    except (FileNotFoundError, SettingsError):
        return None


def _lock(descriptor: int, paths: RunPaths) -> bool:
    deadline = time.monotonic() + _START_LIMIT_S
    while True:
        if try_lock(descriptor):
            return True
        if (leader := read_leader(paths)) is not None:
            break
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    if is_alive(leader):
        return False
    # The supervisor is dead, so the holder is another reader, which is ending the run.
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return True


def _script_variables(paths: RunPaths, record: RunRecord) -> list[str]:
    """By which processes that the script has started are recognized, in any session."""
    return [f"{OUTPUTS_VARIABLE}={paths.node_folders(node).outputs_dir}" for node in range(record.spec.instances)]


def _reason(paths: RunPaths, leader: ProcessIdentity | None, record: RunRecord) -> str:
    if _was_copied(paths):
        return f"the project was copied here while the run was {record.status}, so how it ended is not known here"
    if _was_moved(paths):
        return f"the project was moved while the run was {record.status}, and its processes lost their folders"
    process = f" (process {leader.process})" if leader is not None else ""
    return f"the supervisor of the run{process} was killed, or crashed, while the run was {record.status}"


QUIET_DAYS = 30


def is_elsewhere(paths: RunPaths) -> bool:
    """A run that was made here has a record, or a folder, or, as long as it was not handed over, its place in the
    order of runs; so it has in a copy of the project."""
    if is_copy(paths):
        return True
    if paths.record.exists() or paths.folder.exists():
        return False
    return not {paths.run, parent_of(paths.run)[0]} & {*read_order(paths.state_dir)}


def refuse_cancel(record: RunRecord) -> Conflict:
    return Conflict(
        f"run {record.run} is {record.status} in another project folder, where "
        f"{record.made_by or 'another machine'} has started it",
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
