"""What a run does and waits for, in its record on this machine, for those who watch it."""

from __future__ import annotations

import contextlib
import time

from amlctl.core.phases import Phase, began
from amlctl.core.run import RunRecord
from amlctl.core.secret_names import masked
from amlctl.errors import AmlctlError
from amlctl.localfs.machine import utc_now
from amlctl.runs.records import note_phases, save_local_record
from amlctl.stores.contract import Store
from amlctl.workspaces.local.run_paths import RunPaths

_NOTE_EVERY_S = 0.5
_LONGEST_NOTE = 200


class PhaseNotes:
    """Of one run, by its supervisor. A note that cannot be written is lost."""

    def __init__(self, paths: RunPaths, record: RunRecord) -> None:
        self._paths = paths
        self._record = record
        self._noted_s = float("-inf")

    def begin(self, phase: Phase, note: str = "") -> None:
        """Written with the next change of the record."""
        self._record.waits_for = ""
        began(self._record, phase, utc_now(), note)

    def wait_for(self, reason: str) -> None:
        if reason != self._record.waits_for:
            self._record.waits_for = reason
            self._save()

    def said(self, line: str) -> None:
        """The latest line of the tool that the present phase waits for."""
        now_s = time.monotonic()
        if now_s - self._noted_s >= _NOTE_EVERY_S:
            self._noted_s = now_s
            self._record.phases[-1]["note"] = masked(line)[:_LONGEST_NOTE]
            self._save()

    def end_tool(self) -> None:
        """What it has said is of no interest any more."""
        self._record.phases[-1].pop("note", None)

    def take_times(self, node: Store) -> None:
        """Those that the node has kept."""
        with contextlib.suppress(AmlctlError, OSError):
            note_phases(node, self._record)

    def _save(self) -> None:
        with contextlib.suppress(OSError):
            save_local_record(self._paths.state_dir, self._record)
