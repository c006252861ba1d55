"""`format.json` where it is lost or damaged: HEADs carry the id of the store, too."""

from __future__ import annotations

import json
import os
from collections import Counter

from amlctl.core.store_keys import FORMAT_KEY
from amlctl.errors import Conflict, IntegrityError, NotFound
from amlctl.snapshots.heads import list_datasets, read_head_value
from amlctl.snapshots.store_format import FORMAT, find_store_id
from amlctl.stores.contract import Store


def repair_format(store: Store) -> bool:
    """Whether it had to be repaired. Raises SettingsError (a newer format), and what the store raises."""
    found = store.get_versioned(FORMAT_KEY)
    present = None
    if found is not None:
        try:
            present = find_store_id(store)
        except IntegrityError:
            present = None
    elif not list_datasets(store):
        return False  # a new store
    wanted = _id_in_heads(store)
    if present is not None and wanted in ("", present):
        return False
    data = (json.dumps({"format": FORMAT, "id": wanted or os.urandom(16).hex()}) + "\n").encode()
    try:
        store.swap(FORMAT_KEY, data, expected=None if found is None else found.version)
    except Conflict:
        return False  # another command was faster
    return True


def _id_in_heads(store: Store) -> str:
    """The one that most HEADs have; empty where none has one."""
    ids: Counter[str] = Counter()
    for folder in list_datasets(store):
        try:
            ids[read_head_value(store, folder).store_id] += 1
        except (NotFound, IntegrityError):
            continue
    del ids[""]
    return ids.most_common(1)[0][0] if ids else ""
