"""From a record, or a job file of any type, to a job: code version, environment, compute target, store, and one PUT.

The SDK sends that PUT once, and neither a lost answer nor a retry creates a second job: without an answer, or after one
that says nothing about the job, it is looked up under its id, which was chosen here. Only then is it sent again.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amlctl.azure_access.azure_ai_ml import first_line
from amlctl.azure_access.retry import Attempts, retry_after_s
from amlctl.config.environment_file import recorded_environment
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
from amlctl.workspaces.azureml.assets import ensure_code, ensure_environment
from amlctl.workspaces.azureml.clients import Answer, answer_of_error
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.azureml.datastores import default_datastore, store_address
from amlctl.workspaces.azureml.job import JobParts, job_document, run_properties
from amlctl.workspaces.azureml.sweeps import sweep_document

if TYPE_CHECKING:
    from azure.ai.ml.entities import Job

_JOB_VERSION = "2025-01-01-preview"
_UNCLEAR = (408, 500, 502, 503, 504)
"""The service may have acted nevertheless."""
_GIT_VARIABLES = {"commit": "AZUREML_GIT_COMMIT", "branch": "AZUREML_GIT_BRANCH", "dirty": "AZUREML_GIT_DIRTY"}
_GIT_REMOTE = "AZUREML_GIT_REPOSITORY_URI"
_URL_LOGIN = re.compile(r"(?<=://)[^/]*@")
"""Up to the last @ before the path: a password may have others."""


@dataclass(frozen=True)
class AcceptedJob:
    """From the service's answer; both may be empty."""

    status: str
    studio_url: str


def start_job(
    connection: Connection,
    store: Store,
    open_store: Callable[[str], Store],
    record: RunRecord,
    secrets: Mapping[str, str],
    trials: Sequence[RunRecord] = (),
) -> AcceptedJob:
    """`open_store` is used if code has to be in another store than the run's own. `trials` are the runs of a sweep.

    Raises what the contract says, SettingsError (store).
    """

    def submit() -> AcceptedJob:
        parts = _parts(connection, store, open_store, record, secrets)
        document = sweep_document(record, trials, parts, secrets) if trials else job_document(record, parts, secrets)
        return submit_job(connection, connection.sdk.loaded_job(document), record.spec.git)

    try:
        return submit()
    except (NotFound, UsageError):
        if not connection.memory.get("codes"):
            raise
        # What this machine remembers may be about a workspace that was deleted and created again.
        connection.memory.forget("codes", "environments")
        return submit()


def hand_over(connection: Connection, record: RunRecord, path: Path) -> AcceptedJob:
    """Submit a job file of any type as it is. Raises what `submit_job` raises."""
    job: Any = connection.sdk.loaded_job(path, record.spec.script)
    job.name = record.run
    job.display_name = job.display_name or record.run
    job.experiment_name = record.spec.experiment
    job.tags = {**(job.tags or {}), **record.spec.tags}
    job.properties = {**(job.properties or {}), **run_properties(record)}
    with contextlib.redirect_stderr(io.StringIO()):  # the SDK reports each upload
        return submit_job(connection, job, record.spec.git)


def _parts(
    connection: Connection,
    store: Store,
    open_store: Callable[[str], Store],
    record: RunRecord,
    secrets: Mapping[str, str],
) -> JobParts:
    store_uri, address = store_address(connection, store.url)
    default = default_datastore(connection)
    root = address
    if not default.holds(address):
        root = parse_address(default.url)[0]
        copy_code(store, open_store(default.url), record.spec.code)
    context_uri = f"{root.account_url}/{root.container}/{root.prefix}{code_prefix(record.spec.code)}{CONTEXT}/"
    location = ensure_environment(connection, recorded_environment(record, secrets)[0], context_uri).location
    assets = record.spec.assets
    return JobParts(
        code_id=ensure_code(connection, record.spec.code, root),
        environment=location if location.startswith("azureml:") else f"azureml:{location}",
        store_uri=store_uri,
        saves_uri=store_uri + ("" if record.spec.produces or record.spec.sweep else run_prefix(record.run)),
        data_uris={name: filled(one["asset"], secrets) for name, one in assets.items()},
        identity=connection.identity,
    )


def submit_job(connection: Connection, job: Job, git: Mapping[str, Any] | None = None) -> AcceptedJob:
    """`git` is the state of the project (`RunRecord.git`).

    Raises UsageError and the like (refused), ServiceUnavailable (not accepted), Unconfirmed (nothing is known)."""
    run = str(job.name)
    may_exist = False
    attempts = Attempts(connection.exchange.retries)
    with _git_variables(connection.project.root, git):
        while True:
            outcome = _put(connection, job)
            if isinstance(outcome, AcceptedJob):
                return outcome
            if isinstance(outcome, Answer):
                failure = connection.error(outcome, "PUT", f"{connection.address.path}/jobs/{run}")
                is_unclear = outcome.status in _UNCLEAR or outcome.status < 400
                may_exist = may_exist or is_unclear
            else:
                failure, is_unclear = outcome, True
                may_exist = may_exist or outcome.was_sent
            if may_exist and (present := _present(connection, run)) is not None:
                return present
            if not is_unclear:
                raise failure
            if isinstance(outcome, Answer):
                is_another = attempts.again(outcome.reason, asked_s=retry_after_s(outcome.headers))
            else:
                is_another = attempts.again(failure.message)
            if not is_another:
                raise _unconfirmed(run, failure) if may_exist else failure


def _put(connection: Connection, job: Job) -> AcceptedJob | Answer | ServiceUnavailable:
    """The job, the service's refusal, or why no answer came."""
    from azure.ai.ml.exceptions import MlException
    from azure.core.exceptions import HttpResponseError

    try:
        with connection.sdk.client() as client:
            # `load_job` has validated it already; doing so again takes as long as all the rest.
            made = client.jobs.create_or_update(job, skip_validation=True)
    except HttpResponseError as error:
        return answer_of_error(error)
    except MlException as error:
        if (present := _present(connection, str(job.name))) is not None:  # it may be about the answer
            return present
        raise UsageError(f"azure-ai-ml does not accept the job: {first_line(error)}") from error
    except ServiceUnavailable as error:
        return error
    return AcceptedJob(str(getattr(made.status, "value", made.status) or ""), str(made.studio_url or ""))


def _present(connection: Connection, run: str) -> AcceptedJob | None:
    """The job, if the service has it. Raises Unconfirmed."""
    try:
        found = connection.workspace("GET", f"/jobs/{run}", _JOB_VERSION, accept=(404,))
    except AmlctlError as error:
        raise _unconfirmed(run, error) from error
    if found.status == 404:
        return None
    properties: dict[str, Any] = found.document.get("properties") or {}
    studio = (properties.get("services") or {}).get("Studio") or {}
    return AcceptedJob(str(properties.get("status") or ""), str(studio.get("endpoint") or ""))


def _unconfirmed(run: str, failure: AmlctlError) -> Unconfirmed:
    return Unconfirmed(
        f"Azure ML may or may not have accepted the job {run}: {failure.message}",
        hint=Message(Command("runs", "show", run), " shows it as soon as Azure ML answers again"),
    )


@contextmanager
def _git_variables(root: Path, state: Mapping[str, Any] | None) -> Iterator[None]:
    """Pass the project's Git state to the SDK in the variables that it reads. It would ask Git itself: in the working
    folder, with a status of all of `data_blobs/`, and with the password that the URL of a remote may have."""
    given = {}
    if state:
        given = {name: str(state[key]) for key, name in _GIT_VARIABLES.items() if state.get(key) is not None}
        remote = ask_git(root, "ls-remote", "--get-url")
        if remote is not None and remote.code == 0:
            given[_GIT_REMOTE] = _URL_LOGIN.sub("", remote.output)
    given = {name: value for name, value in given.items() if name not in os.environ}
    os.environ.update(given)
    try:
        yield
    finally:
        for name in given:
            os.environ.pop(name, None)
