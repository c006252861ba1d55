"""Records of local runs: a working copy on this disk, and the same in the store after each change of state.

Only the holder of the run's lock writes the working copy. A damaged one is replaced by the store's, also only under
that lock: a copy that was read before the run ended must not be written over its final record.
"""

from __future__ import annotations

from amlctl.core.message import Command
from amlctl.core.run import RunRecord
from amlctl.errors import AmlctlError, IntegrityError
from amlctl.runs import local_records as run_records
from amlctl.runs.documents import load_record, save_record
from amlctl.stores.contract import Store
from amlctl.workspaces.local.places import RunPlaces


def load_copy(places: RunPlaces) -> RunRecord | None:
    """The working copy; None if it does not exist. Raises IntegrityError."""
    return run_records.load(places.state_dir, places.run)


def load(places: RunPlaces, store: Store) -> RunRecord | None:
    """The working copy, or the store's if that is damaged; None without a working copy.

    Raises IntegrityError where neither can be read.
    """
    try:
        return load_copy(places)
    except IntegrityError as error:
        return _from_store(places, store, error)


def _from_store(places: RunPlaces, store: Store, damage: IntegrityError) -> RunRecord:
    try:
        record = load_record(store, places.run)
    except IntegrityError as error:
        raise IntegrityError(
            f"{error.message}, here and in the store", hint=Command("runs", "delete", places.run)
        ) from error
    if record is None:
        raise IntegrityError(
            f"{damage.message}, and the store has none", hint=Command("runs", "delete", places.run)
        ) from damage
    return record


def restore_copy(places: RunPlaces, store: Store) -> None:
    """Replace a damaged working copy by the store's. Only the holder of the run's lock may call it.

    Raises IntegrityError where neither can be read, OSError.
    """
    try:
        load_copy(places)
    except IntegrityError as error:
        run_records.save(places.state_dir, _from_store(places, store, error))


def save(places: RunPlaces, store: Store, record: RunRecord) -> AmlctlError | None:
    """Write both copies. What keeps the store from taking its copy is returned, since the run goes on without.

    A final state is in the store before anybody can see it here.
    """
    if not record.is_final:
        run_records.save(places.state_dir, record)
    trouble = None
    try:
        save_record(store, record)
    except AmlctlError as error:
        trouble = error
    if record.is_final:
        run_records.save(places.state_dir, record)
    return trouble
