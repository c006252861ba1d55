"""What this machine has seen last of each run, whichever workspace it belongs to: `.amlctl/runs/<id>/record.json`.

A damaged one is never shown, never written over with a guess, and never in the way of the others: its workspace takes
it again from the store.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Set
from pathlib import Path
from typing import Callable, Optional

from amlctl.core.run import RunRecord, newest_first
from amlctl.core.run_schema import MAX_BYTES, is_record_run_id
from amlctl.errors import IntegrityError
from amlctl.localfs.atomic import write_bytes
from amlctl.localfs.run_order import read_order


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
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise IntegrityError(f"the record of run {run} is damaged: {path} is not a file")
            data = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except IsADirectoryError as error:
        raise IntegrityError(f"the record of run {run} is damaged: {path} is a folder") from error
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise IntegrityError(f"the record of run {run} is damaged: {path} is a link to itself") from error
    return RunRecord.from_bytes(data, run)


def _without_waiting(path: str, flags: int) -> int:
    """A pipe has nothing to wait for; for files the flag means nothing."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
