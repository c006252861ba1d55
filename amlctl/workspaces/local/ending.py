"""How a run ends: why, and what is done from the end of its last process to its final record.

In order: leftover processes, outputs (unless the runtime has saved them), HEAD of what it produced, log, record.
The record comes last: whoever reads a final state finds all of it in the store.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from amlctl.core.events import Event, Note
from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState
from amlctl.errors import AmlctlError, Conflict
from amlctl.localfs.folders import remove_tree
from amlctl.runs.keys import first_outputs_prefix, outputs_index_key, outputs_prefix
from amlctl.runs.produced import make_newest
from amlctl.runs.records import read_published, save_both
from amlctl.runs.tree_saver import TreeSaver
from amlctl.stores.contract import Store
from amlctl.stores.directory import DirectoryStore
from amlctl.workspaces.local.logs import SavedLogs, say
from amlctl.workspaces.local.node_files import forget_run, give_back, is_folder, node_store
from amlctl.workspaces.local.run_paths import RunPaths, give_room

Clock = Callable[[], datetime]


@dataclass(frozen=True)
class Ending:
    """The final state, the exit code (of the script where it ran), and the reason, empty for Completed.

    `is_told`: the log says it already, or it is the script's own matter.
    """

    state: RunState
    exit_code: int | None = None
    kind: str = ""
    message: str = ""
    hint: str = ""
    is_told: bool = False

    @property
    def error(self) -> dict[str, str] | None:
        """As a record has it."""
        if not self.message:
            return None
        return {"kind": self.kind, "message": self.message, **({"hint": self.hint} if self.hint else {})}


def failed(error: AmlctlError, *, kind: str = "") -> Ending:
    """The ending of a run whose script never came to run."""
    return Ending(RunState.FAILED, None, kind or error.kind, error.message, error.hint)


def ending_of(return_code: int, failure: Mapping[str, Any] | None, *, who: str = "the script") -> Ending:
    """What the runtime's end means; `failure` is what it told of itself, `who` the script of which rank it was."""
    if failure is not None:
        kind, message, hint = (str(failure.get(key, "")) for key in ("kind", "message", "hint"))
        return Ending(RunState.FAILED, return_code, kind, message, hint, is_told=True)
    if return_code == 0:
        return Ending(RunState.COMPLETED, 0)
    if return_code < 0:
        told = f"the run's processes were killed by {_signal_name(-return_code)}"
        return Ending(RunState.FAILED, 128 - return_code, "killed", told)
    name = _signal_name(return_code - 128)
    told = f"{who} was killed by {name}" if name else f"{who} ended with exit code {return_code}"
    return Ending(RunState.FAILED, return_code, "script", told, is_told=True)


def _signal_name(number: int) -> str:
    """`signal 9 (SIGKILL)`; empty for a number that is no signal."""
    try:
        name = f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return ""
    return name + ("; perhaps the machine ran out of memory" if number == signal.SIGKILL else "")


def finish(
    paths: RunPaths,
    store: Store,
    record: RunRecord,
    ending: Ending,
    clock: Clock,
    *,
    logs: SavedLogs | None = None,
) -> RunRecord:
    """Keep what the run has left and make its record final. None of its processes may be alive any more.

    Only the holder of the run's lock may call it; doing it again after a kill does no harm.
    """
    node_folder = node_store(store, paths.state_dir)
    record.reached(RunState.FINALIZING, clock())
    with contextlib.suppress(OSError):  # a full disk: outputs come first, and room is kept for the end
        save_both(paths.state_dir, store, record)
    is_kept = True
    try:
        for node in range(record.instances):
            is_kept = _keep_outputs(paths, store, node) and is_kept
        if ending.state is RunState.COMPLETED:
            ending = _move_heads(paths, store, node_folder, record, ending)
    except (AmlctlError, OSError) as error:
        is_kept = False
        told = f"what the run has left could not be kept: {error}"
        kind = error.kind if isinstance(error, AmlctlError) else "unavailable"
        ending = Ending(RunState.FAILED, ending.exit_code, kind, f"{ending.message}; {told}".removeprefix("; "))
    give_room(paths)
    if ending.message and not ending.is_told:
        hint = f" ({ending.hint})" if ending.hint else ""
        say(paths.log, f"{ending.state.value}: {ending.message}{hint}")
    try:
        (logs or SavedLogs(store, paths, record)).save()
    except (AmlctlError, OSError) as error:
        say(paths.log, f"the log could not be put into the store: {error}")
    record.exit_code = ending.exit_code
    record.error = ending.error
    record.reached(ending.state, clock())
    save_both(paths.state_dir, store, record)
    if is_kept:
        # Everything that matters is in the store; the container would only fill the disk.
        for node in range(record.instances):
            remove_tree(paths.container_of(node), ignore_errors=True)
        if not is_folder(store):
            forget_run(node_folder, record.run)
    return record


def outputs_saver(paths: RunPaths, store: Store, node: int) -> TreeSaver:
    """Raises RightsError, ServiceUnavailable."""
    return TreeSaver(
        store,
        paths.node_folders(node).outputs_dir,
        outputs_prefix(paths.run, node),
        outputs_index_key(paths.run, node),
        first_prefix=first_outputs_prefix(paths.run, node),
    )


def _keep_outputs(paths: RunPaths, store: Store, node: int) -> bool:
    """What the runtime does itself, unless it was killed, the store failed it, or its store is a stand-in; the list
    is there in any case. False where a file could not be kept."""
    folders = paths.node_folders(node)
    if folders.saved_marker.exists() and is_folder(store):
        return True
    if folders.outputs_dir.is_dir() or store.info(outputs_index_key(paths.run, node)) is None:
        saver = outputs_saver(paths, store, node)
        saver.save(is_last=True)
        for line in saver.not_kept():
            say(paths.log, line)
        if saver.refused:
            say(paths.log, f"what could not be kept is only in {folders.outputs_dir}")
        return not saver.refused
    return True


def _move_heads(paths: RunPaths, store: Store, node: DirectoryStore, record: RunRecord, ending: Ending) -> Ending:
    """The ending, with the reason where a produced snapshot could not become the newest one."""

    def tell(event: Event) -> None:
        if isinstance(event, Note):
            say(paths.log, event.message)

    published = read_published(node, record.run)
    if not is_folder(store):
        give_back(node, store, record.run, published)
    for dataset, place in published.items():
        base = record.heads.get(dataset)
        try:
            newest = make_newest(store, dataset, str(place["manifest_key"]), base, source=node, sink=tell)
            record.published[dataset] = newest.snapshot
        except Conflict as error:
            message = f"{ending.message}; {error.message}".removeprefix("; ")
            hint = f"{ending.hint}; {error.hint}".removeprefix("; ")
            ending = replace(ending, kind=error.kind, message=message, hint=hint)
    return ending
