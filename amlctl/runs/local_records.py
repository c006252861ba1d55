"""What this machine has seen last of each run, whichever workspace it belongs to: `.amlctl/runs/<id>/record.json`.

A damaged one is never shown, never written over with a guess, and never in the way of the others: its workspace takes
it again from the store.
"""

from __future__ import annotations

import os
from collections.abc import Set
from pathlib import Path
from typing import Callable, Optional

from amlctl.core.run import RunRecord
from amlctl.core.run_id import newest_first
from amlctl.core.run_schema import MAX_BYTES, is_record_run_id
from amlctl.errors import IntegrityError
from amlctl.localfs.atomic import write_bytes
from amlctl.localfs.regular_file import UnfitFile, read_regular
from amlctl.runs.order import read_order


def _pass_over(run: str) -> None:
    pass


def load_all(
    state_dir: Path, *, but: Set[str] = frozenset(), on_damaged: Callable[[str], None] = _pass_over
) -> list[RunRecord]:
    """Newest first, without the runs in `but`. `on_damaged` is given the ids of those that cannot be read."""
    records = []
    # Plain strings: with a thousand runs, making Path objects takes as long as reading the files.
    folder = str(state_dir / "runs")
    for run in _names(folder):
        if run in but or not is_record_run_id(run):
            continue
        try:
            record = _load(f"{folder}/{run}/record.json", run)
        except (IntegrityError, OSError):
            on_damaged(run)
            continue
        if record is not None:
            records.append(record)
    return newest_first(records, read_order(state_dir))


def load(state_dir: Path, run: str) -> Optional[RunRecord]:
    """None where this machine has none. Raises IntegrityError, OSError."""
    return _load(f"{state_dir}/runs/{run}/record.json", run)


def save(state_dir: Path, record: RunRecord) -> None:
    """Raises OSError."""
    write_bytes(state_dir / "runs" / record.run / "record.json", record.to_bytes())


def _load(path: str, run: str) -> Optional[RunRecord]:
    try:
        data = read_regular(path, MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnfitFile as error:
        raise IntegrityError(f"the record of run {run} is damaged: {path}: {error.strerror}") from error
    return RunRecord.from_bytes(data, run)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
