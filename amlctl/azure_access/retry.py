"""The only retry layer for Azure, passed to SDK clients by their public argument `retry_policy=`.

A request is given up after its last attempt, or once its host has been silent for `SILENCE_S` in total: a host that
accepts connections and never answers costs a full timeout each time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from azure.core.exceptions import AzureError, ServiceRequestError
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import HTTPPolicy

from amlctl.azure_access.http import MemoryResponse, seconds_of
from amlctl.azure_access.network_errors import is_lasting, is_silence, reason_of, unreachable
from amlctl.azure_access.transport import Transport
from amlctl.core.events import EventSink, Retried, null_sink
from amlctl.errors import ServiceUnavailable

RETRIED_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
"""A service with one of these is likely to answer differently soon."""
_NOT_ACTED_ON = frozenset({429})
"""After these any request may be sent again."""
FIRST_WAIT_S = 0.4
"""Doubles with each attempt; each wait is between half of that and all of it."""
LONGEST_WAIT_S = 30.0
LONGEST_RETRY_AFTER_S = 60.0
"""Limit for Retry-After: a bad value must not block a command for a day."""
SILENCE_S = 75.0
"""Limit for the total time without a response, over all attempts of one request."""


@dataclass
class Retries:
    """Of one client; thread-safe. `name` is the service's name in events."""

    name: str
    tries: int
    sleep: Callable[[float], object]
    tell: EventSink = null_sink
    is_lost: bool = False
    """The host was given up as silent and has not answered since: further requests get one attempt each."""


class Attempts:
    """The attempts of one request, from its beginning. Not thread-safe."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries
        self._begun_s = self._attempt_s = time.monotonic()
        self._failed = 0
        self._silent_s = 0.0

    def answered(self) -> None:
        self._retries.is_lost = False

    def again(self, reason: str, *, asked_s: float = 0.0, is_silent: bool = False) -> bool:
        """After a failed attempt: False if it was the last one; otherwise reports `reason` and waits.

        `asked_s` is the service's Retry-After; `is_silent`: the attempt ended because no response came.
        """
        retries = self._retries
        took_s = time.monotonic() - self._attempt_s
        self._failed += 1
        if is_silent:
            self._silent_s += took_s
            if self._silent_s >= SILENCE_S:
                retries.is_lost = True
        if self._failed >= retries.tries or (is_silent and retries.is_lost):
            return False
        wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (self._failed - 1)) * random.uniform(0.5, 1.0)
        wait_s = max(wait_s, min(LONGEST_RETRY_AFTER_S, asked_s))
        if asked_s > LONGEST_RETRY_AFTER_S:
            reason = f"{reason}, which asks to wait {asked_s:,.0f} s"
        retries.tell(Retried(retries.name, self._failed, retries.tries - 1, reason, wait_s, took_s))
        retries.sleep(wait_s)
        self._attempt_s = time.monotonic()
        return True

    def so_far(self) -> str:
        """`6 attempts in 52 s`, for the error of a request that was given up."""
        attempts = f"{self._failed} attempt{'s' if self._failed != 1 else ''}"
        return f"{attempts} in {time.monotonic() - self._begun_s:.0f} s"


class RetryPolicy(HTTPPolicy[Any, Any]):
    """Thread-safe. A request whose option `is_repeatable` is False is sent again only if the service cannot have acted
    on it."""

    def __init__(
        self,
        retries: Retries,
        transport: Transport,
        *,
        host_source: str,
        reason: Callable[[MemoryResponse], str],
        codes: Collection[str] = (),
        renew: Callable[[Any], bool] | None = None,
    ) -> None:
        """`host_source` is where the host's name comes from, for errors; `reason` explains a status that is retried;
        `codes` are errors of the service that are retried whatever their status; `renew` gets new credentials after a
        401, and whatever of them the request itself carries."""
        super().__init__()
        self._retries = retries
        self._transport = transport
        self._host_source = host_source
        self._reason = reason
        self._codes = codes
        self._renew = renew

    def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        """The response, of any status; its `attempts` is set if retries were used up.

        Raises ServiceUnavailable without a response, and what the transport raises.
        """
        options = request.context.options
        is_repeatable = options.pop("is_repeatable", True)
        mode = options.pop("location_mode", "primary")
        options.pop("hosts", None)  # secondary hosts are read-only copies that lag behind
        options["since"] = since = self._transport.interrupts.count
        was_repeated = is_renewed = was_sent = False
        attempts = Attempts(self._retries)
        while True:
            try:
                response = self.next.send(request)
            except AzureError as failure:
                error = failure.inner_exception
                if not isinstance(error, Exception):
                    raise
                self._transport.interrupts.check(since)
                may_have_acted = not isinstance(failure, ServiceRequestError)
                was_sent = was_sent or may_have_acted
                may_repeat = not is_lasting(error) and (is_repeatable or not may_have_acted)
                if not may_repeat or not attempts.again(reason_of(error), is_silent=is_silence(error)):
                    host = urlsplit(request.http_request.url).hostname or ""
                    problem = unreachable(host, error, self._host_source, attempts.so_far())
                    if isinstance(problem, ServiceUnavailable):
                        problem.was_sent = was_sent
                    raise problem from error
                was_repeated = was_repeated or may_have_acted
                continue
            answer: MemoryResponse = response.http_response
            attempts.answered()
            answer.was_repeated = answer.was_repeated or was_repeated
            answer.location_mode = mode
            status = answer.status_code
            was_sent = was_sent or status not in _NOT_ACTED_ON
            if status == 401 and not is_renewed and self._renew is not None and self._renew(request.http_request):
                is_renewed = True
            elif not (self._is_passing(answer) if is_repeatable else status in _NOT_ACTED_ON):
                return response
            elif not attempts.again(self._reason(answer), asked_s=retry_after_s(answer.headers)):
                answer.attempts = attempts.so_far()
                return response
            was_repeated = True

    def _is_passing(self, answer: MemoryResponse) -> bool:
        return answer.status_code in RETRIED_STATUSES or answer.headers.get("x-ms-error-code") in self._codes


def retry_after_s(fields: Mapping[str, str]) -> float:
    """The wait that the service asks for; 0 without one."""
    text = fields.get("retry-after", "")
    milliseconds = fields.get("x-ms-retry-after-ms", fields.get("retry-after-ms", ""))
    try:
        if milliseconds:
            return float(milliseconds) / 1000
        if text.isdecimal():
            return float(text)
    except ValueError:
        return 0.0
    at_s = seconds_of(text)
    return 0.0 if at_s is None else max(0.0, at_s - time.time())
