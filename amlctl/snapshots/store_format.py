"""`format.json`: which format a store has, and its identity, looked at before the first write of a dataset or of code.

The id is what this machine's records of a store go by: a store that was moved, mounted elsewhere or spelled in another
way is still the same one.
"""

from __future__ import annotations

import json
import os

from amlctl.core.document import Fields, parse
from amlctl.core.message import Command, Message
from amlctl.core.store_keys import DATASETS, FORMAT_KEY
from amlctl.errors import Conflict, IntegrityError, NotFound
from amlctl.stores.contract import Store, Versioned

STORE_FORMAT = 2
"""Format 1 had no id. It stays readable, and the next writer adds one."""
_REPAIR = Message(Command("sync", "--repair", "PATH"), " with any dataset writes it again, if this is amlctl's store")


def ensure_format(store: Store) -> str:
    """The id of the store; written if it has none. Raises SettingsError (a newer format), IntegrityError.

    A dataset whose HEAD names the store needs no look.
    """
    while True:
        found = store.get_versioned(FORMAT_KEY)
        store_id = "" if found is None else _id_in(store, found)
        if store_id:
            return store_id
        store_id = os.urandom(16).hex()
        data = (json.dumps({"format": STORE_FORMAT, "id": store_id}) + "\n").encode()
        try:
            store.swap(FORMAT_KEY, data, expected=None if found is None else found.version)
        except Conflict:
            continue  # another writer was faster
        return store_id


def find_store_id(store: Store) -> str:
    """Empty where the store has none yet. Writes nothing. Raises as above."""
    found = store.get_versioned(FORMAT_KEY)
    return "" if found is None else _id_in(store, found)


def require_format(store: Store) -> None:
    """Before all of a store is looked at: a mistyped address is not an empty store, and a store that has lost its
    format.json is not a mistyped address. Raises NotFound, and as above."""
    found = store.get_versioned(FORMAT_KEY)
    if found is None:
        if any(store.list(DATASETS)):
            raise IntegrityError(f"{FORMAT_KEY} of {store.url} is missing", hint=_REPAIR)
        raise NotFound(f"no store at {store.url}", hint="check the address; the first sync creates a store")
    _id_in(store, found)


def _id_in(store: Store, found: Versioned) -> str:
    try:
        fields = Fields(parse(found.data))
        number = fields.format(STORE_FORMAT, f"the store {store.url}")
        return fields.content_id("id") if number == STORE_FORMAT and fields.text("id") else ""
    except ValueError as error:
        raise IntegrityError(f"{FORMAT_KEY} of {store.url} cannot be read", hint=_REPAIR) from error
