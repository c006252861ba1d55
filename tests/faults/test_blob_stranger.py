"""A host that answers, but is not Blob Storage: the page of a network that wants a login, a mistyped URL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from amlctl.core.content_id import content_id
from amlctl.errors import ServiceUnavailable
from amlctl.stores.azure_blob.store import AzureBlobStore
from amlctl.stores.azure_blob.upload import Limits
from amlctl.stores.contract import FileBody
from tests.support.azurite import Azurite
from tests.support.fault_proxy import FaultProxy, Reply, fault_proxy

Use = Callable[[AzureBlobStore, Path], object]

_LARGE = b"bytes" * 10_000
_PAGE = b"<!DOCTYPE html><html><body><p>Log in to the network<br></body></html>"
_XHTML = b"<html><body><p>Log in to the network</p></body></html>"
_SIGN = {"x-ms-request-id": "1", "x-ms-version": "2021-12-02"}


def _upload(store: AzureBlobStore, folder: Path) -> None:
    (folder / "large").write_bytes(_LARGE)
    store.put("mirror/d/large", FileBody(folder / "large", len(_LARGE), content_id(_LARGE)))


_USES: dict[str, Use] = {
    "get": lambda store, folder: store.get("there"),
    "get_versioned": lambda store, folder: store.get_versioned("there"),
    "info": lambda store, folder: store.info("there"),
    "list": lambda store, folder: list(store.list("")),
    "download": lambda store, folder: store.download("there", folder / "back"),
    "put": lambda store, folder: store.put("new", b"bytes"),
    "swap": lambda store, folder: store.swap("new", b"bytes", expected=None),
    "delete": lambda store, folder: store.delete("there"),
    "upload": _upload,
}


@pytest.fixture
def proxy(azurite: Azurite) -> Iterator[FaultProxy]:
    with fault_proxy(azurite.url) as running:
        yield running


@pytest.fixture
def store(azurite: Azurite, proxy: FaultProxy) -> Iterator[AzureBlobStore]:
    waits: list[float] = []
    opened = AzureBlobStore(
        f"{proxy.url}/{azurite.new_container()}",
        {"AZURE_STORAGE_KEY": azurite.key},
        limits=Limits(single_bytes=16 << 10, block_bytes=8 << 10),
        sleep=waits.append,
    )
    opened.put("there", b"bytes")
    yield opened
    opened.close()
    assert not waits  # a login page does not pass by waiting


def _assert_reported(use: Use, store: AzureBlobStore, folder: Path) -> ServiceUnavailable:
    with pytest.raises(ServiceUnavailable, match=r"the answer of 127\.0\.0\.1 is not one of Blob Storage") as caught:
        use(store, folder)
    assert "URL" in caught.value.hint
    assert "log in" in caught.value.hint
    return caught.value


@pytest.mark.parametrize("status", [200, 201, 302, 403, 404, 409, 511])
@pytest.mark.parametrize("use", _USES.values(), ids=_USES)
def test_a_page_in_place_of_the_service(
    store: AzureBlobStore, proxy: FaultProxy, tmp_path: Path, use: Use, status: int
) -> None:
    proxy.act = lambda seen: Reply(status, {"Content-Type": "text/html"}, b"" if seen.verb == "HEAD" else _PAGE)
    reported = _assert_reported(use, store, tmp_path)
    assert f"({status}, text/html)" in reported.message
    assert not (tmp_path / "back").exists() or (tmp_path / "back").read_bytes() == b""


@pytest.mark.parametrize("body", [_PAGE, _XHTML, b"", b'<?xml version="1.0" encoding="none"?><a/>'])
@pytest.mark.parametrize("name", ["list", "upload"])
def test_another_document_in_place_of_the_service_s(
    store: AzureBlobStore, proxy: FaultProxy, tmp_path: Path, name: str, body: bytes
) -> None:
    proxy.act = lambda seen: Reply(200, _SIGN, body)
    _assert_reported(_USES[name], store, tmp_path)


@pytest.mark.parametrize("status", [200, 201, 206])
@pytest.mark.parametrize("name", ["get_versioned", "info", "swap", "download"])
def test_headers_that_are_missing(
    store: AzureBlobStore, proxy: FaultProxy, tmp_path: Path, name: str, status: int
) -> None:
    proxy.act = lambda seen: Reply(status, _SIGN)
    _assert_reported(_USES[name], store, tmp_path)


@pytest.mark.parametrize("moment", ["", "yesterday", "Mon, 01 Jan 2024 00:00:00 +99999999999999"])
def test_an_invalid_time(store: AzureBlobStore, proxy: FaultProxy, tmp_path: Path, moment: str) -> None:
    listed = (
        "<EnumerationResults><Blobs><Blob><Name>amlctl/there</Name><Properties><Content-Length>5</Content-Length>"
        f"<Last-Modified>{moment}</Last-Modified></Properties></Blob></Blobs></EnumerationResults>"
    )
    proxy.act = lambda seen: Reply(
        200, {**_SIGN, "Last-Modified": moment, "ETag": "1"}, b"" if seen.verb == "HEAD" else listed.encode()
    )
    _assert_reported(_USES["info"], store, tmp_path)
    _assert_reported(_USES["list"], store, tmp_path)


@pytest.mark.parametrize("size", ["many", "-5", "\u00b2"])
def test_an_invalid_size(store: AzureBlobStore, proxy: FaultProxy, tmp_path: Path, size: str) -> None:
    proxy.act = lambda seen: Reply(
        206, {**_SIGN, "Content-Length": "0", "Content-Range": f"bytes 0-4/{size}", "ETag": "1"}
    )
    _assert_reported(_USES["download"], store, tmp_path)
    listed = (
        "<EnumerationResults><Blobs><Blob><Name>amlctl/there</Name><Properties>"
        f"<Content-Length>{size}</Content-Length></Properties></Blob></Blobs></EnumerationResults>"
    )
    proxy.act = lambda seen: Reply(200, _SIGN, listed.encode())
    _assert_reported(_USES["list"], store, tmp_path)
