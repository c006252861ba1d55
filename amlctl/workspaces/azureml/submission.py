"""One PUT creates a job, and neither a lost answer nor a repetition creates a second one.

The SDK sends the job once. When no answer comes, or one that says nothing about the job, a look tells whether the
service has it: the id was chosen here. Only then is it sent again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amlctl.azure_access.azure_ai_ml import first_line
from amlctl.core.message import Command, Message
from amlctl.errors import AmlctlError, ServiceUnavailable, Unconfirmed, UsageError
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.azureml.exchange import Answer, answer_of_error
from amlctl.workspaces.azureml.git_of_job import git_of_job

if TYPE_CHECKING:
    from azure.ai.ml.entities import Job

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
