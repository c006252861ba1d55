"""Azure Blob Storage keeps the promises of a store, on Azurite, whoever asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from amlctl.stores.azure_blob.store import AzureBlobStore, open_blob_store
from amlctl.stores.contract import Store
from tests.contract.store import StoreSuite
from tests.support.azurite import Azurite, running_azurite
from tests.support.identity_endpoint import running_identity_endpoint
from tests.support.throwaway_ca import make_certificate

Open = Callable[[], Store]


class BlobSuite(StoreSuite):
    """`service` and `variables` say where and who."""

    @pytest.fixture
    def service(self, azurite: Azurite) -> Azurite:
        return azurite

    @pytest.fixture
    def container(self, service: Azurite) -> str:
        return service.new_container()

    @pytest.fixture
    def variables(self, service: Azurite, container: str) -> dict[str, str]:
        raise AssertionError("a subclass gives it")

    @pytest.fixture
    def reopened(self, service: Azurite, container: str, variables: dict[str, str]) -> Iterator[Open]:
        opened: list[AzureBlobStore] = []

        def open_again() -> Store:
            opened.append(open_blob_store(f"{service.url}/{container}/a prefix", variables))
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


class TestWithKey(BlobSuite):
    @pytest.fixture
    def variables(self, service: Azurite) -> dict[str, str]:
        return {"AZURE_STORAGE_KEY": service.key}


class TestWithConnectionString(BlobSuite):
    @pytest.fixture
    def variables(self, service: Azurite) -> dict[str, str]:
        return {"AZURE_STORAGE_CONNECTION_STRING": service.connection_string}


class TestWithSas(BlobSuite):
    """The container is there already: a token for one container may not make it."""

    @pytest.fixture
    def variables(self, service: Azurite, container: str) -> dict[str, str]:
        with_key = open_blob_store(f"{service.url}/{container}", {"AZURE_STORAGE_KEY": service.key})
        with_key.put("made", b"")
        with_key.close()
        token = generate_container_sas(
            service.account,
            container,
            service.key,
            permission=ContainerSasPermissions(read=True, write=True, delete=True, list=True, create=True),
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )
        return {"AZURE_STORAGE_SAS_TOKEN": f"?{token}"}


class TestWithLogin(BlobSuite):
    """DefaultAzureCredential over https, with a certificate that only REQUESTS_CA_BUNDLE makes trusted."""

    @pytest.fixture(scope="class")
    @classmethod
    def secure(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Azurite, Path]]:
        made = make_certificate(tmp_path_factory.mktemp("ca"))
        options = ["--cert", str(made.certificate), "--key", str(made.key), "--oauth", "basic"]
        with running_azurite(options) as service:
            yield service, made.authority

    @pytest.fixture
    def service(self, secure: tuple[Azurite, Path]) -> Azurite:
        return secure[0]

    @pytest.fixture
    def variables(self, secure: tuple[Azurite, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
        with running_identity_endpoint() as endpoint:
            for name, value in endpoint.variables.items():
                monkeypatch.setenv(name, value)
            yield {"REQUESTS_CA_BUNDLE": str(secure[1])}
            assert endpoint.asked
            assert {resource.rstrip("/") for resource in endpoint.asked} == {"https://storage.azure.com"}
