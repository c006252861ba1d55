"""Which jobs of a workspace a list of runs shows, asked so that a busy workspace costs no more than a quiet one.

The service finds jobs that amlctl has made by the experiment that they name in a property. Jobs of other tools are
found among the newest of the whole workspace: for them the service cannot be asked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from amlctl.core.events import EventSink, Note
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.azureml.job import EXPERIMENT_PROPERTY

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
    """Those of the experiment, and those in `own`, newest first. The sink is told when a limit was reached."""
    listed = ListedJobs()
    pages = looked_at = 0
    by_property = {"properties": f"{EXPERIMENT_PROPERTY}={experiment}"} if experiment else None
    for filtered in (by_property, {"jobType": "Command"}):
        if filtered is None or not listed.is_whole:
            continue
        for page in connection.pages("/jobs", _VERSION, {"listViewType": "ActiveOnly", **filtered}):
            pages += 1
            looked_at += 0 if filtered is by_property else len(page)
            for job in page:
                run = str(job.get("name") or "")
                if run in own or (job.get("properties") or {}).get("experimentName") == experiment:
                    listed.jobs.setdefault(run, job)
            if pages >= _PAGES or len(listed.jobs) >= _LISTED:
                listed.is_whole = False
                break
    if len(listed.jobs) >= _LISTED:
        sink(Note(f"only the newest {len(listed.jobs)} runs of experiment {experiment} are listed"))
    elif not listed.is_whole:
        sink(
            Note(
                f"runs that other tools have made were looked for among the newest {looked_at} jobs of the workspace; "
                "Studio shows older ones"
            )
        )
    return listed
