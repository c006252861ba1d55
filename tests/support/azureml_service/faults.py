"""The switches: what a test can tell the service to do badly."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Literal

from tests.support.wire_faults import Fault

from .replies import Reply, arm_error


@dataclass
class _Planned:
    pattern: re.Pattern[str]
    times: int
    reply: Reply | None
    """None: the service acts, and the connection ends before its answer."""


@dataclass
class Faults:
    """Attributes are set while the service runs; patterns are searched in `METHOD /path`, in any case."""

    latency_s: float = 0.0
    """Added to each request."""
    clock_ahead_s: float = 0.0
    """How much later the service's clock is, as its Date headers tell."""
    state_s: float = 0.02
    """How long a job stays in each state that is only passed through."""
    operation_s: float = 0.05
    """How long an operation on a compute, or a cancel, is InProgress."""
    sends_retry_after: bool = False
    """With `Retry-After: 1` on long-running operations; the real service sends none."""
    secrets: Literal["key", "sas", "denied", "rotated"] = "key"
    has_identity_datastores: bool = False
    """Datastores with credentialsType None."""
    signed_for_s: float = 8 * 3600.0
    """Life of the log addresses; below zero they are old already."""
    logs_listed_after_s: float = 0.0
    """Seconds from the start of the command in which the run details list no log."""
    last_lines_after_s: float = 0.0
    """The last three lines of a log can be read only so long after the run's end."""
    log_after_preemption: Literal["rewritten", "continued", "apart"] = "rewritten"
    """In the same file, or in one of its own below `retry_001/`."""
    log_digits: int = 1
    """Of the numbers in names of logs; the real service pads them where there are many processes."""
    node_start_s: float = 0.0
    """How long nodes take to come, with the job still Queued."""
    cancel_grace_s: float = 30.0
    """Between SIGTERM and SIGKILL."""
    image_build_s: float = 0.0
    image_build_fails: bool = False
    """For environments that no job has used yet."""
    holds_queue: bool = False
    """Jobs stay Queued until it is False again."""
    quota: Literal["", "refused", "operation", "nodes"] = ""
    """No cores: a new cluster is refused, its operation fails, or nodes never come while jobs stay Queued."""
    cancel_after_end: Literal[200, 400] = 400
    page_size: int = 50
    has_empty_page: bool = False
    """The second page of a list is empty, with a further one behind it."""
    has_tracking: bool = False
    """Nodes name an MLflow server, as those of the real service do; its calls are among all others."""
    wire: Callable[[str, str], Fault | None] | None = None
    """By method and target: what happens on the wire instead of a reply."""
    _planned: list[_Planned] = field(default_factory=list, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def answer(
        self,
        status: int,
        pattern: str = "",
        *,
        times: int = 1,
        retry_after_s: float | None = None,
        code: str = "",
        message: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """The next `times` matching requests get this answer, and nothing is done."""
        sent = dict(headers or {})
        if retry_after_s is not None:
            sent["Retry-After"] = f"{retry_after_s:g}"
        names = {401: "InvalidAuthenticationToken", 403: "AuthorizationFailed", 429: "TooManyRequests"}
        name = code or names.get(status, "InternalServerError" if status >= 500 else "BadRequest")
        self._plan(
            pattern, times, arm_error(status, name, message or f"The request was answered with {status}.", sent).reply
        )

    def lose_answer(self, pattern: str = "", *, times: int = 1) -> None:
        """The next `times` matching requests are acted upon, and the connection ends without an answer."""
        self._plan(pattern, times, None)

    def deny(self, pattern: str, action: str) -> None:
        """403 for every matching request from now on, as for a role without the action."""
        message = (
            f"The client 'test' with object id '00000000-0000-0000-0000-000000000001' does not have authorization "
            f"to perform action '{action}' over scope '/subscriptions' or the scope is invalid."
        )
        self._plan(pattern, 1 << 30, arm_error(403, "AuthorizationFailed", message).reply)

    def reset(self) -> None:
        """Behave again."""
        fresh = Faults()
        for one in fields(self):
            if one.name != "_lock":
                setattr(self, one.name, getattr(fresh, one.name))

    @contextmanager
    def while_testing(self) -> Iterator[Faults]:
        """Reset before and after."""
        self.reset()
        try:
            yield self
        finally:
            self.reset()

    def next_for(self, method: str, path: str) -> tuple[Reply | None, bool]:
        """The answer to give instead of acting, if any, and whether the answer gets lost."""
        with self._lock:
            for one in self._planned:
                if one.times and one.pattern.search(f"{method} {path}"):
                    one.times -= 1
                    return one.reply, one.reply is None
        return None, False

    def _plan(self, pattern: str, times: int, reply: Reply | None) -> None:
        with self._lock:
            self._planned.append(_Planned(re.compile(pattern, re.IGNORECASE), times, reply))
