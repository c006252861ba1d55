"""Runs that others have made with the same store, as their records there tell.

Finished ones are kept on this machine, so that a listing reads each of them once.
"""

from __future__ import annotations

from collections.abc import Set
from contextlib import suppress
from pathlib import Path
from typing import Optional

from amlctl.core.run import RunRecord
from amlctl.core.run_id import is_record_run_id
from amlctl.core.run_schema import MAX_BYTES
from amlctl.core.store_keys import RUNS
from amlctl.errors import IntegrityError
from amlctl.localfs.atomic import write_bytes
from amlctl.localfs.regular_file import read_regular
from amlctl.parallel import in_parallel
from amlctl.runs.known import shared_folder
from amlctl.runs.records import load_record
from amlctl.stores.contract import Store


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
