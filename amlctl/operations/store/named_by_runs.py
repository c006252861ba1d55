"""What a run's record names in the store. Each value is taken with its type: others may have written it."""

from __future__ import annotations

from amlctl.core.document import Fields, parse
from amlctl.core.run_schema import MAX_BYTES
from amlctl.core.store_keys import record_key
from amlctl.errors import IntegrityError
from amlctl.stores.contract import Store


def read_fields(store: Store, run: str) -> Fields:
    """The run's record. Raises NotFound, ValueError."""
    try:
        data = store.get(record_key(run), length=MAX_BYTES + 1)
    except IntegrityError as error:
        raise ValueError(error.message) from error
    if len(data) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES >> 20} MiB")
    return Fields(parse(data))


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
