"""A record becomes a job: code version, environment, compute target, store, and a `Command` of the SDK."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amlctl.azure_access.azure_ai_ml import first_line
from amlctl.config.environment_file import environment_of
from amlctl.core.hidden_values import filled
from amlctl.core.message import Command, Message
from amlctl.core.run import RunRecord
from amlctl.core.store_keys import code_prefix, run_prefix
from amlctl.errors import AmlctlError, NotFound, ServiceUnavailable, Unconfirmed, UsageError
from amlctl.localfs.git import ask_git
from amlctl.runs.code import CONTEXT
from amlctl.runs.copies import copy_code
from amlctl.stores.azure_blob.address import parse_address
from amlctl.stores.contract import Store
from amlctl.workspaces.azureml.assets import Environments, ensure_code
from amlctl.workspaces.azureml.clients import Answer, answer_of_error
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.azureml.datastores import default_datastore, store_address
from amlctl.workspaces.azureml.job import SERVERLESS, JobParts, job_document, run_properties

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
            return submit_job(connection, self._job(record, secrets), record.spec.git)
        except (NotFound, UsageError):
            if connection.memory.get("codes") is None:
                raise
            # What this machine remembers may be about a workspace that was deleted and created again.
            connection.memory.forget("codes", "environments")
            return submit_job(connection, self._job(record, secrets), record.spec.git)

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
            copy_code(self._store, self._open_store(default.url), record.spec.code)
        self._check_compute(record.spec.compute)
        context_uri = f"{root.account_url}/{root.container}/{root.prefix}{code_prefix(record.spec.code)}{CONTEXT}/"
        location = Environments(connection).ensure(environment_of(record, secrets), context_uri).location
        return JobParts(
            code_id=ensure_code(connection, record.spec.code, root),
            environment=location if location.startswith("azureml:") else f"azureml:{location}",
            store_uri=store_uri,
            saves_uri=store_uri + ("" if record.spec.produces else run_prefix(record.run)),
            data_uris={name: filled(one["asset"], secrets) for name, one in record.spec.assets.items()},
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


_VERSION = "2025-01-01-preview"
_UNSURE = (408, 500, 502, 503, 504)
"""The service may have acted all the same."""


@dataclass(frozen=True)
class AcceptedJob:
    """What the service says of a job that it has. Either may be empty."""

    status: str
    studio_url: str


def submit_job(connection: Connection, job: Job, git: Mapping[str, Any] | None = None) -> AcceptedJob:
    """`git` is the state of the project (`RunRecord.git`).

    Raises UsageError and the like (refused), ServiceUnavailable (not accepted), Unconfirmed (nothing is known)."""
    with git_of_job(connection.project.root, git):
        return _Submission(connection, job).run()


class _Submission:
    def __init__(self, connection: Connection, job: Job) -> None:
        self._connection = connection
        self._job = job
        self._run = str(job.name)
        self._may_exist = False

    def run(self) -> AcceptedJob:
        attempts = self._connection.exchange.begin()
        while True:
            outcome = self._put()
            if isinstance(outcome, AcceptedJob):
                return outcome
            if self._may_exist and (present := self._present()) is not None:
                return present
            if isinstance(outcome, Answer):
                failure = self._connection.error(outcome, "PUT", f"{self._connection.place.path}/jobs/{self._run}")
                if outcome.status not in _UNSURE:
                    raise failure
                is_another = self._connection.exchange.again(attempts, outcome)
            else:
                failure = outcome
                is_another = attempts.again(failure.message)
            if not is_another:
                raise _unconfirmed(self._run, failure)

    def _put(self) -> AcceptedJob | Answer | AmlctlError:
        """The job, the service's refusal, or why no answer came."""
        from azure.ai.ml.exceptions import MlException
        from azure.core.exceptions import HttpResponseError

        try:
            with self._connection.sdk.client() as client:
                # What `load_job` has checked need not be checked again, which takes as long as all the rest.
                made = client.jobs.create_or_update(self._job, skip_validation=True)
        except MlException as error:
            raise UsageError(f"azure-ai-ml does not accept the job: {first_line(error)}") from error
        except HttpResponseError as error:
            answer = answer_of_error(error)
            self._may_exist = self._may_exist or answer.status in _UNSURE or answer.status < 400
            return answer
        except ServiceUnavailable as error:
            self._may_exist = True
            return error
        except AmlctlError:
            raise
        except Exception:  # the SDK cannot read the answer, say: a job may exist by now
            present = self._present()
            if present is None:
                raise
            return present
        return AcceptedJob(str(getattr(made.status, "value", made.status) or ""), str(made.studio_url or ""))

    def _present(self) -> AcceptedJob | None:
        """The job if the service has it. Raises Unconfirmed."""
        try:
            found = self._connection.workspace("GET", f"/jobs/{self._run}", _VERSION, accept=(404,))
        except ServiceUnavailable as error:
            raise _unconfirmed(self._run, error) from error
        if found.status == 404:
            return None
        properties: dict[str, Any] = (found.document or {}).get("properties") or {}
        studio = (properties.get("services") or {}).get("Studio") or {}
        return AcceptedJob(str(properties.get("status") or ""), str(studio.get("endpoint") or ""))


def _unconfirmed(run: str, failure: AmlctlError) -> Unconfirmed:
    return Unconfirmed(
        f"Azure ML may or may not have accepted the job {run}: {failure.message}",
        hint=Message(Command("runs", "show", run), " shows it as soon as Azure ML answers again"),
    )


_VARIABLES = {"commit": "AZUREML_GIT_COMMIT", "branch": "AZUREML_GIT_BRANCH", "dirty": "AZUREML_GIT_DIRTY"}
_ADDRESS = "AZUREML_GIT_REPOSITORY_URI"
_LOGIN = re.compile(r"(?<=://)[^/]*@")
"""Up to the last @ before the path: a password may hold others."""


@contextmanager
def git_of_job(root: Path, state: Mapping[str, Any] | None) -> Iterator[None]:
    """Tell the SDK by the variables that it reads before it asks Git itself: in the working folder, with a status that
    goes through all of `data_blobs/`, and with the password that a remote's address may have.
    """
    given = {}
    if state:
        given = {name: str(state[key]) for key, name in _VARIABLES.items() if state.get(key) is not None}
        remote = ask_git(root, "ls-remote", "--get-url")
        if remote is not None and remote.code == 0:
            given[_ADDRESS] = _LOGIN.sub("", remote.output)
    given = {name: value for name, value in given.items() if name not in os.environ}
    os.environ.update(given)
    try:
        yield
    finally:
        for name in given:
            os.environ.pop(name, None)


def hand_over(connection: Connection, record: RunRecord, path: Path) -> AcceptedJob:
    """Raises as `submit_job` does."""
    with connection.sdk.client():
        from azure.ai.ml import load_job
        from azure.ai.ml.exceptions import MlException
        from marshmallow.exceptions import ValidationError

        try:
            job = load_job(path)
        except (MlException, ValidationError) as error:
            raise UsageError(f"azure-ai-ml does not accept {record.spec.script}: {first_line(error)}") from error
    job.name = record.run
    job.display_name = job.display_name or record.run
    job.experiment_name = record.spec.experiment
    job.tags = {**(job.tags or {}), **record.spec.tags}
    job.properties = {**(job.properties or {}), **run_properties(record)}
    with contextlib.redirect_stderr(io.StringIO()):  # the SDK tells of each upload
        return submit_job(connection, job, record.spec.git)
