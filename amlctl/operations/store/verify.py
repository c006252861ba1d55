"""Read back everything that a store holds, and check it against its names and against what names it.

A value whose name is a content id is checked as a whole, so that packs are also whole around their members; the others
(HEADs, indexes, records) by what they say of each other. What has neither is listed as unchecked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from amlctl.core.events import EventSink, Stage, StageProgress
from amlctl.core.message import Command, Message
from amlctl.core.store_keys import FORMAT_KEY
from amlctl.errors import IntegrityError
from amlctl.operations.context import Context
from amlctl.operations.document import Document
from amlctl.operations.store.damage import Damage, StoreListing
from amlctl.operations.store.verify_datasets import StoredDatasets, bytes_checks, check_datasets
from amlctl.operations.store.verify_runs import code_checks, run_checks
from amlctl.parallel import ended_by_interrupt, in_parallel
from amlctl.snapshots.store_format import find_store_id, require_format
from amlctl.stores.contract import Store
from amlctl.stores.wrappers import without_copies

_MOST_WORKERS = 4
"""Each holds a pack, or a piece of a large file, in memory."""


@dataclass(frozen=True)
class VerifyResult(Document):
    """`files` and `bytes` are those of the datasets at their HEADs. `damaged` has a line for each value or file that is
    wrong or missing, `damages` the same in parts; `to_repair` the datasets among them; `unchecked` how many values of
    which kind have nothing that they could be checked against."""

    datasets: int
    files: int
    bytes: int
    damaged: Sequence[str]
    to_repair: Sequence[str]
    damages: Sequence[Damage] = ()
    unchecked: Sequence[str] = ()


def verify_store(context: Context) -> VerifyResult:
    """The store in use, not what this machine has of it. Raises NotFound (no store), SettingsError (a newer
    format) and what the store raises."""
    store = without_copies(context.store)
    with suppress(IntegrityError):  # reported with the other damage
        require_format(store)
    return verify(store, context.sink)


def verify(store: Store, sink: EventSink) -> VerifyResult:
    """Reads the whole store. Raises SettingsError (a newer format) and what the store raises."""
    with ended_by_interrupt(store):
        listing = StoreListing(store)
        damages: list[Damage] = []
        store_id = _store_id(store, listing, damages)
        datasets = check_datasets(store, listing, store_id)
        damages += datasets.damages
        checks = [
            *bytes_checks(store, listing, datasets),
            *code_checks(store, listing),
            *run_checks(store, listing),
        ]
        for found in _run(checks, sink):
            damages += found
    damages = sorted(set(damages), key=lambda damage: damage.key)
    return VerifyResult(
        len(datasets.heads),
        sum(len(manifest.entries) for manifest in datasets.heads.values()),
        sum(manifest.size_bytes for manifest in datasets.heads.values()),
        [damage.message for damage in damages],
        _to_repair(damages, datasets),
        damages,
        listing.unchecked(),
    )


def _store_id(store: Store, listing: StoreListing, damages: list[Damage]) -> str | None:
    """None where it cannot be told."""
    repair = Message(Command("sync", "--repair", "PATH"), ", with any dataset")
    try:
        store_id = find_store_id(store)
    except IntegrityError as error:
        damages.append(Damage(FORMAT_KEY, error.message, repair))
        return None
    if FORMAT_KEY not in listing.sizes:
        damages.append(Damage(FORMAT_KEY, "is missing", repair))
        return None
    return store_id


def _to_repair(damages: Iterable[Damage], datasets: StoredDatasets) -> list[str]:
    return sorted({damage.dataset or datasets.named_by.get(damage.key, "") for damage in damages} - {""})


def _run(checks: Sequence[Callable[[], Sequence[Damage]]], sink: EventSink) -> Iterable[Sequence[Damage]]:
    for number, damages in enumerate(in_parallel(lambda check: check(), checks, _MOST_WORKERS), 1):
        yield damages
        sink(StageProgress(Stage.VERIFY, "store", number, 0, len(checks), 0))
    sink(StageProgress(Stage.VERIFY, "store", len(checks), 0, len(checks), 0, is_done=True))
