"""The benchmarks' own Blob service is one for every client: amlctl's store and Microsoft's library."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from azure.core import MatchConditions
from azure.core.exceptions import ResourceExistsError, ResourceModifiedError, ResourceNotFoundError
from azure.storage.blob import BlobBlock, BlobServiceClient, ContainerClient

from amlctl.stores.azure_blob.store import AzureBlobStore
from amlctl.stores.contract import Store
from benchmarks.blob_service import ACCOUNT, running_blob_service
from tests.contract.store import StoreSuite
from tests.contract.test_azure_blob import Open
from tests.support.azurite import KEY


@pytest.fixture(scope="module")
def account_url() -> Iterator[str]:
    with running_blob_service() as port:
        yield f"http://127.0.0.1:{port}/{ACCOUNT}"


class TestStore(StoreSuite):
    @pytest.fixture
    def reopened(self, account_url: str) -> Iterator[Open]:
        opened: list[AzureBlobStore] = []
        container = f"c{uuid.uuid4().hex[:16]}"

        def open_again() -> Store:
            opened.append(AzureBlobStore(f"{account_url}/{container}/a prefix", {"AZURE_STORAGE_KEY": KEY}))
            return opened[-1]

        yield open_again
        for store in opened:
            store.close()

    @pytest.fixture
    def store(self, reopened: Open) -> Store:
        store = reopened()
        store.put("first", b"")  # makes the container
        store.delete("first")
        return store


@pytest.fixture
def container(account_url: str) -> Iterator[ContainerClient]:
    with BlobServiceClient(account_url, credential={"account_name": ACCOUNT, "account_key": KEY}) as client:
        yield client.create_container(f"c{uuid.uuid4().hex[:16]}")


def test_microsofts_library_puts_gets_lists_and_deletes(container: ContainerClient) -> None:
    names = [f"folder {number % 3}/ä&{number}" for number in range(12)]
    for name in names:
        container.upload_blob(name, name.encode() * 100, metadata={"made": "by hand"})
    assert sorted(container.list_blob_names()) == sorted(names)
    assert [blob.name for blob in container.walk_blobs()] == ["folder 0/", "folder 1/", "folder 2/"]
    pages = list(container.list_blobs(results_per_page=5, include=["metadata"]).by_page())
    assert [blob.metadata for page in pages for blob in page] == [{"made": "by hand"}] * 12
    assert container.download_blob(names[3], offset=3, length=50).readall() == (names[3].encode() * 100)[3:53]
    container.delete_blob(names[0])
    with pytest.raises(ResourceNotFoundError):
        container.get_blob_client(names[0]).get_blob_properties()


def test_conditions_hold(container: ContainerClient) -> None:
    container.upload_blob("a", b"1")
    with pytest.raises(ResourceExistsError):
        container.upload_blob("a", b"2")
    blob = container.get_blob_client("a")
    etag = blob.get_blob_properties().etag
    blob.upload_blob(b"3", overwrite=True, etag=etag, match_condition=MatchConditions.IfNotModified)
    with pytest.raises(ResourceModifiedError):
        blob.upload_blob(b"4", overwrite=True, etag=etag, match_condition=MatchConditions.IfNotModified)
    assert blob.download_blob().readall() == b"3"


def test_blocks_are_kept_by_a_copy(container: ContainerClient) -> None:
    blob, copy = container.get_blob_client("a"), container.get_blob_client("b")
    for number in range(3):
        blob.stage_block(f"{number}", bytes([number]) * 100_000)
    assert [block.id for block in blob.get_block_list("all")[1]] == ["0", "1", "2"]
    blob.commit_block_list([BlobBlock(str(number)) for number in range(3)])
    copy.start_copy_from_url(blob.url, requires_sync=True)
    copy.stage_block("9", b"new")
    copy.commit_block_list([BlobBlock("2"), BlobBlock("9"), BlobBlock("0")])
    assert copy.download_blob().readall() == b"\2" * 100_000 + b"new" + b"\0" * 100_000
    assert [block.id for block in copy.get_block_list()[0]] == ["2", "9", "0"]
