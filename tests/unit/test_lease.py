"""The lease of a mirror: one holder, and none for ever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from amlctl.core.events import Event
from amlctl.core.manifest import dataset_folder
from amlctl.errors import Conflict
from amlctl.stores.directory import DirectoryStore
from amlctl.transfer.lease import MirrorLease

KEY = f"{dataset_folder('working/x')}/mirror.lease"


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path)


def _lease(store: DirectoryStore, told: list[Event] | None = None, stale_s: float = 60.0) -> MirrorLease:
    sink = (lambda event: None) if told is None else told.append
    return MirrorLease(store, "working/x", sink, stale_s=stale_s, ask_every_s=0.01)


def test_it_goes_from_one_to_the_next(store: DirectoryStore) -> None:
    for _ in range(3):
        lease, told = _lease(store), []
        lease.take()
        lease.confirm()
        lease.release()
        lease.release()
        assert told == []


def test_who_is_not_renewed_any_more_loses_it(store: DirectoryStore) -> None:
    """As a killed process: nobody renews what it has left."""
    store.swap(KEY, b'{"host": "a machine that died", "process": 1}', expected=None)
    told: list[Event] = []
    lease = _lease(store, told, stale_s=0.3)
    lease.take()
    assert "a machine that died" in str(told)
    lease.release()


def test_who_slept_too_long_is_told(store: DirectoryStore) -> None:
    lease = _lease(store)
    lease.take()
    found = store.get_versioned(KEY)
    assert found is not None
    store.swap(KEY, b'{"host": "someone else", "process": 1}', expected=found.version)
    with pytest.raises(Conflict, match="another machine"):
        lease.confirm()
    lease.release()
    assert b"someone else" in store.get(KEY)


def test_who_was_killed_on_this_machine_is_not_waited_for(store: DirectoryStore) -> None:
    code = "import os, platform, json; print(json.dumps({'host': platform.node(), 'process': os.getpid()}))"
    dead = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    store.swap(KEY, dead, expected=None)
    told: list[Event] = []
    lease = _lease(store, told)
    lease.take()
    assert told == []
    lease.release()
