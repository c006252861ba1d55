"""How gc and the commands that rely on a store's contents keep out of each other's way.

`gc/running` is the lease of the gc that deletes; it also has a generation, which each such gc raises. The protocol:

1. gc takes the lease with a new generation, then fences: it rewrites each HEAD with that generation (`heads.fence`), so
   that every command that has read HEAD before loses its swap. Only then it lists what is needed, and deletes the rest;
   before each deletion it makes sure that it still holds the lease.
2. A command that is about to commit notes the generation before it relies on anything that HEAD does not name. Once
   its manifest is written it looks again. Where no gc was running and none has come, what it reuses needs one look;
   otherwise it waits until gc has ended, and then makes sure of all that the manifest names (`known.py`). A gc that
   comes later fences, and the command loses its swap.
3. What is not committed by a swap (run records, lists of what a run has published) is written first; then the
   generation is compared. A gc that starts later sees it.

Age and clocks play no part. A gc that gives no sign of life loses its lease to the command that waits for it.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any, Callable, NamedTuple, Optional

from amlctl.core.document import Fields, parse
from amlctl.core.events import EventSink, Note
from amlctl.core.store_keys import GC_KEY
from amlctl.errors import Conflict
from amlctl.localfs.machine import passed_s
from amlctl.snapshots.lease import ASK_EVERY_S, STALE_S, Lease, Watched, living_holder
from amlctl.stores.contract import Store, Versioned

_PATIENCE_S = 3600.0
"""Seconds that a command waits for a gc that is alive."""
_MOST_GENERATIONS = 1 << 53
"""What every reader of JSON has exactly; a larger one is damage."""


class GcLease(Lease):
    """On `GC_KEY`, held by the gc that deletes. `generation` is known once it is held."""

    generation = 0

    def raise_above(self, generation: int) -> None:
        """Where HEADs know of a later gc than the mark, which was lost: this one comes after it."""
        if generation >= self.generation:
            self.generation = generation + 1
            self.confirm()

    def _found(self, found: Optional[Versioned]) -> None:
        self.generation = _generation(found) + 1

    def _refuse(self, holder: str) -> None:
        raise Conflict(f"another gc of this store is running on {holder}", hint="run it again when that one has ended")

    def _more(self) -> dict[str, Any]:
        return {"generation": self.generation}

    def _freed(self, *, is_finished: bool) -> bytes:
        return _free(self.generation)

    def _waits_for(self, holder: str) -> str:
        return f"waiting until the gc on {holder} has ended"

    def _lost(self) -> Conflict:
        return Conflict(
            "this gc lost its lease: it was not renewed in time, and another command has continued without it",
            hint="run gc again",
        )


def restore_generation(store: Store, generation: int) -> None:
    """The mark was lost, and a fence knows of a later gc: that one has ended, or stops at its next look."""
    found = store.get_versioned(GC_KEY)
    mark = _mark(found)
    if not mark.is_running and mark.generation < generation:
        with suppress(Conflict):
            store.swap(GC_KEY, _free(generation), expected=None if found is None else found.version)


def next_generation(store: Store) -> int:
    """Later than that of every gc which has noted itself."""
    return _generation(store.get_versioned(GC_KEY)) + 1


class _Mark(NamedTuple):
    generation: int
    is_running: bool


class GcWatch:
    """What a command knows of gc. For one thread."""

    def __init__(
        self,
        store: Store,
        sink: EventSink,
        *,
        ask_every_s: float = ASK_EVERY_S,
        clock: Callable[[], float] = passed_s,
        may_take_over: bool = True,
    ) -> None:
        """`may_take_over`: False on a node, whose store is a mount without conditions."""
        self._store = store
        self._sink = sink
        self._may_take_over = may_take_over
        self._ask_every_s = ask_every_s
        self._clock = clock
        self._noted: _Mark | None = None

    @property
    def generation(self) -> int:
        """The one that was noted last."""
        return 0 if self._noted is None else self._noted.generation

    def note(self) -> None:
        """Before anything in the store is relied on."""
        self._noted = _mark(self._store.get_versioned(GC_KEY))

    def was_quiet(self) -> bool:
        """Whether no gc has deleted anything since the last `note`, nor can one that has started before now."""
        now = _mark(self._store.get_versioned(GC_KEY))
        return now == self._noted and not now.is_running

    def wait(self) -> None:
        """Until no gc is running; that is noted. Raises Conflict where one takes long."""
        watched = Watched(STALE_S, self._clock)
        began_s, is_noted = self._clock(), False
        pause_s = self._ask_every_s / 64
        while True:
            found = self._store.get_versioned(GC_KEY)
            mark = _mark(found)
            if found is None or not mark.is_running:
                self._noted = mark
                return
            holder = watched.holder(found)
            if not holder:
                if not self._may_take_over:
                    self._noted = mark
                    return
                self._take_over(found, mark)
                continue
            if self._clock() - began_s > _PATIENCE_S:
                raise Conflict(
                    f"a gc of the store is running on {holder}",
                    hint="run the same command again when it has ended: what was sent is kept",
                )
            if not is_noted:
                self._sink(Note(f"waiting until the gc on {holder} has ended"))
                is_noted = True
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, self._ask_every_s)

    def _take_over(self, found: Versioned, mark: _Mark) -> None:
        """End the lease of a gc that gives no sign of life: should it wake up, it notices before it deletes more."""
        try:
            self._store.swap(GC_KEY, _free(mark.generation), expected=found.version)
        except Conflict:
            return
        self._sink(Note("the gc of the store has given no sign of life: continuing without it"))


def _mark(found: Optional[Versioned]) -> _Mark:
    return _Mark(_generation(found), found is not None and bool(living_holder(found.data)))


def _generation(found: Optional[Versioned]) -> int:
    """0 before the first gc, or for a mark that cannot be read; HEADs know the last one (`raise_above`)."""
    if found is None:
        return 0
    try:
        return Fields(parse(found.data)).number("generation", most=_MOST_GENERATIONS)
    except ValueError:
        return 0


def _free(generation: int) -> bytes:
    return (json.dumps({"generation": generation}) + "\n").encode()
