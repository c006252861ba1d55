"""How often a request to a service is repeated, how long each repetition waits, and who is told about it.

For Blob Storage and for Azure ML alike. A request is given up after its last attempt, or earlier, once the host has
been silent for `SILENCE_S` in all: a host that accepts connections and never answers costs a full timeout each time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from amlctl.core.events import EventSink, Retried, null_sink

FIRST_WAIT_S = 0.4
"""Doubles with each attempt; each wait is between half of that and all of it."""
LONGEST_WAIT_S = 30.0
LONGEST_ASKED_S = 60.0
"""Cap for Retry-After: a value without sense must not hold a command for a day."""
SILENCE_S = 75.0
"""Longest total of answers that never came, over all attempts of one request."""


@dataclass
class Retries:
    """Of one client. Thread-safe. `name` is what people call the service."""

    name: str
    tries: int
    sleep: Callable[[float], object]
    tell: EventSink = null_sink
    is_lost: bool = False
    """The host was given up as silent, and has not answered since: further requests get one attempt each."""

    def begin(self) -> Attempts:
        return Attempts(self)


class Attempts:
    """The attempts of one request. Not thread-safe."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries
        self._begun_s = self._attempt_s = time.monotonic()
        self._failed = 0
        self._silent_s = 0.0

    def answered(self) -> None:
        self._retries.is_lost = False

    def again(self, reason: str, *, asked_s: float = 0.0, is_silent: bool = False) -> bool:
        """After a failed attempt: False if it was the last one. Otherwise tells `reason`, and waits for the next one.

        `asked_s` is the service's Retry-After; `is_silent`: the attempt ended because no answer came.
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
        wait_s = max(wait_s, min(LONGEST_ASKED_S, asked_s))
        if asked_s > LONGEST_ASKED_S:
            reason = f"{reason}, which asks to wait {asked_s:,.0f} s"
        retries.tell(Retried(retries.name, self._failed, retries.tries - 1, reason, wait_s, took_s))
        retries.sleep(wait_s)
        self._attempt_s = time.monotonic()
        return True

    def so_far(self) -> str:
        """`6 attempts in 52 s`; for the error of a request that was given up."""
        attempts = f"{self._failed} attempt{'s' if self._failed != 1 else ''}"
        return f"{attempts} in {time.monotonic() - self._begun_s:.0f} s"
