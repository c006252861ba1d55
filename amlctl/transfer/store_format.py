"""`format.json`: which format a store has. Looked at before the first write of a dataset or of code."""

from __future__ import annotations

import json

from amlctl.core.manifest import FORMAT, check_format
from amlctl.errors import IntegrityError, NotFound
from amlctl.stores.contract import Store, Versioned

FORMAT_KEY = "format.json"


def ensure_format(store: Store) -> None:
    """Write the mark into a new store. Raises SettingsError (a newer format), IntegrityError (no mark of ours).

    A dataset that has a HEAD needs no look: HEAD carries the number too.
    """
    found = store.get_versioned(FORMAT_KEY)
    if found is None:
        store.put(FORMAT_KEY, (json.dumps({"format": FORMAT}) + "\n").encode())
    else:
        _check(store, found)


def require_format(store: Store) -> None:
    """Before all of a store is looked at: a mistyped place is no empty store. Raises NotFound, and as above."""
    found = store.get_versioned(FORMAT_KEY)
    if found is None:
        raise NotFound(f"there is no store at {store.url}", hint="check the place; the first sync makes a store")
    _check(store, found)


def _check(store: Store, found: Versioned) -> None:
    try:
        number = json.loads(found.data)["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{FORMAT_KEY} of {store.url} cannot be read", hint="is it amlctl's store?") from error
    check_format(number)
