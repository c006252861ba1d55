"""Read back everything that the store's HEADs name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from amlctl.core.events import EventSink
from amlctl.core.manifest import dataset_of_folder
from amlctl.errors import IntegrityError, NotFound
from amlctl.operations.verify import damaged_contents
from amlctl.stores.contract import Store
from amlctl.transfer.heads import list_datasets, read_head_value
from amlctl.transfer.interrupt import ended_by_interrupt
from amlctl.transfer.manifests import read_manifest


@dataclass(frozen=True)
class VerifyResult:
    """`damaged`: `dataset: path` of every file whose bytes are wrong or missing, or what is wrong with a manifest;
    `to_repair`: the datasets that have any of it."""

    datasets: int
    files: int
    bytes: int
    damaged: Sequence[str]
    to_repair: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def verify(store: Store, sink: EventSink) -> VerifyResult:
    """Reads the whole of every dataset at its HEAD."""
    datasets = files = size = 0
    damaged: list[str] = []
    to_repair: list[str] = []
    with ended_by_interrupt(store):
        for folder in list_datasets(store):
            datasets += 1
            try:
                manifest = read_manifest(store, read_head_value(store, folder).manifest_key)
            except (NotFound, IntegrityError) as error:
                to_repair.append(dataset_of_folder(folder))
                damaged.append(f"{to_repair[-1]}: {error.message}")
                continue
            files += len(manifest.entries)
            size += manifest.size_bytes
            bad = damaged_contents(store, manifest, manifest.entries, sink)
            if bad:
                to_repair.append(manifest.dataset)
            damaged += [f"{manifest.dataset}: {entry.path}" for entry in manifest.entries if entry.content_id in bad]
    return VerifyResult(datasets, files, size, damaged, to_repair)
