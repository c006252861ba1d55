"""A record becomes a job: code version, environment, compute target, store, and a `Command` of the SDK."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from amlctl.config.conda_file import environment_of
from amlctl.core.hidden_values import filled
from amlctl.core.message import Command
from amlctl.core.run import RunRecord
from amlctl.core.store_keys import code_prefix, run_prefix
from amlctl.errors import NotFound, UsageError
from amlctl.runs.code import CONTEXT
from amlctl.runs.copies import copy_code
from amlctl.stores.azure_blob.address import parse_address
from amlctl.stores.contract import Store
from amlctl.workspaces.azureml.code import ensure_code
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.azureml.datastore import default_datastore, store_address
from amlctl.workspaces.azureml.environment import Environments
from amlctl.workspaces.azureml.job import SERVERLESS, JobParts, job_document
from amlctl.workspaces.azureml.submission import AcceptedJob, submit_job

if TYPE_CHECKING:
    from azure.ai.ml.entities import Job

COMPUTE_VERSION = "2023-08-01-preview"
OpenStore = Callable[[str], Store]


class Starter:
    """`open_store` opens the store of a URL; only where code has to go to another one than the run's own."""

    def __init__(self, connection: Connection, store: Store, open_store: OpenStore) -> None:
        self._connection = connection
        self._store = store
        self._open_store = open_store

    def start(self, record: RunRecord, secrets: Mapping[str, str]) -> AcceptedJob:
        """Raises as the contract says, SettingsError (store), NotFound (compute target)."""
        connection = self._connection
        connection.sdk.begin_import()
        try:
            return submit_job(connection, self._job(record, secrets), record.git)
        except (NotFound, UsageError):
            if connection.memory.get("codes") is None:
                raise
            # What this machine remembers may be about a workspace that was deleted and created again.
            connection.memory.forget("codes", "environments")
            return submit_job(connection, self._job(record, secrets), record.git)

    def _job(self, record: RunRecord, secrets: Mapping[str, str]) -> Job:
        document = job_document(record, self._parts(record, secrets), secrets)
        return self._connection.sdk.loaded_job(document)

    def _parts(self, record: RunRecord, secrets: Mapping[str, str]) -> JobParts:
        connection = self._connection
        store_uri, address = store_address(connection, self._store.url)
        default = default_datastore(connection)
        root = address
        if not default.holds(address):
            root = parse_address(default.url)[0]
            copy_code(self._store, self._open_store(default.url), record.code)
        self._check_compute(record.compute)
        context_uri = f"{root.account_url}/{root.container}/{root.prefix}{code_prefix(record.code)}{CONTEXT}/"
        location = Environments(connection).ensure(environment_of(record, secrets), context_uri).location
        return JobParts(
            code_id=ensure_code(connection, record.code, root),
            environment=location if location.startswith("azureml:") else f"azureml:{location}",
            store_uri=store_uri,
            saves_uri=store_uri + ("" if record.produces else run_prefix(record.run)),
            data_uris={
                name: filled(one["asset"], secrets) for name, one in (record.job.assets.items() if record.job else ())
            },
            identity=connection.identity,
        )

    def _check_compute(self, name: str) -> None:
        """Raises NotFound, UsageError: the service would accept the job, and fail later."""
        # A target that this submit has just looked at is not asked for again.
        if name == SERVERLESS or name in self._connection.ready_targets:
            return
        place = self._connection.place
        answer = self._connection.workspace("GET", f"/computes/{name}", COMPUTE_VERSION, accept=(404,))
        if answer.status == 404:
            raise NotFound(
                f"the workspace {place.shown} has no compute target {name}",
                hint=Command("compute", "create", name, workspace=place.name),
            )
        state = str(((answer.document or {}).get("properties") or {}).get("provisioningState") or "")
        if state in ("Failed", "Deleting", "Canceled"):
            raise UsageError(
                f"the compute target {name} is {state}",
                hint=Command("compute", "show", name, workspace=place.name),
            )
