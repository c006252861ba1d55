"""The store of the simulator keeps the promises of stores."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from amlctl.stores.contract import Store
from tests.contract.store import StoreSuite
from tests.support.memory_store import MemoryStore


class TestMemoryStore(StoreSuite):
    @pytest.fixture
    def memory(self) -> MemoryStore:
        return MemoryStore(time.time)

    @pytest.fixture
    def store(self, memory: MemoryStore) -> Store:
        return memory

    @pytest.fixture
    def reopened(self, memory: MemoryStore) -> Callable[[], Store]:
        return lambda: memory  # nothing of it is outside of memory


class TestMemoryStoreLikeAFolder(TestMemoryStore):
    @pytest.fixture
    def memory(self) -> MemoryStore:
        return MemoryStore(time.time, is_folder=True)
