"""One writer at a time where a condition on HEAD is not enough: the plain files of a mirrored dataset.

`datasets/<dataset>/mirror.lease` names who writes, and is renewed while that goes on. Whoever finds it waits until
it is free, or until it was not renewed for `stale_s`: the holder was killed, or has lost the network. One that was
killed on this machine is known to be gone at once. Time is that of the one who waits, so clocks need not agree.
"""

from __future__ import annotations

import json
import os
import platform
import time
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import Any

from amlctl.core.events import EventSink, Note
from amlctl.core.manifest import dataset_folder
from amlctl.errors import AmlctlError, Conflict
from amlctl.stores.contract import Store

_STALE_S = 60.0
_ASK_EVERY_S = 1.0
_FREED_S = 2.0
"""So long the end of a command waits for the network to free it; without that it runs out."""


class MirrorLease:
    """Of one dataset. Used from one thread; a second one renews it."""

    def __init__(
        self,
        store: Store,
        dataset: str,
        sink: EventSink,
        *,
        stale_s: float = _STALE_S,
        ask_every_s: float = _ASK_EVERY_S,
    ) -> None:
        self._store = store
        self._dataset = dataset
        self._key = f"{dataset_folder(dataset)}/mirror.lease"
        self._sink = sink
        self._stale_s = stale_s
        self._ask_every_s = ask_every_s
        self._version: str | None = None
        self._count = 0
        self._is_lost = False
        self._ended = Event()
        self._lock = Lock()
        self._renewer: Thread | None = None

    @property
    def is_held(self) -> bool:
        return self._renewer is not None

    def take(self) -> None:
        """Wait until it is ours. Raises what the store raises."""
        seen, since_s, is_told = "", 0.0, False
        while not self.is_held:
            found = self._store.get_versioned(self._key)
            holder = "" if found is None else _living_holder(found.data)
            if found is not None and found.version != seen:
                seen, since_s = found.version, time.monotonic()
            if not holder or time.monotonic() - since_s > self._stale_s:
                try:
                    self._swap(None if found is None else found.version)
                except Conflict:
                    continue
                self._renewer = Thread(target=self._renew, daemon=True, name="amlctl-lease")
                self._renewer.start()
                return
            if not is_told:
                self._sink(Note(f"{self._dataset}: waits until {holder} has written its mirror"))
                is_told = True
            time.sleep(self._ask_every_s)

    def confirm(self) -> None:
        """Raises Conflict where someone else has taken it meanwhile; this machine may have slept."""
        if self.is_held:
            self._renew_now()
        if self._is_lost:
            raise Conflict(
                f"another machine writes the mirror of {self._dataset} now: this one gave no sign of life for long",
                hint="run the same command again",
            )

    def release(self) -> None:
        """Leave it to the next one; once is enough."""
        if self._renewer is None:
            return
        self._ended.set()
        self._renewer.join(_FREED_S)
        self._renewer = None

    def _swap(self, expected: str | None) -> None:
        self._count += 1
        value = {"host": platform.node(), "process": os.getpid(), "renewed": self._count}
        self._version = self._store.swap(self._key, (json.dumps(value) + "\n").encode(), expected=expected)

    def _renew(self) -> None:
        while not self._ended.wait(self._stale_s / 4) and not self._is_lost:
            with suppress(AmlctlError):  # a network that comes back in time has harmed nothing
                self._renew_now()
        if not self._is_lost:
            with suppress(AmlctlError):  # then it runs out by itself
                self._store.swap(self._key, b"{}\n", expected=self._version)

    def _renew_now(self) -> None:
        with self._lock:
            try:
                self._swap(self._version)
            except Conflict:
                self._is_lost = True


def _living_holder(data: bytes) -> str:
    """Who it is, in words; empty where it is free, or its holder was a process of this machine that is gone."""
    try:
        value: Any = json.loads(data)
        host, process = str(value["host"]), int(value["process"])
    except (ValueError, TypeError, KeyError):
        return ""
    if host == platform.node():
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return ""
        except PermissionError:
            pass  # it lives, and is another user's
    return f"{host} (process {process})"
