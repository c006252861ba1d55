"""The lease of a mirror: one holder, and none for ever."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from amlctl.core.events import Event
from amlctl.core.store_keys import dataset_folder
from amlctl.errors import Conflict
from amlctl.mirror.plain_files import MirrorLease
from amlctl.stores.contract import Store
from amlctl.stores.directory import DirectoryStore
from tests.support.faulty_store import FaultyStore

KEY = f"{dataset_folder('working/x')}/mirror.lease"


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path)


def _lease(
    store: Store,
    reported: list[Event] | None = None,
    stale_s: float = 60.0,
    clock: Callable[[], float] = time.monotonic,
) -> MirrorLease:
    sink = (lambda event: None) if reported is None else reported.append
    return MirrorLease(store, KEY, sink, stale_s=stale_s, ask_every_s=0.01, clock=clock)


def test_it_goes_from_one_to_the_next(store: DirectoryStore) -> None:
    for _ in range(3):
        reported: list[Event] = []
        lease = _lease(store, reported)
        lease.take()
        lease.confirm()
        lease.release()
        lease.release()
        assert reported == []


def test_a_holder_that_does_not_renew_loses_it(store: DirectoryStore) -> None:
    """Like a killed process: its lease is not renewed."""
    store.swap(KEY, b'{"host": "a machine that died", "machine": "0", "process": 1, "started": 1}', expected=None)
    reported: list[Event] = []
    lease = _lease(store, reported, stale_s=0.3)
    lease.take()
    assert "a machine that died" in str(reported)
    lease.release()


def test_a_holder_that_slept_too_long_notices(store: DirectoryStore) -> None:
    lease = _lease(store)
    lease.take()
    found = store.get_versioned(KEY)
    assert found is not None
    store.swap(KEY, b'{"host": "someone else", "machine": "0", "process": 1, "started": 1}', expected=found.version)
    with pytest.raises(Conflict, match="another machine"):
        lease.confirm()
    lease.release()
    assert b"someone else" in store.get(KEY)


class TestAStoppedHolder:
    """Its process was stopped, or its machine has slept: only its clock shows that."""

    @pytest.fixture
    def watched(self, store: DirectoryStore) -> FaultyStore:
        return FaultyStore(store, lambda call: None)

    @pytest.fixture
    def clock(self) -> list[float]:
        return [1000.0]

    @pytest.fixture
    def lease(self, watched: FaultyStore, clock: list[float]) -> Iterator[MirrorLease]:
        lease = _lease(watched, clock=lambda: clock[0])
        lease.take()
        watched.calls.clear()
        yield lease
        lease.release()

    def test_no_request_while_it_is_sure(self, watched: FaultyStore, clock: list[float], lease: MirrorLease) -> None:
        clock[0] += 29
        lease.check()
        assert watched.calls == []

    def test_it_stops_where_somebody_has_taken_it(
        self, store: DirectoryStore, clock: list[float], lease: MirrorLease
    ) -> None:
        found = store.get_versioned(KEY)
        assert found is not None
        store.swap(KEY, b'{"host": "someone else", "machine": "0", "process": 1, "started": 1}', expected=found.version)
        clock[0] += 61
        for _ in range(2):
            with pytest.raises(Conflict, match="another machine"):
                lease.check()

    def test_it_continues_without_a_holder(self, watched: FaultyStore, clock: list[float], lease: MirrorLease) -> None:
        clock[0] += 1000
        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(lease.check) for _ in range(20)]:
                done.result()
        assert [call.method for call in watched.calls] == ["swap"]


def test_a_holder_killed_on_this_machine_is_not_waited_for(store: DirectoryStore) -> None:
    code = "import os, platform, json; print(json.dumps({'host': platform.node(), 'process': os.getpid()}))"
    dead = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    store.swap(KEY, dead, expected=None)
    reported: list[Event] = []
    lease = _lease(store, reported)
    lease.take()
    assert reported == []
    lease.release()
