"""Records of local runs: a working copy on this disk, and the same in the store after each change of state."""

from __future__ import annotations

import json

from amlctl.core.run import RunRecord
from amlctl.errors import AmlctlError, NotFound, SettingsError
from amlctl.localfs.atomic import read_json, write_json
from amlctl.runtime.run_keys import record_key
from amlctl.stores.contract import Store
from amlctl.workspaces.local.places import RunPlaces


def load(places: RunPlaces) -> RunRecord | None:
    """The working copy; None where there is none. Raises SettingsError."""
    try:
        return RunRecord.from_json(read_json(places.record))
    except (FileNotFoundError, NotADirectoryError):
        return None


def load_stored(store: Store, run: str) -> RunRecord:
    """The store's copy: of a run that another clone of the project has made. Raises NotFound, SettingsError."""
    try:
        return RunRecord.from_json(json.loads(store.get(record_key(run))))
    except NotFound:
        raise NotFound(f"no run {run!r}", hint="amlctl runs") from None
    except ValueError as error:
        raise SettingsError(f"the record of run {run} in the store {store.url} is no JSON: {error}") from error


def save(places: RunPlaces, store: Store, record: RunRecord) -> AmlctlError | None:
    """Write both copies. What keeps the store from taking its copy is returned, since the run goes on without.

    A final state is in the store before anybody can see it here.
    """
    if not record.is_final:
        write_json(places.record, record.to_json())
    trouble = None
    try:
        store.put(record_key(record.run), (json.dumps(record.to_json(), indent=2) + "\n").encode(), replace=True)
    except AmlctlError as error:
        trouble = error
    if record.is_final:
        write_json(places.record, record.to_json())
    return trouble
