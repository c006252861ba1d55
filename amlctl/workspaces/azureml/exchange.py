"""HTTP with kept-alive connections. All repetitions of the Azure ML workspace happen here and nowhere else."""

from __future__ import annotations

import http.client
import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from amlctl.stores.azure_blob.connections import Connections
from amlctl.stores.azure_blob.network_errors import is_lasting, unreachable
from amlctl.stores.azure_blob.response import answer_of, retry_after_s

_TRIES = 5
_FIRST_WAIT_S = 0.4
_LONGEST_WAIT_S = 60.0
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


class Exchange:
    """Thread-safe."""

    def __init__(self, variables: Mapping[str, str], *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._variables = variables
        self._sleep = sleep
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
        for attempt in range(_TRIES):
            is_last = attempt == _TRIES - 1
            answer = None
            try:
                answer = self._once(verb, url, headers, body, is_repeatable, was_repeated)
            except _NoAnswerError as failure:
                error = failure.error
                if is_last or is_lasting(error) or (failure.was_sent and not is_repeatable):
                    raise unreachable(urlsplit(url).hostname or "", error, "workspace and its cloud") from error
                was_repeated = was_repeated or failure.was_sent
            else:
                again = _AGAIN if is_repeatable else _NOT_ACTED_ON
                if is_last or answer.status not in again:
                    return answer
                was_repeated = True
            self.pause(attempt, answer)
        raise AssertionError("the last try returns or raises")

    def pause(self, attempt: int, answer: Answer | None) -> None:
        """Before the next try: longer with each (`attempt` counts from 0), and as long as the answer asks for."""
        wait_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**attempt) * random.uniform(0.5, 1.0)
        asked_s = 0.0 if answer is None else min(_LONGEST_WAIT_S, retry_after_s(answer.headers))
        self._sleep(max(wait_s, asked_s))

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
                        response = answer_of(connection)
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
