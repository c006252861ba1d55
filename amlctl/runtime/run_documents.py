"""The JSON documents of a run in the store: its record, why the runtime failed, and what the run has published."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Optional

from amlctl.core.run import RunRecord
from amlctl.errors import NotFound, SettingsError
from amlctl.runtime.run_keys import failure_key, published_key, record_key
from amlctl.stores.contract import Store


def load_record(store: Store, run: str) -> Optional[RunRecord]:
    """None where the store has none. Raises SettingsError."""
    try:
        return RunRecord.from_json(json.loads(store.get(record_key(run))))
    except NotFound:
        return None
    except ValueError as error:
        raise SettingsError(f"the record of run {run} in the store {store.url} is no JSON: {error}") from error


def save_record(store: Store, record: RunRecord) -> None:
    """Raises what the store raises."""
    store.put(record_key(record.run), (json.dumps(record.to_json(), indent=2) + "\n").encode(), replace=True)


def read_failure(store: Store, run: str) -> Optional[Mapping[str, Any]]:
    """What the runtime told of its own failure, if it did."""
    return _read(store, failure_key(run))


def read_published(store: Store, run: str) -> Mapping[str, Any]:
    """By dataset, the snapshot and the manifest's key of what the run has produced; empty where that is nothing."""
    return _read(store, published_key(run)) or {}


def _read(store: Store, key: str) -> Optional[Mapping[str, Any]]:
    try:
        document = json.loads(store.get(key))
    except (NotFound, ValueError):
        return None
    return document if isinstance(document, dict) else None
