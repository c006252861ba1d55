"""What the store has of a dataset when a sync begins, read only once a new content asks for it."""

from __future__ import annotations

from collections.abc import Collection

from amlctl.core.events import Event, EventSink, StageProgress, Warned
from amlctl.core.manifest import FileEntry, Manifest, empty_manifest
from amlctl.errors import IntegrityError, NotFound
from amlctl.operations.sync.dataset_state import DatasetState
from amlctl.operations.sync.repair import without
from amlctl.parallel import in_background
from amlctl.snapshots.gc_mark import GcWatch
from amlctl.snapshots.known import KnownContents
from amlctl.snapshots.send import PackSender

_MUCH_BYTES = 16 << 20
"""New bytes from which on other datasets are asked for their contents."""


class StoredContents:
    """What HEAD lists, and what else the store is known to have. `watch` notes the gc before anything is read."""

    def __init__(self, looked: DatasetState, watch: GcWatch, *, lost: Collection[str]) -> None:
        """`lost` are contents that are sent again, whatever the store seems to have of them."""
        self._looked = looked
        self._watch = watch
        self._lost = lost
        self._found: tuple[Manifest, KnownContents] | None = None

    @property
    def is_read(self) -> bool:
        return self._found is not None

    def read(self) -> tuple[Manifest, KnownContents]:
        """From the store at the first call. Raises what the store raises, IntegrityError."""
        if self._found is None:
            with in_background(self._watch.note) as noted:
                head = self._head()  # a gc keeps what HEAD lists, or moves HEAD
                noted.result()
            self._found = without(head, self._lost) if self._lost else head, self._known(head)
        return self._found

    def _known(self, head: Manifest) -> KnownContents:
        # Other datasets cost a request each: they are asked where much is new that may be theirs.
        looked = self._looked
        has_grown = looked.local().size_bytes - head.size_bytes >= _MUCH_BYTES
        known = KnownContents(
            looked.store,
            looked.store_key,
            looked.state.sync,
            looked.layout,
            looked.context.dataset_contents,
            reads_datasets=looked.head is None or has_grown,
        )
        if self._lost:
            known.distrust(self._lost)
        return known

    def _head(self) -> Manifest:
        """What HEAD lists. A repair does without it where only the list is lost."""
        looked = self._looked
        try:
            return looked.head_manifest()
        except (NotFound, IntegrityError) as error:
            if not looked.options.repair or looked.head is None:
                raise
            is_ours = looked.base is not None and looked.base.snapshot == looked.head.snapshot
            if not is_ours and not looked.options.force:
                raise IntegrityError(
                    f"{error.message}; the store's latest snapshot was not the one of this machine",
                    hint="repair it where it was synced last, or add --force: the store then gets what is here",
                ) from error
            looked.sink(Warned(f"{looked.dataset}: {error.message}; sending everything again from here"))
            return empty_manifest(looked.dataset)


class EarlyPacks:
    """Satisfies `Taker`: new small files go into packs while they are hashed. They are read once, and straight to their
    place in the pack. Until there is a plan, all that is not known to the store counts as to be sent."""

    def __init__(self, sender: PackSender, below_bytes: int, stored: StoredContents, sink: EventSink) -> None:
        self._sender = sender
        self._sink = sink
        self._known_files = self._known_bytes = 0
        self._below_bytes = below_bytes
        self._stored = stored

    def room(self, path: str, size_bytes: int) -> memoryview | None:
        return self._sender.room(path, size_bytes) if size_bytes <= self._below_bytes else None

    def take(self, entry: FileEntry, data: memoryview) -> None:
        if entry.size_bytes >= self._below_bytes:
            return
        head, known = self._stored.read()
        if entry.content_id not in head.places and known.packed(entry.content_id) is None:
            self._sender.keep(entry)
        else:
            self._known_files += 1
            self._known_bytes += entry.size_bytes

    def hashing(self, event: Event) -> None:
        """Satisfies `EventSink`: passes on how far hashing is, and what of it is to be sent so far."""
        if isinstance(event, StageProgress) and event.total_files is not None and event.total_bytes is not None:
            to_send = event.total_files - self._known_files, event.total_bytes - self._known_bytes
            self._sender.transfers.expect(*to_send)
        self._sink(event)
