"""The one layer that repeats requests to Azure, given to clients of the SDKs by their public `retry_policy=`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from azure.core.exceptions import AzureError, ServiceRequestError
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import HTTPPolicy

from amlctl.azure_access.answered import Answered
from amlctl.azure_access.network_errors import is_lasting, is_silence, reason_of, unreachable
from amlctl.azure_access.response import retry_after_s
from amlctl.azure_access.retries import Retries
from amlctl.azure_access.transport import Transport

AGAIN = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses of a service that is likely to answer otherwise soon."""
_NOT_ACTED_ON = frozenset({429})
"""After these a request may be sent again whatever it does."""


class RetryPolicy(HTTPPolicy[Any, Any]):
    """Repeats what `Retries` allows. Thread-safe.

    A request whose option `is_repeatable` is False goes out again only where the service cannot have acted on it.
    """

    def __init__(
        self,
        retries: Retries,
        transport: Transport,
        *,
        named_by: str,
        reason: Callable[[Answered], str],
        renew: Callable[[], bool] | None = None,
    ) -> None:
        """`named_by` is what the host's name comes from, for an error; `reason` says why a status is tried again;
        `renew` asks for another right after a 401."""
        super().__init__()
        self._retries = retries
        self._transport = transport
        self._named_by = named_by
        self._reason = reason
        self._renew = renew

    def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        """The answer, of whatever status; `attempts` of it is set where that was tried again in vain.

        Raises ServiceUnavailable where none came, and what the transport raises.
        """
        options = request.context.options
        is_repeatable = options.pop("is_repeatable", True)
        mode = options.pop("location_mode", "primary")
        options.pop("hosts", None)  # secondary hosts are read-only copies that lag behind
        options["since"] = since = self._transport.interrupts.count
        was_repeated = is_renewed = False
        attempts = self._retries.begin()
        while True:
            try:
                response = self.next.send(request)
            except AzureError as failure:
                error = failure.inner_exception
                if not isinstance(error, Exception):
                    raise
                self._transport.interrupts.check(since)
                may_have_acted = not isinstance(failure, ServiceRequestError)
                may_repeat = not is_lasting(error) and (is_repeatable or not may_have_acted)
                if not may_repeat or not attempts.again(reason_of(error), is_silent=is_silence(error)):
                    host = urlsplit(request.http_request.url).hostname or ""
                    raise unreachable(host, error, self._named_by, attempts.so_far()) from error
                was_repeated = was_repeated or may_have_acted
                continue
            answer: Answered = response.http_response
            attempts.answered()
            answer.was_repeated = answer.was_repeated or was_repeated
            answer.location_mode = mode
            status = answer.status_code
            if status == 401 and not is_renewed and self._renew is not None and self._renew():
                is_renewed = True
            elif status not in (AGAIN if is_repeatable else _NOT_ACTED_ON):
                return response
            elif not attempts.again(self._reason(answer), asked_s=retry_after_s(answer.headers)):
                answer.attempts = attempts.so_far()
                return response
            was_repeated = True
