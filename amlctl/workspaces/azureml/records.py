"""Records of runs: what this machine has seen last."""

from __future__ import annotations

import shutil
from pathlib import Path

from amlctl.core.run import RunRecord
from amlctl.errors import SettingsError
from amlctl.localfs.atomic import read_json, write_json
from amlctl.localfs.project import Project
from amlctl.localfs.run_records import load_all


class Records:
    """Of the runs of one workspace."""

    def __init__(self, project: Project, workspace: str) -> None:
        self._project = project
        self._workspace = workspace
        self._folder: Path = project.state_dir / "runs"

    def load(self, run: str) -> RunRecord | None:
        """What was seen last; None where nothing was."""
        try:
            record = RunRecord.from_json(read_json(self._folder / run / "record.json"))
        except (FileNotFoundError, NotADirectoryError, SettingsError):
            return None
        return record if record.workspace == self._workspace else None

    def load_all(self) -> dict[str, RunRecord]:
        records = load_all(self._project.state_dir)
        return {record.run: record for record in records if record.workspace == self._workspace}

    def save(self, record: RunRecord) -> None:
        self._project.ensure_state_dir()
        path = self._folder / record.run / "record.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, record.to_json())

    def forget(self, run: str) -> None:
        shutil.rmtree(self._folder / run, ignore_errors=True)
