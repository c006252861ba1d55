"""`runs wait` and `submit --after`: until runs have finished."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from amlctl.core.events import Note
from amlctl.core.message import Command
from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState
from amlctl.errors import RunFailed
from amlctl.operations.context import Context
from amlctl.operations.find_run import located
from amlctl.operations.logs import DEFAULT_OUTAGE, OUTAGES, WAIT_S, Outage
from amlctl.operations.runs import RunAt, children_left, warn_of_deleted

_WHATEVER_THE_LOG = 1 << 62
"""A position in a log that it never reaches: only changes of state end a wait."""


@dataclass(frozen=True)
class Waited:
    """Final records, in the order of the runs."""

    records: Sequence[RunRecord]

    @property
    def failure(self) -> RunFailed | None:
        """The first that did not complete."""
        for record in self.records:
            if record.status != RunState.COMPLETED:
                hint = Command("runs", "show", record.run) if record.spec.sweep else Command("logs", record.run)
                return RunFailed(f"run {record.run} is {record.status}", hint=hint)
        return None

    def to_json(self) -> dict[str, Any]:
        names = ("run", "status", "exit_code", "error")
        return {"runs": [{name: getattr(record, name) for name in names} for record in self.records]}


def wait_for(runs: Sequence[RunAt], outage: Outage = DEFAULT_OUTAGE) -> Waited:
    """Until all of them have finished. A service that cannot be reached is tried again, as `logs -f` does. Raises
    NotFound, and one of `OUTAGES` as `follow` does."""
    found = []
    for run, context in runs:
        silent_since, is_noted = None, False
        while True:
            try:
                record = context.workspace.read(run)
                if record.is_final:
                    break
                if not is_noted:
                    context.sink(Note(f"waiting for run {run}, which is {record.status}"))
                    is_noted = True
                context.workspace.wait(run, _WHATEVER_THE_LOG, WAIT_S)
                silent_since = None
            except OUTAGES as error:
                silent_since = outage.since(silent_since, error, context.sink, was_reached=is_noted)
                time.sleep(outage.pause_s)
        if record.spec.sweep:
            warn_of_deleted(context, record, list(children_left(context.workspace, record.children)))
        found.append(record)
    return Waited(found)


def wait_until_completed(context: Context, references: Sequence[str]) -> None:
    """Raises RunFailed where one did not complete, NotFound."""
    failure = wait_for([RunAt(*located(context, one)) for one in references]).failure
    if failure is not None:
        raise RunFailed(f"{failure.message}, so nothing was submitted", hint=failure.hint)
