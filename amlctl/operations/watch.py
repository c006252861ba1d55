"""How an active run stands, beside its log: metrics, resources, last save. Only for someone who looks at it."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from amlctl.core.events import RunWatched, Usage
from amlctl.core.run import RunRecord
from amlctl.core.store_keys import outputs_index_key
from amlctl.errors import AmlctlError
from amlctl.operations.context import Context
from amlctl.runs.metrics import read_metrics
from amlctl.workspaces.contract import ShowsUsage

LOOK_S = 1.0
_RESULTS_S = 3.0
_REMOTE_RESULTS_S = 15.0
"""Each look at results in a service costs requests."""


class Watch:
    """Of one run; `look` is called often and looks when it is time to. Never raises for what cannot be seen."""

    def __init__(self, context: Context, run: str) -> None:
        self._context = context
        self._run = run
        self._looked_s = self._results_s = float("-inf")
        self._metrics: dict[str, Any] = {}
        self._saved_at: float | None = None
        self._seen = ("", "", "")

    @property
    def wait_s(self) -> float | None:
        """How soon to look again; None where only a change of the run is of interest."""
        return LOOK_S if isinstance(self._context.workspace, ShowsUsage) else None

    def look(self, record: RunRecord) -> None:
        now_s = time.monotonic()
        seen = (record.status, record.waits_for, str(record.phases[-1:]))
        if now_s - self._looked_s < LOOK_S and seen == self._seen:
            return
        self._looked_s, self._seen = now_s, seen
        usage, workspace = Usage(), self._context.workspace
        with suppress(AmlctlError, OSError):
            if isinstance(workspace, ShowsUsage):
                usage = workspace.usage(self._run)
        self._look_at_results(now_s)
        saved_s = None if self._saved_at is None else max(0.0, time.time() - self._saved_at)
        self._context.sink(RunWatched(record, self._metrics, usage, saved_s))

    def _look_at_results(self, now_s: float) -> None:
        store = self._context.store
        if now_s - self._results_s < (_REMOTE_RESULTS_S if store.folder is None else _RESULTS_S):
            return
        self._results_s = now_s
        with suppress(AmlctlError, OSError):
            index = store.info(outputs_index_key(self._run))
            if index is not None and index.modified_at != self._saved_at:
                self._saved_at = index.modified_at
                self._metrics = dict(read_metrics(store, self._run).last)
