"""HTTP with Azure ML: azure-core pipelines over amlctl's transport and retries, and `MLClient` of azure-ai-ml.

Importing azure-ai-ml takes more than a second of processor time, so reading commands must not reach `SDKClient`, and a
submit starts the import early, while it waits for the network.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from azure.core import PipelineClient
from azure.core.exceptions import AzureError
from azure.core.pipeline import Pipeline
from azure.core.pipeline.policies import BearerTokenCredentialPolicy
from azure.core.rest import HttpRequest

from amlctl.azure_access.azure_ai_ml import CLOUD_VARIABLE, azure_ai_ml, first_line
from amlctl.azure_access.http import MemoryResponse
from amlctl.azure_access.login import Login
from amlctl.azure_access.retry import RETRIED_STATUSES, Retries, RetryPolicy
from amlctl.azure_access.transport import SharedTransport, Transport
from amlctl.core.events import EventSink, null_sink
from amlctl.errors import AmlctlError, ServiceUnavailable, UsageError
from amlctl.workspaces.azureml.address import Cloud, WorkspaceAddress
from amlctl.workspaces.azureml.documents import as_object, invalid_answer, objects, parsed

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import Job
    from azure.core.exceptions import HttpResponseError

_NAME = "Azure ML"
_TRIES = 5
_GZIP = 16 + zlib.MAX_WBITS
_MAX_BYTES = 64 << 20
"""Of a response, packed and unpacked; lists come in pages, logs in ranges."""
_REUSED = ("GET", "HEAD", "POST", "PATCH", "DELETE")
"""A PUT may create a job: it uses a new connection, so that a closed one leaves no doubt whether it was received."""
_JOB_URL = re.compile(r"/jobs/[^/?]+(?:\?|$)")
_SIGNS = frozenset(
    {"x-ms-request-id", "x-ms-correlation-request-id", "x-ms-version", "x-ms-error-code", "x-request-time"}
)
"""Answers of Azure have at least one of these headers; a login page of the network does not."""
_POLL_S = 1.0
"""For long-running operations: the service does not say when to ask again, and azure-core's default is 30 s."""


@dataclass(frozen=True)
class Answer:
    """Headers have lower-case names."""

    status: int
    headers: Mapping[str, str]
    data: bytes

    @cached_property
    def document(self) -> Mapping[str, Any]:
        """The body as a JSON object; empty if it is not a valid one."""
        return self._parsed[0]

    @property
    def problem(self) -> str:
        """Why the body is not a valid document, in words that follow "the answer is not valid:"."""
        return self._parsed[1]

    @cached_property
    def _parsed(self) -> tuple[Mapping[str, Any], str]:
        try:
            return parsed(self.data), ""
        except ValueError as error:
            return {}, str(error)

    @property
    def code(self) -> str:
        """The service's name of an error: the innermost one, which says most."""
        error = self._error
        codes = [str(error.get("code") or "")]
        for one in objects(error.get("additionalInfo")):
            if one.get("type") == "InnerError":
                inner = as_object(one.get("info")).get("value")
                while isinstance(inner, dict):
                    codes.append(str(inner.get("code") or ""))
                    inner = inner.get("innerError")
        return next((code for code in reversed(codes) if code), "")

    @property
    def message(self) -> str:
        """The service's words on one line."""
        return " ".join(str(self._error.get("message") or "").split())

    @property
    def reason(self) -> str:
        """Status and code: why a request is repeated."""
        return f"{self.status} {self.code or http.client.responses.get(self.status, '')}".rstrip()

    @property
    def correlation_id(self) -> str:
        headers = self.headers
        return headers.get("x-ms-correlation-request-id", "") or headers.get("x-ms-request-id", "")

    @property
    def _error(self) -> Mapping[str, Any]:
        return as_object(self.document.get("error"))


def _check_origin(status: int, headers: Mapping[str, str]) -> None:
    """Raises ServiceUnavailable for the page of something else. Gateways may fail and proxies refuse."""
    is_page = "html" in headers.get("content-type", "") and not _SIGNS & headers.keys()
    if 300 <= status < 400 or (is_page and status not in RETRIED_STATUSES and status != 407):
        what = "a page" if is_page else "a redirect"
        raise ServiceUnavailable(
            f"Azure ML was not reached: {what} of something else came back, with status {status}",
            hint="log in to the network or its proxy (open any page in a browser), or check HTTPS_PROXY and NO_PROXY; "
            "then run the same command again",
        )


def answer_of(response: MemoryResponse) -> Answer:
    data = response.content
    if response.headers.get("content-encoding", "").lower() == "gzip":
        unpacker = zlib.decompressobj(_GZIP)
        with suppress(zlib.error):
            data = unpacker.decompress(data, _MAX_BYTES)
        if not unpacker.eof:  # cut off, damaged or too large
            data = b""
    return Answer(response.status_code, response.headers, data)


def answer_of_error(error: HttpResponseError) -> Answer:
    response: Any = error.response
    return Answer(int(error.status_code or 0), {}, b"") if response is None else answer_of(response)


class Exchange:
    """Thread-safe."""

    def __init__(
        self,
        variables: Mapping[str, str],
        login: Login,
        cloud: Cloud,
        *,
        sleep: Callable[[float], object] = time.sleep,
        tell: EventSink = null_sink,
    ) -> None:
        """`tell` gets an event for each retry."""
        self.retries = Retries(_NAME, _TRIES, sleep, tell)
        self._transport = Transport(
            _NAME, variables, repeats=_REUSED, max_bytes=_MAX_BYTES, inspect=_check_origin, tell=tell
        )

        def renew(request: HttpRequest) -> bool:
            request.headers["Authorization"] = f"Bearer {login.token(cloud.audience, is_fresh=True).token}"
            return True

        bearer = BearerTokenCredentialPolicy(login, f"{cloud.audience}/.default")
        self._public = self._client(self._policy())
        self._authorized = self._client(self._policy(renew), bearer)
        of_sdk = self._policy(lambda request: cloud.has_manager(request.url) and renew(request))
        self.sdk_transport = SDKTransport(Pipeline(self._transport, policies=[of_sdk]), self._transport)

    def close(self) -> None:
        """Close idle connections; the next request opens new ones."""
        self._transport.close()

    def send(
        self,
        verb: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        is_authorized: bool = False,
    ) -> Answer:
        """The answer, with any status; `is_authorized` sends the login along.

        Raises ServiceUnavailable without an answer, SettingsError (proxy, certificates), LoginError.
        """
        client = self._authorized if is_authorized else self._public
        return answer_of(client.send_request(HttpRequest(verb, url, headers=dict(headers), content=body)))

    def _policy(self, renew: Callable[[HttpRequest], bool] | None = None) -> RetryPolicy:
        return RetryPolicy(
            self.retries,
            self._transport,
            host_source="workspace and its cloud",
            reason=lambda response: answer_of(response).reason,
            renew=renew,
        )

    def _client(self, *policies: Any) -> PipelineClient[Any, Any]:
        return PipelineClient("", pipeline=Pipeline(self._transport, policies=policies))


class SDKTransport(SharedTransport):
    """For the SDK's clients, whose own retries are off: requests use amlctl's retry policy, except the PUT of a job,
    which is looked up before it is sent again (`starting.submit_job`)."""

    def __init__(
        self,
        pipeline: Pipeline[Any, Any],
        transport: Transport,
    ) -> None:
        self._pipeline = pipeline
        self._transport = transport
        self.answers = 0
        """Number of answers of the service so far."""

    def send(self, request: Any, **options: Any) -> Any:
        is_repeatable = request.method != "PUT" or _JOB_URL.search(request.url) is None
        response = self._pipeline.run(request, is_repeatable=is_repeatable).http_response
        self.answers += 1
        return response

    def sleep(self, duration: float) -> None:
        self._transport.sleep(duration)


class SDKClient:
    """One `MLClient` per workspace. Used from one thread."""

    def __init__(self, address: WorkspaceAddress, login: Login, transport: SDKTransport) -> None:
        self._address = address
        self._login = login
        self._transport = transport
        self._cloud = f"amlctl-{uuid.uuid4().hex}"  # the addresses of a cloud that the SDK knows cannot be changed
        self._client: MLClient | None = None

    @contextmanager
    def client(self) -> Iterator[MLClient]:
        """`azure.ai.ml` can be imported and used inside."""
        with azure_ai_ml():
            if self._client is None:
                self._client = self._opened()
            os.environ[CLOUD_VARIABLE] = self._cloud
            answers = self._transport.answers
            try:
                yield self._client
            except Exception as error:
                if isinstance(error, (AmlctlError, AzureError)) or self._transport.answers == answers:
                    raise
                raise invalid_answer("this request", f"azure-ai-ml cannot read it ({type(error).__name__})") from error

    def _opened(self) -> MLClient:
        from azure.ai.ml import MLClient

        address, cloud = self._address, self._address.cloud
        options: dict[str, Any] = {"transport": self._transport, "retry_total": 0, "polling_interval": _POLL_S}
        return MLClient(
            self._login,
            address.subscription_id,
            address.resource_group,
            address.workspace_name,
            cloud=self._cloud,
            cloud_metadata={
                "azure_portal": cloud.studio,
                "resource_manager": cloud.resource_manager,
                "active_directory": cloud.authority,
                "aml_resource_id": cloud.service,
                "storage_endpoint": cloud.storage_suffix,
                "registry_discovery_endpoint": cloud.resource_manager,
            },
            enable_telemetry=False,
            show_progress=False,
            **options,
        )

    def loaded_job(self, source: Mapping[str, Any] | Path, shown: str = "the job") -> Job:
        """A job file, or a document of one, as the SDK's own object. Raises UsageError."""
        with self.client():
            from azure.ai.ml import load_job
            from azure.ai.ml.exceptions import MlException
            from marshmallow.exceptions import ValidationError

            try:
                return load_job(source if isinstance(source, Path) else io.StringIO(json.dumps(source)))
            except (MlException, ValidationError) as error:
                raise UsageError(f"azure-ai-ml does not accept {shown}: {first_line(error)}") from error
