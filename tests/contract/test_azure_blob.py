"""Azure Blob Storage keeps the promises of a store, on Azurite, with each kind of credential."""

from __future__ import annotations

import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from amlctl.azure_access.login import Login
from amlctl.errors import LoginError, SettingsError
from amlctl.stores.azure_blob.store import AzureBlobStore
from amlctl.stores.contract import Store
from tests.contract.store import StoreSuite
from tests.support.azurite import Azurite, running_azurite
from tests.support.fault_proxy import Reply, fault_proxy
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
            opened.append(AzureBlobStore(f"{service.url}/{container}/a prefix", variables))
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


class TestWithSas(BlobSuite):
    """The container is there already: a token for one container may not make it."""

    @pytest.fixture
    def variables(self, service: Azurite, container: str) -> dict[str, str]:
        with_key = AzureBlobStore(f"{service.url}/{container}", {"AZURE_STORAGE_KEY": service.key})
        with_key.put("made", b"")
        with_key.close()
        return {"AZURE_STORAGE_SAS_TOKEN": f"?{service.sas(container)}"}


class TestWithLogin(BlobSuite):
    """DefaultAzureCredential over https, with a certificate that only REQUESTS_CA_BUNDLE makes trusted."""

    @pytest.fixture(scope="class")
    @classmethod
    def secure(
        cls, azurite_installed: None, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[tuple[Azurite, Path]]:
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

    def test_a_login_signs_links(self, store: AzureBlobStore, secure: tuple[Azurite, Path]) -> None:
        """With a user delegation key, which the service gives for the login."""
        store.put("runs/r/outputs/x ü", b"42")
        longest = datetime.now(UTC) + timedelta(days=7)
        links = store.links(longest)
        assert timedelta(minutes=4) < longest - links.until < timedelta(minutes=6), "as the service's clock may differ"
        links.copy("runs/r/outputs/x ü", "runs/r/shared/x ü")
        url = links.link("runs/r/shared/x ü", "text/plain")
        trusted = ssl.create_default_context(cafile=str(secure[1]))
        with urllib.request.urlopen(url, context=trusted) as answer:
            assert (answer.headers["content-type"], answer.read()) == ("text/plain", b"42")
        assert "skoid=" in url, "it is signed by a user delegation key"
        store.delete("runs/r/shared/x ü")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(url, context=trusted)


@pytest.mark.parametrize(
    "name",
    [
        "back\\slash",
        "new\nline",
        "bell\x07",
        "c1\x85",
        "trailing.",
        "folder./file",
        os.fsdecode(b"latin-\xe9"),
        "n" * 1030,
    ],
)
def test_names_that_no_blob_can_have_are_refused(azurite: Azurite, name: str) -> None:
    store = AzureBlobStore(f"{azurite.url}/{azurite.new_container()}", {"AZURE_STORAGE_KEY": azurite.key})
    with pytest.raises(SettingsError) as caught:
        store.put(f"mirror/d/{name}", b"1", replace=True)
    assert ".amlctlignore" in caught.value.hint
    with pytest.raises(SettingsError, match=r"cannot be the name|is longer than"):
        store.check_key(f"mirror/d/{name}")
    store.close()


def test_another_token_is_asked_for_once_one_is_refused(
    azurite: Azurite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As after a change of the password: a kept token looks good here, and the service thinks otherwise."""
    refused = {"WWW-Authenticate": "Bearer", "x-ms-error-code": "InvalidAuthenticationInfo"}
    made = make_certificate(tmp_path)
    with running_identity_endpoint() as endpoint, fault_proxy(azurite.url, made) as proxy:
        for name, value in endpoint.variables.items():
            monkeypatch.setenv(name, value)
        Login().token("https://storage.azure.com")  # by an earlier command, which has kept it
        answers = [Reply(401, refused)] * 2
        proxy.act = lambda seen: answers.pop() if len(answers) > 1 else Reply(200, {"x-ms-version": "1", "ETag": "1"})
        trusting = {"REQUESTS_CA_BUNDLE": str(made.authority)}
        store = AzureBlobStore(f"{proxy.url}/{azurite.new_container()}", trusting)
        assert store.swap("a", b"1", expected=None) == "1"
        assert len(endpoint.asked) == 2
        proxy.act = lambda seen: Reply(401, refused)
        with pytest.raises(LoginError):
            store.swap("a", b"1", expected=None)
        assert len(proxy.seen) == 2 + 2
        store.close()


def test_a_connection_string_has_the_key(azurite: Azurite) -> None:
    variables = {"AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string}
    store = AzureBlobStore(f"{azurite.url}/{azurite.new_container()}", variables)
    store.put("a", b"1")
    assert store.get("a") == b"1"
    store.close()


def test_a_login_is_not_sent_over_plain_http(azurite: Azurite) -> None:
    store = AzureBlobStore(f"{azurite.url}/{azurite.new_container()}", {})
    for ask in (lambda: store.put("a", b"1"), lambda: store.get_versioned("a")):
        with pytest.raises(SettingsError, match="HTTPS") as caught:
            ask()
        assert "AZURE_STORAGE_KEY" in str(caught.value.hint)
    store.close()
