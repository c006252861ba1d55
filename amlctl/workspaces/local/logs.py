"""What a run shows: its log, with lines of our own in it, and the copy in the store with progress bars collapsed; and
what it does and waits for, in its record on this machine."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from amlctl.core.job import log_names
from amlctl.core.log_text import CarriageReturnCollapser
from amlctl.core.phases import Phase, began
from amlctl.core.run import RunRecord
from amlctl.core.secret_names import masked
from amlctl.core.store_keys import log_key
from amlctl.errors import AmlctlError
from amlctl.localfs.folders import touch_private
from amlctl.localfs.machine import utc_now
from amlctl.localfs.read_file import file_content_id
from amlctl.localfs.regular_file import open_regular
from amlctl.runs.records import note_phases, save_local_record
from amlctl.stores.contract import FileBody, Store
from amlctl.workspaces.local.run_paths import RunPaths


def say(log: Path, line: str) -> None:
    """Append a line, after a line feed where the script's last line has none.

    Secrets are masked. A full disk loses the line, and the run continues.
    """
    with contextlib.suppress(OSError), open_regular(log, "a+b") as file:
        size = file.seek(0, os.SEEK_END)
        is_inside_line = size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"
        file.write((b"\n" if is_inside_line else b"") + f"[amlctl] {masked(line)}\n".encode(errors="replace"))


_PART_BYTES = 1 << 20


def saved_logs(store: Store, paths: RunPaths, record: RunRecord) -> list[SavedLog]:
    """Those of all processes of a run."""
    return [
        SavedLog(store, log_key(record.run, name), paths.log_of(rank), paths.collapsed_log_of(rank))
        for rank, name in enumerate(log_names(record.spec.process_group.world_size))
    ]


class SavedLog:
    """Reads only what was added to the raw log since the last time. Not thread-safe."""

    def __init__(self, store: Store, key: str, raw: Path, collapsed: Path) -> None:
        """`collapsed` is rewritten: a local file with what goes to the store."""
        self._store = store
        self._key = key
        self._raw = raw
        self._collapsed = collapsed
        self._begin()

    def save(self) -> None:
        """Raises OSError, RightsError, ServiceUnavailable."""
        try:
            self._save()
        except (AmlctlError, OSError):
            # A file that a full disk has cut short is not continued, and leaves its space to the run's record.
            self._collapsed.unlink(missing_ok=True)
            self._begin()
            raise

    def _begin(self) -> None:
        self._collapser = CarriageReturnCollapser()
        self._read_bytes = 0
        self._line_end = 0
        self._was_put = False

    def _save(self) -> None:
        if self._collapse() or not self._was_put:
            size = self._collapsed.stat().st_size
            self._store.put(self._key, FileBody(self._collapsed, size, file_content_id(self._collapsed)), replace=True)
            self._was_put = True

    def _collapse(self) -> bool:
        touch_private(self._raw)
        before = self._read_bytes
        mode = "r+b" if before and self._collapsed.exists() else "w+b"
        with open_regular(self._raw) as raw, open_regular(self._collapsed, mode) as collapsed:
            raw.seek(before)
            collapsed.seek(self._line_end)
            while part := raw.read(_PART_BYTES):
                self._read_bytes += len(part)
                collapsed.write(self._collapser.feed(part))
            self._line_end = collapsed.tell()
            collapsed.write(self._collapser.pending)
            collapsed.truncate()
        return self._read_bytes > before


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

    def note_tool(self, line: str) -> None:
        """The latest line of the tool that the present phase waits for."""
        now_s = time.monotonic()
        if now_s - self._noted_s >= _NOTE_EVERY_S:
            self._noted_s = now_s
            self._record.phases[-1]["note"] = masked(line)[:_LONGEST_NOTE]
            self._save()

    def end_tool(self) -> None:
        """Its last line says nothing about what comes now."""
        self._record.phases[-1].pop("note", None)

    def take_times(self, node: Store) -> None:
        """Those that the node has kept."""
        with contextlib.suppress(AmlctlError, OSError):
            note_phases(node, self._record)

    def _save(self) -> None:
        with contextlib.suppress(OSError):
            save_local_record(self._paths.state_dir, self._record)
