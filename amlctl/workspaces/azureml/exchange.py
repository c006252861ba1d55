"""HTTP with kept-alive connections. All repetitions of the Azure ML workspace happen here and nowhere else."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from amlctl.azure_access.connections import Connections
from amlctl.azure_access.network_errors import is_lasting, is_silence, reason_of, unreachable
from amlctl.azure_access.response import answer_of, retry_after_s
from amlctl.azure_access.retries import Attempts, Retries
from amlctl.core.events import EventSink, Unanswered, null_sink

if TYPE_CHECKING:
    from azure.core.exceptions import HttpResponseError

_TRIES = 5
_NAME = "Azure ML"
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_NOT_ACTED_ON = frozenset({429})
"""After these a request may be sent again whatever it does."""


@dataclass(frozen=True)
class Answer:
    """Status, headers (lower-case names), the body's bytes. `was_repeated`: an earlier try may have acted."""

    status: int
    headers: Mapping[str, str]
    data: bytes
    was_repeated: bool = False

    @cached_property
    def document(self) -> Any:
        """The body as JSON; None where it is none."""
        try:
            return json.loads(self.data)
        except ValueError:
            return None

    @property
    def code(self) -> str:
        """The service's name of an error: the innermost one, which says most."""
        error = self._error
        codes = [str(error.get("code") or "")]
        for one in error.get("additionalInfo") or []:
            if isinstance(one, dict) and one.get("type") == "InnerError":
                inner = (one.get("info") or {}).get("value")
                while isinstance(inner, dict):
                    codes.append(str(inner.get("code") or ""))
                    inner = inner.get("innerError")
        return next((code for code in reversed(codes) if code), "")

    @property
    def message(self) -> str:
        """The service's own words, on one line."""
        return " ".join(str(self._error.get("message") or "").split())

    @property
    def correlation_id(self) -> str:
        headers = self.headers
        return headers.get("x-ms-correlation-request-id", "") or headers.get("x-ms-request-id", "")

    @property
    def _error(self) -> Mapping[str, Any]:
        document = self.document
        error = document.get("error") if isinstance(document, dict) else None
        return error if isinstance(error, dict) else {}


def answer_of_error(error: HttpResponseError) -> Answer:
    """The answer that azure-core has made an exception of."""
    response: Any = error.response
    headers = {} if response is None else {name.lower(): value for name, value in response.headers.items()}
    return Answer(int(error.status_code or 0), headers, b"" if response is None else response.text().encode())


class Exchange:
    """Thread-safe."""

    def __init__(
        self,
        variables: Mapping[str, str],
        *,
        sleep: Callable[[float], object] = time.sleep,
        tell: EventSink = null_sink,
    ) -> None:
        """`tell` gets an event for each repeated request."""
        self._variables = variables
        self._tell = tell
        self._retries = Retries(_NAME, _TRIES, sleep, tell)
        self._hosts: dict[tuple[str, int], Connections] = {}
        self._lock = Lock()

    def close(self) -> None:
        with self._lock:
            hosts, self._hosts = self._hosts, {}
        for connections in hosts.values():
            connections.close()

    def send(
        self,
        verb: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        is_repeatable: bool = True,
    ) -> Answer:
        """Whatever the service answers in the end.

        What is not repeatable goes out again only if it cannot have been acted on. Raises ServiceUnavailable where no
        answer came, SettingsError (proxy, certificates).
        """
        was_repeated = False
        attempts = self._retries.begin()
        while True:
            try:
                answer = self._once(verb, url, headers, body, is_repeatable, was_repeated)
            except _NoAnswerError as failure:
                error = failure.error
                may_repeat = not is_lasting(error) and (is_repeatable or not failure.was_sent)
                if not may_repeat or not attempts.again(reason_of(error), is_silent=is_silence(error)):
                    host = urlsplit(url).hostname or ""
                    raise unreachable(host, error, "workspace and its cloud", attempts.so_far()) from error
                was_repeated = was_repeated or failure.was_sent
            else:
                attempts.answered()
                if answer.status not in (_AGAIN if is_repeatable else _NOT_ACTED_ON):
                    return answer
                if not self.again(attempts, answer):
                    return answer
                was_repeated = True

    def begin(self) -> Attempts:
        """For who repeats a request by the content of its answer."""
        return self._retries.begin()

    def again(self, attempts: Attempts, answer: Answer) -> bool:
        """Whether another attempt follows after this answer; it waits for that, as long as the answer asks for."""
        reason = f"{answer.status} {answer.code or http.client.responses.get(answer.status, '')}".rstrip()
        return attempts.again(reason, asked_s=retry_after_s(answer.headers))

    def _on_silence(self, waited_s: float, limit_s: float) -> None:
        self._tell(Unanswered(_NAME, waited_s, limit_s))

    def _once(
        self,
        verb: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        is_repeatable: bool,
        was_repeated: bool,
    ) -> Answer:
        parts = urlsplit(url)
        connections = self._connections(url)
        target = connections.target_prefix + parts.path + (f"?{parts.query}" if parts.query else "")
        # A kept connection may just be closing, and then nobody knows whether the request was read.
        fresh = not is_repeatable
        while True:
            was_sent = False
            try:
                with connections.borrow(fresh=fresh) as (connection, is_used):
                    was_sent = True
                    try:
                        connection.request(verb, target, body, {**headers, **connections.headers})
                        response = answer_of(connection, len(body or b""), self._on_silence)
                    except (ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected):
                        if not is_used:
                            raise
                        fresh = was_repeated = True
                        connection.close()
                        continue
                    with response:  # one that is the last of its connection holds it alone
                        data = response.read()
                        found = response.fields
                        if response.will_close:
                            connection.close()
                return Answer(response.status, found, data, was_repeated)
            except (OSError, http.client.HTTPException) as error:
                raise _NoAnswerError(error, was_sent) from error

    def _connections(self, url: str) -> Connections:
        parts = urlsplit(url)
        is_https = parts.scheme == "https"
        key = (parts.hostname or "", parts.port or (443 if is_https else 80))
        with self._lock:
            if key not in self._hosts:
                self._hosts[key] = Connections(*key, is_https=is_https, variables=self._variables)
            return self._hosts[key]


class _NoAnswerError(Exception):
    def __init__(self, error: Exception, was_sent: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.was_sent = was_sent
