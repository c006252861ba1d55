"""What a run's documents name in the store. Each value is taken with its type: others may have written them."""

from __future__ import annotations

from amlctl.core.dataset_names import folders_of
from amlctl.core.document import Fields, parse
from amlctl.runtime.run_keys import published_key, record_key
from amlctl.stores.contract import Store


def read_fields(store: Store, run: str) -> Fields:
    """The run's record. Raises NotFound, ValueError."""
    return Fields(parse(store.get(record_key(run))))


def manifests_of_record(record: Fields) -> list[str]:
    """Keys of the manifests that the run reads. Raises ValueError."""
    found = list(record.member("manifests").values())
    if not all(isinstance(key, str) for key in found):
        raise ValueError("'manifests' must name keys")
    return found


def heads_of_record(record: Fields) -> list[str]:
    """Keys of the manifests that the datasets it produces begin with. Raises ValueError."""
    found = [key for key in record.member("heads").values() if key is not None]
    if not all(isinstance(key, str) for key in found):
        raise ValueError("'heads' must name keys")
    return found


def published_manifests(store: Store, run: str) -> list[str]:
    """Keys of the manifests that it has published. Raises NotFound, ValueError."""
    found = []
    for dataset, value in Fields(parse(store.get(published_key(run)))).members():
        fields = Fields(value)
        snapshot, key = fields.content_id("snapshot"), fields.text("manifest_key")
        if not key.startswith(tuple(f"{folder}/{snapshot}-" for folder in folders_of(dataset))):
            raise ValueError(f"{key!r} is not a manifest of {dataset} at {snapshot}")
        found.append(key)
    return found
