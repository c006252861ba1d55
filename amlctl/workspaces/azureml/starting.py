"""A record becomes a job: code version, environment, compute target, store, and one PUT that is never lost or doubled.

The PUT is spoken here rather than through `azure.ai.ml`, whose submit repeats it without looking, and asks twice more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from amlctl.config.conda_file import environment_of
from amlctl.core.asset import parse_asset
from amlctl.core.hidden_values import filled
from amlctl.core.message import Command, Message
from amlctl.core.run import RunRecord
from amlctl.errors import NotFound, ServiceUnavailable, Unconfirmed, UsageError
from amlctl.runtime.run_keys import run_prefix
from amlctl.stores.azure_blob.address import parse_address
from amlctl.stores.contract import Store
from amlctl.transfer.copies import copy_code
from amlctl.workspaces.azureml.assets import data_asset_id
from amlctl.workspaces.azureml.code import ensure_code
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.azureml.datastore import default_datastore, store_address
from amlctl.workspaces.azureml.environment import Environments
from amlctl.workspaces.azureml.exchange import Answer
from amlctl.workspaces.azureml.job import SERVERLESS, JobParts, job_body

VERSION = "2025-01-01-preview"
COMPUTE_VERSION = "2023-08-01-preview"
OpenStore = Callable[[str], Store]


class Starter:
    """`open_store` opens the store of a URL; only where code has to go to another one than the run's own."""

    def __init__(self, connection: Connection, store: Store, open_store: OpenStore) -> None:
        self._connection = connection
        self._store = store
        self._open_store = open_store

    def start(self, record: RunRecord, secrets: Mapping[str, str]) -> Mapping[str, Any]:
        """The job's document. Raises as the contract says, SettingsError (store), NotFound (compute target)."""
        body = job_body(record, self._parts(record, secrets), secrets)
        answer = self._put(record.run, body)
        if answer.status in (400, 404) and self._connection.memory.get("codes") is not None:
            # What this machine remembers may be of a workspace that was made anew.
            self._connection.memory.forget("codes", "environments")
            answer = self._put(record.run, job_body(record, self._parts(record, secrets), secrets))
        if answer.status >= 400:
            raise self._connection.error(answer, "PUT", self._connection.place.path + _path(record.run))
        return answer.document or {}

    def _parts(self, record: RunRecord, secrets: Mapping[str, str]) -> JobParts:
        connection = self._connection
        store_uri, address, is_identity_based = store_address(connection, self._store.url)
        default = default_datastore(connection)
        root = address
        if not default.holds(address):
            root = parse_address(default.url)[0]
            copy_code(self._store, self._open_store(default.url), record.code)
        return JobParts(
            code_id=ensure_code(connection, record.code, root),
            environment_id=Environments(connection).ensure(environment_of(record, secrets)).location,
            compute_id=self._compute(record),
            store_uri=store_uri,
            saves_uri=store_uri + ("" if record.produces else run_prefix(record.run)),
            data_uris={
                name: filled(one["asset"], secrets) if asset is None else data_asset_id(connection, asset)
                for name, one in (record.job.assets.items() if record.job else ())
                for asset in (parse_asset(one["asset"]),)
            },
            is_identity_based=is_identity_based,
        )

    def _compute(self, record: RunRecord) -> str | None:
        """Raises NotFound: the service would take the job, and fail later."""
        if record.compute == SERVERLESS:
            return None
        path = f"/computes/{record.compute}"
        if record.compute in self._connection.ready_targets:  # by the checks of this submit
            return f"{self._connection.place.id}{path}"
        answer = self._connection.workspace("GET", path, COMPUTE_VERSION, accept=(404,))
        if answer.status == 404:
            raise NotFound(
                f"the workspace {self._connection.place.shown} has no compute target {record.compute}",
                hint=Command("compute", "create", record.compute, workspace=self._connection.place.name),
            )
        state = str(((answer.document or {}).get("properties") or {}).get("provisioningState") or "")
        if state in ("Failed", "Deleting", "Canceled"):
            raise UsageError(
                f"the compute target {record.compute} is {state}",
                hint=Command("compute", "show", record.compute, workspace=self._connection.place.name),
            )
        return f"{self._connection.place.id}{path}"

    def _put(self, run: str, body: Mapping[str, Any]) -> Answer:
        """Raises Unconfirmed where nobody knows whether the job exists."""
        failure: ServiceUnavailable | None = None
        exchange = self._connection.exchange
        attempts = exchange.begin()
        while True:
            answer: Answer | None = None
            try:
                answer = self._connection.workspace(
                    "PUT", _path(run), VERSION, body, accept=(400, 404, 409, 429, *_UNSURE), is_repeatable=False
                )
                if answer.status < 400 or (answer.status not in _UNSURE and failure is None):
                    return answer
            except ServiceUnavailable as error:
                failure = error
            # This try, or an earlier one, may have acted all the same; the job's id is ours, so one look tells.
            present = self._present(run)
            if present is not None:
                return present
            if answer is not None:
                if answer.status not in _UNSURE:
                    return answer
                failure = ServiceUnavailable(f"status {answer.status} ({answer.correlation_id})")
            assert failure is not None
            is_another = attempts.again(failure.message) if answer is None else exchange.again(attempts, answer)
            if not is_another:
                raise _unconfirmed(run, failure)

    def _present(self, run: str) -> Answer | None:
        """The job, where it is there. Raises Unconfirmed."""
        try:
            found = self._connection.workspace("GET", _path(run), VERSION, accept=(404,))
        except ServiceUnavailable as error:
            raise _unconfirmed(run, error) from error
        return found if found.status < 400 else None


def _unconfirmed(run: str, failure: ServiceUnavailable) -> Unconfirmed:
    return Unconfirmed(
        f"nobody knows whether Azure ML has taken the job {run}: {failure.message}",
        hint=Message(Command("runs", "show", run), " tells, as soon as it answers again"),
    )


_UNSURE = (408, 500, 502, 503, 504)


def _path(run: str) -> str:
    return f"/jobs/{run}"
