"""A network that can be left only through its proxy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from amlctl.azure_access.connections import Connections
from amlctl.errors import AmlctlError, ServiceUnavailable, SettingsError
from amlctl.stores.azure_blob.store import AzureBlobStore
from tests.support.azurite import Azurite, running_azurite
from tests.support.http_proxy import ForwardProxy, running_forward_proxy
from tests.support.throwaway_ca import make_certificate


@pytest.fixture
def proxy() -> Iterator[ForwardProxy]:
    with running_forward_proxy() as running:
        yield running


@pytest.fixture(scope="module")
def secure(azurite_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Azurite, Path]]:
    made = make_certificate(tmp_path_factory.mktemp("ca"))
    with running_azurite(["--cert", str(made.certificate), "--key", str(made.key)]) as service:
        yield service, made.authority


def _store_and_read(service: Azurite, variables: dict[str, str]) -> bytes:
    waits: list[float] = []
    everything = {"AZURE_STORAGE_KEY": service.key, **variables}
    store = AzureBlobStore(f"{service.url}/{service.new_container()}", everything, sleep=waits.append)
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


@pytest.mark.parametrize("name", ["ALL_PROXY", "all_proxy"])
def test_a_proxy_for_all_is_used_where_no_other_is_named(azurite: Azurite, proxy: ForwardProxy, name: str) -> None:
    others = {"HTTP_PROXY": "", "HTTPS_PROXY": "http://127.0.0.1:1"}
    assert _store_and_read(azurite, {name: proxy.url, **others}) == b"bytes"
    assert proxy.passed
    assert _store_and_read(azurite, {"HTTP_PROXY": proxy.url, name: "http://127.0.0.1:1"}) == b"bytes"


@pytest.mark.parametrize(("kind", "name"), [("https", "HTTPS_PROXY"), ("http", "HTTP_PROXY")])
@pytest.mark.parametrize(("host", "why"), [("127.0.0.1", "refused"), ("unknown.invalid", "its host is not known")])
def test_a_proxy_that_is_down_is_not_taken_for_the_store(kind: str, name: str, host: str, why: str) -> None:
    variables = {"AZURE_STORAGE_KEY": "eA==", name: f"http://{host}:1"}
    store = AzureBlobStore(f"{kind}://192.168.7.7/account/container", variables, sleep=lambda seconds: None)
    with pytest.raises(ServiceUnavailable) as caught:
        store.get("value")
    store.close()
    assert caught.value.message.startswith(f"the proxy {host}:1 for 192.168.7.7 does not answer: ")
    assert why in caught.value.message
    assert "NO_PROXY" in caught.value.hint


@pytest.mark.parametrize("exceptions", ["example.org, 127.0.0.1", "127.0.0.1:{port}", "127.0.0.0/8", "*"])
def test_no_proxy_is_honored(azurite: Azurite, proxy: ForwardProxy, exceptions: str) -> None:
    listed = exceptions.format(port=urlsplit(azurite.url).port)
    assert _store_and_read(azurite, {"HTTP_PROXY": proxy.url, "NO_PROXY": listed}) == b"bytes"
    assert not proxy.passed


@pytest.mark.parametrize(
    ("exceptions", "host", "is_direct"),
    [
        ("example.org", "example.org", True),
        ("Example.Org", "a.example.org", True),
        ("example.org", "badexample.org", False),
        (".example.org", "a.b.example.org", True),
        ("*.example.org", "a.example.org", True),
        ("*.example.org", "badexample.org", False),
        ("other.org b.example.org", "b.example.org", True),
        ("example.org:8000", "example.org", True),
        (".example.org:8000", "a.example.org", True),
        ("example.org:443", "example.org", False),
        ("*", "example.org", True),
        (" , ,", "example.org", False),
        ("10.0.0.0/8", "10.20.30.40", True),
        ("10.1.2.3/8", "10.20.30.40", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.0/8", "::1", False),
        ("10.0.0.0/8", "10.example.org", False),
        ("10.0.0.5:8000", "10.0.0.5", True),
        ("10.0.0.5:443", "10.0.0.5", False),
        ("::1", "::1", True),
        ("[::1]", "::1", True),
        ("[::1]:8000", "::1", True),
        ("[::1]:443", "::1", False),
        ("fd00::/8", "fd12::1", True),
        ("example.org:many", "example.org", False),
        ("10.0.0.0/99", "10.0.0.1", False),
    ],
)
def test_what_no_proxy_means(exceptions: str, host: str, is_direct: bool) -> None:
    variables = {"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": exceptions}
    connections = Connections(host, 8000, is_https=False, variables=variables)
    assert connections.request_head("GET", "/c", {}).startswith(b"GET /c ") is is_direct


@pytest.mark.parametrize("kind", ["socks5", "socks5h", "https"])
def test_a_proxy_of_another_kind_is_refused_where_it_would_be_used(azurite: Azurite, kind: str) -> None:
    variables = {"ALL_PROXY": f"{kind}://me:hush@127.0.0.1:1080"}
    with pytest.raises(SettingsError, match=f"ALL_PROXY: proxies of kind '{kind}' are not supported") as caught:
        AzureBlobStore(f"{azurite.url}/data", variables)
    assert "NO_PROXY" in caught.value.hint
    assert "hush" not in caught.value.message + caught.value.hint
    assert _store_and_read(azurite, {**variables, "NO_PROXY": "127.0.0.1"}) == b"bytes"


@pytest.mark.parametrize(
    "url",
    ["http://me:hush@[x", "http://me:hush@proxy:many", "http://me:hush@", "http://me:hush@a..b", "http://a proxy"],
)
def test_a_proxy_that_cannot_be_one_is_named_without_its_password(azurite: Azurite, url: str) -> None:
    with pytest.raises(SettingsError, match="HTTP_PROXY") as caught:
        AzureBlobStore(f"{azurite.url}/data", {"HTTP_PROXY": url})
    assert "hush" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("is_secure", [True, False])
def test_a_refused_login_is_reported_without_the_password(
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


def test_an_untrusted_certificate_is_explained(secure: tuple[Azurite, Path]) -> None:
    with pytest.raises(ServiceUnavailable) as caught:
        _store_and_read(secure[0], {})
    assert "certificate" in caught.value.message
    assert "REQUESTS_CA_BUNDLE" in caught.value.hint
