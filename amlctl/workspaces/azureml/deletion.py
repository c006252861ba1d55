"""What is deleted of a run: its files in the store, and what the job has left in the workspace's own containers."""

from __future__ import annotations

from amlctl.core.run import RunRecord
from amlctl.core.store_keys import run_prefix
from amlctl.errors import IntegrityError
from amlctl.stores.contract import Store
from amlctl.workspaces.azureml.artifacts import Artifacts
from amlctl.workspaces.azureml.connection import Connection


def delete_run(connection: Connection, store: Store, record: RunRecord, artifacts: Artifacts) -> list[str]:
    """Returns what stays, and why, in words. Raises IntegrityError, ServiceUnavailable; it can be called again."""
    run, experiment = record.run, record.experiment or "Default"
    if "/" in experiment:  # no experiment there can have it, and the path would lead to another run
        raise IntegrityError(f"the record of run {run} names the experiment {experiment!r}, which cannot exist")
    kept = artifacts.delete()
    path = f"/experiments/{experiment}/runs/{run}"
    if connection.history("PATCH", path, {"hidden": True}, accept=(404,)).status != 404:
        kept.insert(0, "the job in Azure ML, which is archived: jobs cannot be deleted there")
    for entry in list(store.list(run_prefix(run))):
        store.delete(entry.key)
    return kept
