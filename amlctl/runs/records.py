"""Records of runs: in the store (`runs/<id>/record.json`, with notes beside it), on this disk, and both together.

`.amlctl/runs/<id>/record.json` is what this machine saw last of a run of any workspace. A damaged one is never shown,
never replaced by a guess, and never hides the others: its workspace reads it from the store again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Set
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Callable, Optional

from amlctl.core.document import Fields, parse
from amlctl.core.message import Command
from amlctl.core.phases import Phase, began, begun_at
from amlctl.core.resources import Resources
from amlctl.core.run import RunRecord
from amlctl.core.run_id import child_id, is_record_run_id, newest_first
from amlctl.core.run_schema import MAX_BYTES, is_published
from amlctl.core.store_keys import (
    RUNS,
    failure_key,
    phases_key,
    published_key,
    record_key,
    resources_key,
    script_end_key,
    script_ends_prefix,
    trial_key,
)
from amlctl.errors import AmlctlError, IntegrityError, NotFound
from amlctl.localfs.atomic import write_bytes
from amlctl.localfs.disk_errors import UnfitFile
from amlctl.localfs.regular_file import read_regular
from amlctl.parallel import in_parallel
from amlctl.runs.known import read_order, shared_folder
from amlctl.stores.contract import Store

_MAX_NOTE_BYTES = 4 << 20
"""Of `failure.json` and `published.json`, which have a few lines. A longer one counts as unreadable."""


def load_record(store: Store, run: str) -> Optional[RunRecord]:
    """None where the store has none. Raises IntegrityError: damaged, or the record of another run."""
    try:
        data = store.get(record_key(run), length=MAX_BYTES + 1)
    except NotFound:
        return None
    return RunRecord.from_bytes(data, run)


def load_trial(store: Store, sweep: str, number: int, run: str) -> Optional[RunRecord]:
    """The record of a run that Azure ML has made for a sweep, and named `run`. Raises as `load_record` does."""
    try:
        data = store.get(trial_key(sweep, number), length=MAX_BYTES + 1)
    except NotFound:
        return None
    record = RunRecord.from_bytes(data, child_id(sweep, number))
    return replace(record, run=run, outputs=f"{record.outputs.rpartition('/')[0]}/{run}")


def save_record(store: Store, record: RunRecord) -> None:
    """Raises what the store raises."""
    store.put(record_key(record.run), record.to_bytes(), replace=True)


def read_failure(store: Store, run: str) -> Optional[Mapping[str, Any]]:
    """Why the runtime itself has failed, if it has."""
    return _read_note(store, failure_key(run))


def save_script_end(store: Store, run: str, rank: int, exit_code: int, ended_ns: int) -> None:
    """Raises what the store raises."""
    document = {"exit_code": exit_code, "ended_ns": ended_ns}
    store.put(script_end_key(run, rank), json.dumps(document).encode(), replace=True)


def save_phases(store: Store, run: str, begun: Mapping[Phase, datetime]) -> None:
    """Raises what the store raises."""
    document = {phase.value: at.isoformat(timespec="milliseconds") for phase, at in begun.items()}
    store.put(phases_key(run), json.dumps(document).encode(), replace=True)


def note_phases(store: Store, record: RunRecord) -> None:
    """Add what the run's node has saved of its phases."""
    for phase, at in begun_at(_read_note(store, phases_key(record.run)) or {}).items():
        began(record, phase, at)


def save_resources(store: Store, run: str, resources: Resources) -> None:
    """Raises what the store raises."""
    store.put(resources_key(run), json.dumps(resources.to_json()).encode(), replace=True)


def read_resources(store: Store, run: str) -> Resources:
    """What the run's node has saved of them; without samples where that is nothing, or cannot be read."""
    return Resources.from_json(_read_note(store, resources_key(run)) or {})


def read_first_failure(store: Store, run: str) -> Optional[tuple[int, int]]:
    """Rank and exit code of the process whose script was the first to fail; None if no failure is recorded."""
    found = []
    for entry in store.list(script_ends_prefix(run)):
        rank = entry.key.rpartition("/")[2].partition(".")[0]
        document = _read_note(store, entry.key) or {}
        code, ended_ns = document.get("exit_code"), document.get("ended_ns")
        if rank.isdecimal() and isinstance(code, int) and isinstance(ended_ns, int):
            found.append((ended_ns, int(rank), code))
    return min(found)[1:] if found else None


def read_published(store: Store, run: str) -> Mapping[str, Mapping[str, str]]:
    """By dataset, the snapshot and the manifest's key of what the run has produced; empty where that is nothing.

    Raises IntegrityError: treating a damaged list as empty would lose what the run has produced.
    """
    key = published_key(run)
    try:
        document = json.loads(store.get(key, length=_MAX_NOTE_BYTES))
    except NotFound:
        return {}
    except (ValueError, RecursionError):
        document = None
    if not is_published(document):
        raise IntegrityError(f"the list of what run {run} has produced is damaged", hint=f"see {key} in {store.url}")
    return document  # type: ignore[no-any-return]  # checked


def _read_note(store: Store, key: str) -> Optional[Mapping[str, Any]]:
    try:
        document = json.loads(store.get(key, length=_MAX_NOTE_BYTES))
    except (NotFound, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def local_records(
    state_dir: Path, *, but: Set[str] = frozenset(), on_damaged: Callable[[str], object] = lambda run: None
) -> list[RunRecord]:
    """Newest first, without the runs in `but`. `on_damaged` is given the ids of those that cannot be read."""
    records = []
    # Plain strings: with a thousand runs, making Path objects takes as long as reading the files.
    folder = str(state_dir / "runs")
    for run in _names(folder):
        if run in but or not is_record_run_id(run):
            continue
        try:
            record = _load_file(f"{folder}/{run}/record.json", run)
        except (IntegrityError, OSError):
            on_damaged(run)
            continue
        if record is not None:
            records.append(record)
    return newest_first(records, read_order(state_dir))


def load_local_record(state_dir: Path, run: str) -> Optional[RunRecord]:
    """None where this machine has none. Raises IntegrityError, OSError."""
    return _load_file(f"{state_dir}/runs/{run}/record.json", run)


def save_local_record(state_dir: Path, record: RunRecord) -> None:
    """A project whose state was deleted, or moved away, during the run does not get it again. Raises OSError."""
    if state_dir.is_dir():
        write_bytes(state_dir / "runs" / record.run / "record.json", record.to_bytes())


def _load_file(path: str, run: str) -> Optional[RunRecord]:
    try:
        data = read_regular(path, MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnfitFile as error:
        raise IntegrityError(f"the record of run {run} is damaged: {path}: {error.strerror}") from error
    except PermissionError as error:  # the store's copy may be readable; it hides no other run
        raise IntegrityError(f"the record of run {run} cannot be read: {path}: permission denied") from error
    return RunRecord.from_bytes(data, run)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def load_either(state_dir: Path, store: Store, run: str, *, is_repair: bool = False) -> Optional[RunRecord]:
    """The local record, or the store's if that is damaged; None without a local one.

    `is_repair`: the damaged one is replaced, if possible. Only the process that may write the local record may do so:
    one that was read before the run ended must not replace its final record. Raises IntegrityError where neither can be
    read, OSError.
    """
    try:
        return load_local_record(state_dir, run)
    except IntegrityError as error:
        record = _instead_of_damaged(store, run, error)
    if is_repair:
        with suppress(OSError):
            save_local_record(state_dir, record)
    return record


def _instead_of_damaged(store: Store, run: str, damage: IntegrityError) -> RunRecord:
    hint = Command("runs", "delete", run)
    try:
        record = load_record(store, run)
    except IntegrityError as error:
        raise IntegrityError(f"{error.message}, here and in the store", hint=hint) from error
    if record is None:
        raise IntegrityError(f"{damage.message}, and the store has none", hint=hint) from damage
    return record


def save_both(state_dir: Path, store: Store, record: RunRecord) -> Optional[AmlctlError]:
    """Write the local record and the store's. An error of the store is returned, since a run does not stop for it.

    A final state is in the store before a reader can see it here. Raises OSError.
    """
    if not record.is_final:
        save_local_record(state_dir, record)
    failure = None
    try:
        save_record(store, record)
    except AmlctlError as error:
        failure = error
    if record.is_final:
        save_local_record(state_dir, record)
    return failure


def read_fields(store: Store, run: str) -> Fields:
    """The run's record, of which each value is taken with its type: a damaged one must not hide what gc has to keep.

    Raises NotFound, ValueError.
    """
    try:
        data = store.get(record_key(run), length=MAX_BYTES + 1)
    except IntegrityError as error:
        raise ValueError(error.message) from error
    if len(data) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES >> 20} MiB")
    return Fields(parse(data))


def manifests_of_record(record: Fields) -> list[str]:
    """Keys of the manifests that the run reads. Raises ValueError."""
    found = list(record.member("manifests").values())
    if not all(isinstance(key, str) for key in found):
        raise ValueError("'manifests' must name keys")
    return found


def heads_of_record(record: Fields) -> list[str]:
    """Keys of the manifests that the datasets it produces begin with. Raises ValueError."""
    found = [key for key in record.member("heads").values() if key is not None]
    if not all(isinstance(key, str) for key in found):
        raise ValueError("'heads' must name keys")
    return found


def published_manifests(store: Store, run: str) -> list[str]:
    """Keys of the manifests of what it has produced. Raises IntegrityError."""
    return [named["manifest_key"] for named in read_published(store, run).values()]


def shared_records(store: Store, state_dir: Path, *, but: Set[str]) -> list[RunRecord]:
    """Of all runs in the store that are not in `but`, in no order. One that is damaged, or was deleted, is left out.

    Raises what the store raises.
    """
    folder = shared_folder(state_dir)
    runs = {run for run in store.folders(RUNS) if is_record_run_id(run)} - but
    for copy in folder.glob("*.json") if folder.is_dir() else ():
        if copy.stem not in runs:
            copy.unlink(missing_ok=True)

    def read(run: str) -> Optional[RunRecord]:
        copy = folder / f"{run}.json"
        if (copied := _read_copy(copy)) is not None:
            return copied
        try:
            record = load_record(store, run)
        except IntegrityError:
            return None  # `store verify` reports it
        if record is not None and record.is_final:
            with suppress(OSError):  # a project that cannot be written keeps no copies
                write_bytes(copy, record.to_bytes())
        return record

    return [record for record in in_parallel(read, sorted(runs), store.concurrency) if record is not None]


def seen_records(state_dir: Path, *, but: Set[str]) -> list[RunRecord]:
    """Those of which this machine has copies."""
    copies = shared_folder(state_dir).glob("*.json")
    found = [_read_copy(copy) for copy in copies if copy.stem not in but]
    return [record for record in found if record is not None]


def _read_copy(copy: Path) -> Optional[RunRecord]:
    try:
        return RunRecord.from_bytes(read_regular(copy, MAX_BYTES), copy.stem)
    except (OSError, IntegrityError):
        return None
