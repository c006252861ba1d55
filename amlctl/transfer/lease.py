"""One writer at a time where a condition on HEAD is not enough: the plain files of a mirrored dataset.

`datasets/<dataset>/mirror.lease` names who writes, and is renewed while that goes on. Whoever finds it waits until
it is free, or until it was not renewed for `stale_s`: the holder was killed, or has lost the network. One that was
killed on this machine is known to be gone at once. Each goes by its own clock, so clocks need not agree: the holder
makes sure before each plain file, since it may have been stopped, or its machine may have slept.
"""

from __future__ import annotations

import json
import os
import platform
import time
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import Any, Callable

from amlctl.core.events import EventSink, Note
from amlctl.core.manifest import dataset_folder
from amlctl.errors import AmlctlError, Conflict
from amlctl.localfs.clock import passed_s
from amlctl.stores.contract import Store

_STALE_S = 60.0
_ASK_EVERY_S = 1.0
_FINISHED = b"{}\n"
_UNFINISHED = b'{"unfinished": true}\n'
_FREED_S = 2.0
"""So long the end of a command waits for the network to free it; without that it runs out."""


class MirrorLease:
    """Of one dataset. Taken and released by one thread; a second one renews it; any may check it.

    Its `with` releases it where it was taken; what leaves the `with` by an error is left as unfinished.
    """

    def __init__(
        self,
        store: Store,
        dataset: str,
        sink: EventSink,
        *,
        stale_s: float = _STALE_S,
        ask_every_s: float = _ASK_EVERY_S,
        clock: Callable[[], float] = passed_s,
    ) -> None:
        self._store = store
        self._dataset = dataset
        self._key = f"{dataset_folder(dataset)}/mirror.lease"
        self._sink = sink
        self._stale_s = stale_s
        self._ask_every_s = ask_every_s
        self._clock = clock
        self._renewed_at_s = 0.0
        self._version: str | None = None
        self._count = 0
        self._is_lost = False
        self._left = _FINISHED
        self.was_left_unfinished = False
        """Once it is held: whether whoever wrote before did not come to an end."""
        self._ended = Event()
        self._lock = Lock()
        self._renewer: Thread | None = None

    def __enter__(self) -> MirrorLease:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.release(is_finished=kind is None)

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
                seen, since_s = found.version, self._clock()
            if not holder or self._clock() - since_s > self._stale_s:
                try:
                    self._swap(None if found is None else found.version)
                except Conflict:
                    continue
                self.was_left_unfinished = found is not None and found.data != _FINISHED
                self._renewer = Thread(target=self._renew, daemon=True, name="amlctl-lease")
                self._renewer.start()
                return
            if not is_told:
                self._sink(Note(f"{self._dataset}: waits until {holder} has written its mirror"))
                is_told = True
            time.sleep(self._ask_every_s)

    def check(self) -> None:
        """As `confirm`; no request as long as it is sure that nobody can have taken it. From any thread."""
        if self._is_lost or not self._is_sure():
            self._confirm(unless_sure=True)

    def confirm(self) -> None:
        """Raises Conflict where someone else has taken it meanwhile; this machine may have slept."""
        self._confirm(unless_sure=False)

    def _confirm(self, *, unless_sure: bool) -> None:
        if self.is_held:
            self._renew_now(unless_sure=unless_sure)
        if self._is_lost:
            raise Conflict(
                f"another machine writes the mirror of {self._dataset} now: this one gave no sign of life for long",
                hint="run the same command again",
            )

    def release(self, *, is_finished: bool = True) -> None:
        """Leave it to the next one; once is enough."""
        if self._renewer is None:
            return
        self._left = _FINISHED if is_finished else _UNFINISHED
        self._ended.set()
        self._renewer.join(_FREED_S)
        self._renewer = None

    def _swap(self, expected: str | None) -> None:
        self._count += 1
        asked_at_s = self._clock()  # not when the answer comes: others count from when it was written
        value = {"host": platform.node(), "process": os.getpid(), "renewed": self._count}
        self._version = self._store.swap(self._key, (json.dumps(value) + "\n").encode(), expected=expected)
        self._renewed_at_s = asked_at_s

    def _renew(self) -> None:
        while not self._ended.wait(self._stale_s / 4) and not self._is_lost:
            with suppress(AmlctlError):  # a network that comes back in time has harmed nothing
                self._renew_now(unless_sure=False)
        if not self._is_lost:
            with suppress(AmlctlError):  # then it runs out by itself
                self._store.swap(self._key, self._left, expected=self._version)

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
