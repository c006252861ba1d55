"""What this machine has seen last of each run, whichever workspace it belongs to: `.amlctl/runs/<id>/record.json`."""

from __future__ import annotations

import json
import os
from collections.abc import Set
from pathlib import Path

from amlctl.core.run import RunRecord
from amlctl.errors import SettingsError


def load_all(state_dir: Path, *, but: Set[str] = frozenset()) -> list[RunRecord]:
    """Newest first, without the runs in `but`; a folder without a whole record is passed over."""
    records = []
    # Plain strings: with a thousand runs, making Path objects takes as long as reading the files.
    folder = str(state_dir / "runs")
    for run in _names(folder):
        if run in but:
            continue
        try:
            with open(f"{folder}/{run}/record.json", "rb") as file:
                records.append(RunRecord.from_json(json.loads(file.read())))
        except (OSError, ValueError, SettingsError):
            continue
    return newest_first(records)


def newest_first(records: list[RunRecord]) -> list[RunRecord]:
    return sorted(records, key=lambda record: (record.created_at, record.run), reverse=True)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
