"""Records of local runs: a working copy on this disk, and the same in the store after each change of state."""

from __future__ import annotations

from amlctl.core.run import RunRecord
from amlctl.errors import AmlctlError, SettingsError
from amlctl.localfs.atomic import read_json, write_json
from amlctl.runtime.run_documents import load_record, save_record
from amlctl.stores.contract import Store
from amlctl.workspaces.local.places import RunPlaces


def load_copy(places: RunPlaces) -> RunRecord | None:
    """The working copy; None where there is none. Raises SettingsError."""
    try:
        return RunRecord.from_json(read_json(places.record))
    except (FileNotFoundError, NotADirectoryError):
        return None


def load(places: RunPlaces, store: Store) -> RunRecord | None:
    """The working copy; None where there is none. One that a power cut has damaged is replaced by the store's.

    Raises SettingsError where neither can be read.
    """
    try:
        return load_copy(places)
    except SettingsError:
        record = load_record(store, places.run)
        if record is None:
            raise
        write_json(places.record, record.to_json())
        return record


def save(places: RunPlaces, store: Store, record: RunRecord) -> AmlctlError | None:
    """Write both copies. What keeps the store from taking its copy is returned, since the run goes on without.

    A final state is in the store before anybody can see it here.
    """
    if not record.is_final:
        write_json(places.record, record.to_json())
    trouble = None
    try:
        save_record(store, record)
    except AmlctlError as error:
        trouble = error
    if record.is_final:
        write_json(places.record, record.to_json())
    return trouble
