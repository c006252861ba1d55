"""Records of runs: what this machine has seen last."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from amlctl.core.events import EventSink, Warned
from amlctl.core.run import RunRecord
from amlctl.core.run_schema import wrong_field
from amlctl.errors import IntegrityError
from amlctl.localfs.folders import remove_tree
from amlctl.localfs.project import Project
from amlctl.runs.records import load_local_record, local_records, read_order, save_local_record


class Records:
    """Of the runs of one workspace. `sink` hears of damaged ones, which count as not seen."""

    def __init__(self, project: Project, workspace: str, sink: EventSink) -> None:
        self._project = project
        self._workspace = workspace
        self._folder: Path = project.state_dir / "runs"
        self._sink = sink
        self._told: set[str] = set()

    def load(self, run: str) -> RunRecord | None:
        """What was seen last; None where nothing was."""
        try:
            record = load_local_record(self._project.state_dir, run)
        except IntegrityError as error:
            if run not in self._told:
                self._told.add(run)
                self._sink(Warned(f"{error.message}; it is looked for in the store"))
            return None
        return record if record is not None and record.workspace == self._workspace else None

    def load_all(self, on_damaged: Callable[[str], None]) -> dict[str, RunRecord]:
        records = local_records(self._project.state_dir, on_damaged=on_damaged)
        return {record.run: record for record in records if record.workspace == self._workspace}

    def order(self) -> list[str]:
        """Ids in the order in which runs were made from here."""
        return read_order(self._project.state_dir)

    def save(self, record: RunRecord) -> None:
        """A record that could not be read again is not kept: a state, say, which the service has had only lately."""
        if wrong_field(record.to_json()):
            return
        self._project.ensure_state_dir()
        save_local_record(self._project.state_dir, record)

    def forget(self, run: str) -> None:
        remove_tree(self._folder / run, ignore_errors=True)
