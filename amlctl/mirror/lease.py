"""Who writes the plain files of a mirrored dataset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

from amlctl.core.events import EventSink
from amlctl.core.store_keys import lease_key
from amlctl.errors import Conflict
from amlctl.localfs.machine import passed_s
from amlctl.snapshots.lease import ASK_EVERY_S, STALE_S, Lease, living_holder
from amlctl.stores.contract import Store, Versioned

_FINISHED = b"{}\n"
_UNFINISHED = b'{"unfinished": true}\n'


class MirrorLease(Lease):
    """Who writes the plain files of a mirrored dataset."""

    def __init__(
        self,
        store: Store,
        dataset: str,
        sink: EventSink,
        *,
        stale_s: float = STALE_S,
        ask_every_s: float = ASK_EVERY_S,
        clock: Callable[[], float] = passed_s,
    ) -> None:
        super().__init__(store, lease_key(dataset), sink, stale_s=stale_s, ask_every_s=ask_every_s, clock=clock)
        self._dataset = dataset
        self.was_left_unfinished = False
        """Once it is held: whether the one who wrote before did not come to an end."""
        self.was_taken_over = False
        """Once it is held: whether the one who wrote before may still be alive."""

    def __enter__(self) -> MirrorLease:
        return self

    def _found(self, found: Optional[Versioned]) -> None:
        self.was_left_unfinished = found is not None and found.data != _FINISHED
        self.was_taken_over = found is not None and bool(living_holder(found.data))

    def _freed(self, *, is_finished: bool) -> bytes:
        return _FINISHED if is_finished else _UNFINISHED

    def _waits_for(self, holder: str) -> str:
        return f"{self._dataset}: waiting until {holder} has written its mirror"

    def _lost(self) -> Conflict:
        return Conflict(
            f"another machine writes the mirror of {self._dataset} now: this one gave no sign of life for long",
            hint="run the same command again",
        )
