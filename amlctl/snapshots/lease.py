"""Leases: one holder at a time where a condition on HEAD is not enough. A value in the store names the holder.

The holder renews the value while it works. Others wait until it is free, or until it was not renewed for `stale_s`: the
holder was killed, or has lost the network. One that was killed on this machine is known to be gone at once. Each goes
by its own clock, so clocks need not agree: the holder makes sure before each step that would harm another one, since it
may have been stopped, or its machine may have slept.
"""

from __future__ import annotations

import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Collection
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any, Callable, Optional

from amlctl.core.document import Fields, parse
from amlctl.core.events import EventSink, Note
from amlctl.errors import AmlctlError, Conflict
from amlctl.localfs.machine import host_name, passed_s, read_identity, this_process
from amlctl.parallel import for_each
from amlctl.stores.contract import Guard, Store, Versioned

if TYPE_CHECKING:
    from typing import Self

STALE_S = 60.0
"""Seconds after which a holder that has not renewed its lease counts as gone; it renews every quarter of that."""
ASK_EVERY_S = 1.0
_FREED_S = 2.0
"""So long the end of a command waits for the network to free it; without that it runs out."""


class Lease(ABC):
    """On one key. Taken and released by one thread; a second one renews it; any may check it.

    Its `with` releases it where it was taken; what leaves the `with` by an error is left as unfinished. A subclass says
    what else the value holds, and the messages.
    """

    def __init__(
        self,
        store: Store,
        key: str,
        sink: EventSink,
        *,
        stale_s: float = STALE_S,
        ask_every_s: float = ASK_EVERY_S,
        clock: Callable[[], float] = passed_s,
    ) -> None:
        self.store = store
        self._key = key
        self.sink = sink
        self._stale_s = stale_s
        self._ask_every_s = ask_every_s
        self._clock = clock
        self._renewed_at_s = 0.0
        self._version: str | None = None
        self._count = 0
        self._token = os.urandom(8).hex()
        self._is_lost = False
        self._is_finished = True
        self._ended = Event()
        self._lock = Lock()
        self._renewer: Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.release(is_finished=kind is None)

    @property
    def is_held(self) -> bool:
        return self._renewer is not None

    def take(self) -> None:
        """Wait until it is ours. Raises what the store raises."""
        watched = Watched(self._stale_s, self._clock)
        is_noted = False
        while not self.is_held:
            found = self.store.get_versioned(self._key)
            holder = watched.holder(found)
            if not holder:
                self._found(found)
                try:
                    self._swap(None if found is None else found.version)
                except Conflict:
                    continue
                self._renewer = Thread(target=self._renew, daemon=True, name="amlctl-lease")
                self._renewer.start()
                return
            if watched.was_renewed:
                self._refuse(holder)
            if not is_noted:
                self.sink(Note(self._waits_for(holder)))
                is_noted = True
            time.sleep(self._ask_every_s)

    def check(self) -> None:
        """As `confirm`; no request as long as it is sure that it cannot have been taken. From any thread."""
        if self._is_lost or not self._is_sure():
            self._confirm(unless_sure=True)

    def confirm(self) -> None:
        """Raises Conflict where someone else has taken it meanwhile; this machine may have slept."""
        self._confirm(unless_sure=False)

    def _confirm(self, *, unless_sure: bool) -> None:
        if self.is_held:
            self._renew_now(unless_sure=unless_sure)
        if self._is_lost:
            raise self._lost()

    def release(self, *, is_finished: bool = True) -> None:
        """Leave it to the next one; once is enough."""
        if self._renewer is None:
            return
        self._is_finished = is_finished
        self._ended.set()
        self._renewer.join(_FREED_S)
        self._renewer = None

    @property
    def guard(self) -> Guard:
        """What is deleted under it is deleted only while it is held."""
        return Guard(self._key, self.check, self._is_ours, self._lost)

    def _is_ours(self, data: Optional[bytes]) -> bool:
        try:
            return data is not None and Fields(parse(data)).text("token") == self._token
        except ValueError:
            return False

    # --- what a subclass says -------------------------------------------------------------------------------

    def _found(self, found: Optional[Versioned]) -> None:  # noqa: B027 (a lease may need nothing here)
        """What stands there right before it is taken."""

    def _refuse(self, holder: str) -> None:  # noqa: B027 (most leases wait)
        """May raise instead of waiting for a holder that is alive."""

    def _more(self) -> dict[str, Any]:
        """What the value holds besides the holder."""
        return {}

    @abstractmethod
    def _freed(self, *, is_finished: bool) -> bytes:
        """What is left there."""

    @abstractmethod
    def _waits_for(self, holder: str) -> str:
        """What this one waits for, in words."""

    @abstractmethod
    def _lost(self) -> Conflict:
        """Someone else has taken it meanwhile."""

    # --- the value ------------------------------------------------------------------------------------------

    def _swap(self, expected: str | None) -> None:
        self._count += 1
        asked_at_s = self._clock()  # not when the answer comes: others count from when it was written
        value = {
            "host": host_name(),
            **this_process()._asdict(),
            "token": self._token,
            "renewed": self._count,
            **self._more(),
        }
        self._version = self.store.swap(self._key, (json.dumps(value) + "\n").encode(), expected=expected)
        self._renewed_at_s = asked_at_s

    def _renew(self) -> None:
        while not self._ended.wait(self._stale_s / 4) and not self._is_lost:
            with suppress(AmlctlError):  # a network that comes back in time has harmed nothing
                self._renew_now(unless_sure=False)
        if not self._is_lost:
            with suppress(AmlctlError):  # then it runs out by itself
                freed = self._freed(is_finished=self._is_finished)
                self.store.swap(self._key, freed, expected=self._version)

    def _is_sure(self) -> bool:
        return self._clock() - self._renewed_at_s < self._stale_s / 2

    def _renew_now(self, *, unless_sure: bool) -> None:
        with self._lock:
            if self._is_lost or (unless_sure and self._is_sure()):
                return  # another thread was faster
            try:
                self._swap(self._version)
            except Conflict:
                self._is_lost = True


class Watched:
    """Whether a lease that is polled is held by someone who is alive, by the clock of this machine."""

    def __init__(self, stale_s: float, clock: Callable[[], float]) -> None:
        self._stale_s = stale_s
        self._clock = clock
        self._seen = ""
        self._since_s = 0.0
        self.was_renewed = False

    def holder(self, found: Optional[Versioned]) -> str:
        """Who holds it, in words; empty where it is free, or its holder is gone."""
        holder = "" if found is None else living_holder(found.data)
        if found is not None and found.version != self._seen:
            self.was_renewed = bool(self._seen and holder)
            self._seen, self._since_s = found.version, self._clock()
        return "" if holder and self._clock() - self._since_s > self._stale_s else holder


def living_holder(data: bytes) -> str:
    """Who it is, in words; empty where it is free, or its holder was a process of this machine that is gone."""
    try:
        value = parse(data)
        host = Fields(value).text("host")
    except ValueError:
        return ""
    holder = read_identity(value)
    return "" if holder is None or holder.is_gone() else f"{host} (process {holder.process})"


def delete_all(store: Store, keys: Collection[str], *, guard: Optional[Guard] = None) -> None:
    """In parallel, each only while the guard holds; what that raises ends it."""

    def delete(key: str) -> None:
        if guard is not None:
            guard.check()
        store.delete(key, guard=guard)

    for_each(delete, keys, store.concurrency)
