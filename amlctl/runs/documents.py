"""The JSON documents of a run in the store: its record, why the runtime failed, and what the run has published."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Optional

from amlctl.core.run import RunRecord
from amlctl.core.run_schema import MAX_BYTES, is_published
from amlctl.core.store_keys import failure_key, published_key, record_key, script_end_key, script_ends_prefix
from amlctl.errors import IntegrityError, NotFound
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


def save_script_end(store: Store, run: str, rank: int, exit_code: int, ended_ns: int) -> None:
    """Raises what the store raises."""
    document = {"exit_code": exit_code, "ended_ns": ended_ns}
    store.put(script_end_key(run, rank), json.dumps(document).encode(), replace=True)


def read_first_failure(store: Store, run: str) -> Optional[tuple[int, int]]:
    """Rank and exit code of the process whose script was the first to fail; None where none was noted."""
    found = []
    for entry in store.list(script_ends_prefix(run)):
        rank = entry.key.rpartition("/")[2].partition(".")[0]
        document = _read(store, entry.key) or {}
        code, ended_ns = document.get("exit_code"), document.get("ended_ns")
        if rank.isdigit() and isinstance(code, int) and isinstance(ended_ns, int):
            found.append((ended_ns, int(rank), code))
    return min(found)[1:] if found else None


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
