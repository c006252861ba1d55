"""How an active run stands, beside its log: metrics, resources, last save, only for someone who looks at it; and a
sweep: a row for each of its runs, and which of them is the best."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from amlctl.core.events import RunWatched, SweepWatched, Usage
from amlctl.core.metrics import Goal, Metrics
from amlctl.core.phases import script_s
from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState, is_final
from amlctl.core.store_keys import outputs_index_key
from amlctl.core.sweep import SweepRow, best_of, values_of
from amlctl.errors import AmlctlError, NotFound
from amlctl.operations.context import Context
from amlctl.operations.runs import key_metric
from amlctl.runs.metrics import listed_outputs, metrics_among
from amlctl.stores.contract import Store

_LOOK_S = 1.0
_REMOTE_LOOK_S = 5.0
_RESULTS_S = 3.0
_REMOTE_RESULTS_S = 15.0
"""Each look at results in a service costs requests."""


class _Results:
    """Metrics that active runs have saved so far, each read again when it is time to. Never raises."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pause_s = _REMOTE_RESULTS_S if store.folder is None else _RESULTS_S
        self._looked_s: dict[str, float] = {}
        self._found: dict[str, tuple[float | None, Metrics]] = {}

    def of(self, run: str) -> tuple[float | None, Metrics]:
        """When outputs of it were last saved, in seconds since 1970, and its metrics then."""
        now_s = time.monotonic()
        saved_at, metrics = self._found.get(run, (None, Metrics()))
        if now_s - self._looked_s.get(run, float("-inf")) >= self._pause_s:
            self._looked_s[run] = now_s
            with suppress(AmlctlError, OSError):
                index = self._store.info(outputs_index_key(run))
                if index is not None and index.modified_at != saved_at:
                    files = listed_outputs(self._store, run)
                    metrics = metrics_among(self._store, run, files)
                    saved_at = None if files == {} else index.modified_at  # the list begins empty, before the script
            self._found[run] = saved_at, metrics
        return saved_at, metrics


class Watch:
    """Of one run; `look` is called often and looks when it is time to. Never raises for what cannot be seen."""

    def __init__(self, context: Context, run: str) -> None:
        self._context = context
        self._run = run
        self._results = _Results(context.store)
        self._looked_s = float("-inf")
        self._seen = ("", "", "")

    @property
    def wait_s(self) -> float | None:
        """How soon to look again; None where only a change of the run is of interest."""
        return _LOOK_S if self._context.workspace.shows_usage else None

    def look(self, record: RunRecord) -> None:
        now_s = time.monotonic()
        seen = (record.status, record.waits_for, str(record.phases[-1:]))
        if now_s - self._looked_s < _LOOK_S and seen == self._seen:
            return
        self._looked_s, self._seen = now_s, seen
        usage = Usage()
        with suppress(AmlctlError, OSError):
            usage = self._context.workspace.usage(self._run)
        saved_at, metrics = self._results.of(self._run)
        saved_s = None if saved_at is None else max(0.0, time.time() - saved_at)
        self._context.sink(RunWatched(record, dict(metrics.last), usage, saved_s))


@dataclass(frozen=True)
class SweepView:
    rows: Sequence[SweepRow]
    goal: Goal | None

    @property
    def best(self) -> SweepRow | None:
        return best_of(self.rows, self.goal)

    def to_json(self) -> dict[str, Any]:
        best = self.best
        return {
            "metric": None if self.goal is None else self.goal.name,
            "is_lower_better": None if self.goal is None else self.goal.is_lower_better,
            "best": None if best is None else best.run,
            "runs": [
                {
                    "run": row.run,
                    "values": row.values,
                    "status": row.status,
                    "seconds": row.took_s,
                    "metrics": row.metrics,
                    "is_deleted": row.is_deleted,
                }
                for row in self.rows
            ],
        }


class SweepReader:
    """Of one sweep. A run is read when its state has changed: in Azure ML each look at one costs a request."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._read: dict[str, tuple[str, RunRecord]] = {}
        self._results: _Results | None = None

    def view(self, parent: RunRecord, *, is_live: bool = False) -> SweepView:
        """`is_live`: with the metrics of active runs so far. A run that was deleted has its values alone."""
        rows, records = list[SweepRow](), list[RunRecord]()
        for run, name, status in ((one["run"], one["name"], one["status"]) for one in parent.children):
            try:
                record = self._record(run, status)
            except NotFound:
                rows.append(SweepRow(run, values_of(name), status, is_deleted=True))
                continue
            except AmlctlError:
                rows.append(SweepRow(run, values_of(name), status))
                continue
            records.append(record)
            metrics = self._so_far(record) if is_live and status == RunState.RUNNING else record.metrics
            rows.append(SweepRow(run, record.spec.combination, status, script_s(record), metrics))
        wanted = parent.spec.sweep.get("metric") or self._context.settings.runs.metric
        return SweepView(rows, key_metric(records, wanted))

    def _record(self, run: str, status: str) -> RunRecord:
        """Raises NotFound if it was deleted, or what the workspace raises."""
        known_status, record = self._read.get(run, ("", None))
        # One of Azure ML has no values before its node has started.
        if record is None or known_status != status or not record.spec.combination:
            record = self._context.workspace.read(run)
            self._read[run] = status, record
        return record

    def _so_far(self, record: RunRecord) -> dict[str, Any]:
        self._results = self._results or _Results(self._context.store)
        return self._results.of(record.run)[1].kept()


class SweepWatch:
    """Reports how a sweep that is followed stands; `is_live`: to someone who looks at it."""

    def __init__(self, context: Context, *, is_live: bool) -> None:
        self.wait_s = _LOOK_S if context.settings.workspace().runs_here else _REMOTE_LOOK_S
        self._context = context
        self._reader = SweepReader(context)
        self._is_live = is_live
        self._looked_s = float("-inf")

    def look(self, record: RunRecord) -> None:
        now_s = time.monotonic()
        if now_s - self._looked_s < _LOOK_S and not is_final(record.status):
            return
        self._looked_s = now_s
        view = self._reader.view(record, is_live=self._is_live)
        self._context.sink(SweepWatched(record, view.rows, view.goal))
