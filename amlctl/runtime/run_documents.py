"""The JSON documents of a run in the store: its record, why the runtime failed, and what the run has published."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Optional

from amlctl.core.run import RunRecord
from amlctl.core.run_schema import MAX_BYTES, is_published
from amlctl.errors import IntegrityError, NotFound
from amlctl.runtime.run_keys import failure_key, published_key, record_key
from amlctl.stores.contract import Store

_MAX_NOTE_BYTES = 4 << 20
"""Of `failure.json` and `published.json`: a few lines. What is longer is cut, and so counts as unreadable."""


def load_record(store: Store, run: str) -> Optional[RunRecord]:
    """None where the store has none. Raises IntegrityError: damaged, or the record of another run."""
    try:
        data = store.get(record_key(run), length=MAX_BYTES + 1)
    except NotFound:
        return None
    return RunRecord.from_bytes(data, run)


def save_record(store: Store, record: RunRecord) -> None:
    """Raises what the store raises."""
    store.put(record_key(record.run), record.to_bytes(), replace=True)


def read_failure(store: Store, run: str) -> Optional[Mapping[str, Any]]:
    """What the runtime told of its own failure, if it did."""
    return _read(store, failure_key(run))


def read_published(store: Store, run: str) -> Mapping[str, Mapping[str, str]]:
    """By dataset, the snapshot and the manifest's key of what the run has produced; empty where that is nothing.

    Raises IntegrityError: to take a damaged list for an empty one would lose what the run has produced.
    """
    key = published_key(run)
    try:
        document = json.loads(store.get(key, length=_MAX_NOTE_BYTES))
    except NotFound:
        return {}
    except (ValueError, RecursionError):
        document = None
    if not is_published(document):
        raise IntegrityError(f"the list of what run {run} has produced is damaged", hint=f"see {key} in {store.url}")
    return document  # type: ignore[no-any-return]  # checked


def _read(store: Store, key: str) -> Optional[Mapping[str, Any]]:
    try:
        document = json.loads(store.get(key, length=_MAX_NOTE_BYTES))
    except (NotFound, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
