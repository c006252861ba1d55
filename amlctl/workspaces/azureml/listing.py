"""The jobs of a workspace that a list of runs shows; a busy workspace costs no more requests than a quiet one.

The service finds jobs of amlctl by a property with their experiment. It cannot be asked for jobs of other tools: they
are found among the newest of the whole workspace.
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
_MAX_JOBS = 200
_MAX_PAGES = 10


@dataclass
class ListedJobs:
    """Documents by run id. `is_complete` is False if a limit was reached, so that older jobs are missing."""

    jobs: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    is_complete: bool = True


def list_jobs(connection: Connection, experiment: str, own: Collection[str], sink: EventSink) -> ListedJobs:
    """Those of the experiment, and those in `own`. The sink gets a note if a limit was reached.

    Only one request if one page has all jobs of the workspace.
    """
    listed, requested, checked = ListedJobs(), 0, 0
    newest = connection.pages("/jobs", _VERSION, {"listViewType": "ActiveOnly"})
    by_property = {"listViewType": "ActiveOnly", "properties": f"{EXPERIMENT_PROPERTY}={experiment}"}
    for pages, is_newest in (
        (itertools.islice(newest, 2), True),
        (connection.pages("/jobs", _VERSION, by_property) if experiment else iter(()), False),
        (newest, True),
    ):
        if requested == 1 or not listed.is_complete:  # there was only one page, or enough
            break
        for page in pages:
            requested += 1
            checked += len(page) if is_newest else 0
            for job in page:
                run = str(job.get("name") or "")
                if run in own or _is_of(job, experiment):
                    listed.jobs.setdefault(run, job)
            if requested >= _MAX_PAGES or len(listed.jobs) >= _MAX_JOBS:
                listed.is_complete = False
                break
    if len(listed.jobs) >= _MAX_JOBS:
        sink(Note(f"only {len(listed.jobs)} runs of experiment {experiment} are listed"))
    elif not listed.is_complete:
        sink(
            Note(
                f"runs of other tools were searched for among the newest {checked} jobs of the workspace; Studio shows "
                "older ones"
            )
        )
    return listed


def _is_of(job: Mapping[str, Any], experiment: str) -> bool:
    """Made by amlctl, or a command job of another tool."""
    properties = job.get("properties") or {}
    is_shown = properties.get("jobType") == "Command" or EXPERIMENT_PROPERTY in (properties.get("properties") or {})
    return is_shown and properties.get("experimentName") == experiment


class ListedRecords:
    """Records of this machine, updated from the list, and from a look if the list shows an end."""

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

        # Its log may still arrive, which is not awaited here: a list may have many such runs.
        return ended(watched(own, look.document, self._clock()), look.document, None, self._clock())
