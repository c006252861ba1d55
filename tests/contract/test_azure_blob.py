"""Azure Blob Storage keeps the promises of a store, on Azurite."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from amlctl.stores.azure_blob.store import AzureBlobStore, open_blob_store
from amlctl.stores.contract import Store
from tests.contract.store import StoreSuite
from tests.support.azurite import Azurite


class TestAzureBlobStore(StoreSuite):
    @pytest.fixture
    def reopened(self, azurite: Azurite) -> Iterator[Callable[[], Store]]:
        opened: list[AzureBlobStore] = []
        url = f"{azurite.url}/{azurite.new_container()}/a prefix"

        def open_again() -> Store:
            opened.append(open_blob_store(url, {"AZURE_STORAGE_KEY": azurite.key}))
            return opened[-1]

        yield open_again
        for store in opened:
            store.close()

    @pytest.fixture
    def store(self, reopened: Callable[[], Store]) -> Store:
        store = reopened()
        store.put("a", b"")  # makes the container
        store.delete("a")
        return store
