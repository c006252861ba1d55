"""A network that lets nobody out but through its proxy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from amlctl.errors import AmlctlError, ServiceUnavailable
from amlctl.stores.azure_blob.store import open_blob_store
from tests.support.azurite import Azurite, running_azurite
from tests.support.http_proxy import ForwardProxy, running_forward_proxy
from tests.support.throwaway_ca import make_certificate


@pytest.fixture
def proxy() -> Iterator[ForwardProxy]:
    with running_forward_proxy() as running:
        yield running


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Azurite, Path]]:
    made = make_certificate(tmp_path_factory.mktemp("ca"))
    with running_azurite(["--cert", str(made.certificate), "--key", str(made.key)]) as service:
        yield service, made.authority


def _store_and_read(service: Azurite, variables: dict[str, str]) -> bytes:
    waits: list[float] = []
    everything = {"AZURE_STORAGE_KEY": service.key, **variables}
    store = open_blob_store(f"{service.url}/{service.new_container()}", everything, sleep=waits.append)
    try:
        store.put("value", b"bytes" * 100_000)
        return store.get("value", length=5)
    finally:
        store.close()
        assert not waits  # what a proxy or a certificate is against does not pass by waiting


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
def test_https_goes_through_a_tunnel(secure: tuple[Azurite, Path], proxy: ForwardProxy, name: str) -> None:
    service, authority = secure
    variables = {name: proxy.url, "REQUESTS_CA_BUNDLE": str(authority)}
    assert _store_and_read(service, variables) == b"bytes"
    assert set(proxy.tunnels) == {urlsplit(service.url).netloc}
    assert not proxy.passed


def test_plain_http_is_passed_on(azurite: Azurite, proxy: ForwardProxy) -> None:
    assert _store_and_read(azurite, {"HTTP_PROXY": proxy.url}) == b"bytes"
    assert set(proxy.passed) == {urlsplit(azurite.url).netloc}


def test_no_proxy_is_honoured(azurite: Azurite, proxy: ForwardProxy) -> None:
    assert _store_and_read(azurite, {"HTTP_PROXY": proxy.url, "NO_PROXY": "example.org, 127.0.0.1"}) == b"bytes"
    assert not proxy.passed


@pytest.mark.parametrize("is_secure", [True, False])
def test_a_refused_login_is_told_without_the_password(
    secure: tuple[Azurite, Path], azurite: Azurite, proxy: ForwardProxy, is_secure: bool
) -> None:
    service, authority = secure if is_secure else (azurite, Path("none"))
    wrong = proxy.url.replace("pass%20word", "hush-hush")
    variables = {"HTTPS_PROXY": wrong, "HTTP_PROXY": wrong}
    if is_secure:
        variables["REQUESTS_CA_BUNDLE"] = str(authority)
    with pytest.raises(AmlctlError) as caught:
        _store_and_read(service, variables)
    assert "407" in caught.value.message
    assert "proxy" in caught.value.message + caught.value.hint
    assert "hush-hush" not in caught.value.message + caught.value.hint


def test_a_certificate_that_nobody_trusts_is_explained(secure: tuple[Azurite, Path]) -> None:
    with pytest.raises(ServiceUnavailable) as caught:
        _store_and_read(secure[0], {})
    assert "certificate" in caught.value.message
    assert "REQUESTS_CA_BUNDLE" in caught.value.hint
