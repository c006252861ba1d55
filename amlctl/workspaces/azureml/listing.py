"""Which jobs of a workspace a list of runs shows, asked so that a busy workspace costs no more than a quiet one.

The service finds jobs that amlctl has made by the experiment that they name in a property. Jobs of other tools are
found among the newest of the whole workspace: for them the service cannot be asked.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from amlctl.core.events import EventSink, Note
from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState, is_final
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.azureml.job import EXPERIMENT_PROPERTY, watched
from amlctl.workspaces.azureml.looks import Look, Looks
from amlctl.workspaces.azureml.records import has_ended, without_presumed_end

_VERSION = "2024-10-01"
_LISTED = 200
_PAGES = 10
"""Jobs that a list shows, and pages that it asks for."""


@dataclass
class ListedJobs:
    """Documents by run id. Not `is_whole`: a limit was reached, and older jobs are missing."""

    jobs: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    is_whole: bool = True


def list_jobs(connection: Connection, experiment: str, own: Collection[str], sink: EventSink) -> ListedJobs:
    """Those of the experiment, and those in `own`. The sink is told when a limit was reached.

    Where one page holds all jobs of the workspace, nothing else is asked for.
    """
    listed, asked = ListedJobs(), 0
    newest = connection.pages("/jobs", _VERSION, {"listViewType": "ActiveOnly"})
    by_property = {"listViewType": "ActiveOnly", "properties": f"{EXPERIMENT_PROPERTY}={experiment}"}
    looked_at = 0
    for pages, of_all in (
        (itertools.islice(newest, 2), True),
        (connection.pages("/jobs", _VERSION, by_property) if experiment else iter(()), False),
        (newest, True),
    ):
        if asked == 1:  # there was no second one
            break
        for page in pages:
            asked += 1
            looked_at += len(page) if of_all else 0
            for job in page:
                run = str(job.get("name") or "")
                if run in own or _is_of(job, experiment):
                    listed.jobs.setdefault(run, job)
            if asked >= _PAGES or len(listed.jobs) >= _LISTED:
                listed.is_whole = False
                break
        if not listed.is_whole:
            break
    if len(listed.jobs) >= _LISTED:
        sink(Note(f"only {len(listed.jobs)} runs of experiment {experiment} are listed"))
    elif not listed.is_whole:
        sink(
            Note(
                f"runs that other tools have made were looked for among the newest {looked_at} jobs of the workspace; "
                "Studio shows older ones"
            )
        )
    return listed


def _is_of(job: Mapping[str, Any], experiment: str) -> bool:
    """Made by amlctl, or a command job of another tool."""
    properties = job.get("properties") or {}
    is_shown = properties.get("jobType") == "Command" or EXPERIMENT_PROPERTY in (properties.get("properties") or {})
    return is_shown and properties.get("experimentName") == experiment


class ListedRecords:
    """Of runs that were recorded here: as the list tells them, and as a look tells those that it shows as ended."""

    def __init__(
        self,
        looks: Looks,
        read: Callable[[str], RunRecord],
        is_settled: Callable[[Look], bool],
        clock: Callable[[], datetime],
    ) -> None:
        self._looks = looks
        self._read = read
        self._is_settled = is_settled
        self._clock = clock

    def of(self, own: RunRecord, job: Mapping[str, Any]) -> RunRecord:
        """Raises NotFound."""
        if has_ended(own):
            return own
        own = without_presumed_end(own)
        status = str((job.get("properties") or {}).get("status") or "")
        if not is_final(status):
            return watched(own, {"status": status}, self._clock())
        # The list has neither times nor a reason, so a run that has ended is looked at once.
        look = self._looks.at(own.run)
        is_plain = status != RunState.FAILED and not own.spec.produces
        if look is None or look.status != status or self._is_settled(look) or not is_plain:
            return self._read(own.run)
        from amlctl.workspaces.azureml.ending import ended

        # Its log may still come in, and is not waited for here: a list may have many such runs.
        return ended(watched(own, look.document, self._clock()), look.document, None, self._clock())
