"""What networks and the Blob service do: throttle, fail, refuse, lose requests and answers, between us and Azurite."""

from __future__ import annotations

import email.utils
import gc
import re
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient, ContainerSasPermissions, generate_container_sas

from amlctl.azure_access.http import WireResponse
from amlctl.core.content_id import content_id
from amlctl.core.events import null_sink
from amlctl.errors import AmlctlError, Conflict, LoginError, NotFound, RightsError, ServiceUnavailable, SettingsError
from amlctl.operations.store.verify import verify
from amlctl.stores.azure_blob.store import AzureBlobStore
from amlctl.stores.azure_blob.upload import Limits
from amlctl.stores.contract import FileBody, PlainFile
from tests.support.azurite import Azurite
from tests.support.fault_proxy import Act, FaultProxy, LoseAnswer, LoseRequest, Reply, Seen, fault_proxy
from tests.support.throwaway_ca import make_certificate

SMALL = Limits(single_bytes=64 << 10, block_bytes=16 << 10)


@pytest.fixture
def proxy(azurite: Azurite) -> Iterator[FaultProxy]:
    with fault_proxy(azurite.url) as running:
        yield running


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def store(azurite: Azurite, proxy: FaultProxy, slept: list[float]) -> Iterator[AzureBlobStore]:
    """Behind the proxy, in a container of its own, with short blocks; it does not wait, but notes for how long."""
    variables = {"AZURE_STORAGE_KEY": azurite.key}
    url = f"{proxy.url}/{azurite.new_container()}"
    opened = AzureBlobStore(url, variables, workers=4, limits=SMALL, sleep=slept.append)
    opened.put("there", b"bytes")
    proxy.seen.clear()
    yield opened
    opened.close()


def _once(reply: Reply | LoseAnswer | LoseRequest, *, times: int = 1) -> Act:
    left = [reply] * times
    return lambda seen: left.pop() if left else None


def test_an_answer_that_is_not_read_to_its_end_holds_no_connection(store: AzureBlobStore, proxy: FaultProxy) -> None:
    """The page of a network that wants a login first; with `close` only the response holds the connection."""
    page = {"connection": "close", "content-type": "text/html"}
    proxy.act = _once(Reply(200, page, b"<html>" * 50_000))
    with pytest.raises(ServiceUnavailable, match="not one of Blob Storage") as caught:
        store.get("there")
    assert caught.tb is not None  # an error that is kept keeps the answer, too
    assert not [one for one in gc.get_objects() if type(one) is WireResponse and not one.isclosed()]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_succeed_is_retried(store: AzureBlobStore, proxy: FaultProxy, slept: list[float], status: int) -> None:
    proxy.act = _once(Reply(status, {"x-ms-error-code": "ServerBusy"}), times=3)
    assert store.get("there") == b"bytes"
    assert len(proxy.seen) == 4
    assert len(slept) == 3
    assert slept[2] > slept[0]


@pytest.mark.parametrize("fault", [LoseRequest(), LoseAnswer()])
def test_a_broken_connection_is_tried_again(
    store: AzureBlobStore, proxy: FaultProxy, fault: LoseRequest | LoseAnswer
) -> None:
    proxy.act = _once(fault, times=2)
    assert store.get("there") == b"bytes"


@pytest.mark.parametrize(
    "header",
    [("Retry-After", "7"), ("x-ms-retry-after-ms", "7000"), ("Retry-After", "date")],
)
def test_retry_after_is_honored(
    store: AzureBlobStore, proxy: FaultProxy, slept: list[float], header: tuple[str, str]
) -> None:
    name, value = header
    if value == "date":
        value = email.utils.formatdate(time.time() + 9, usegmt=True)
    proxy.act = _once(Reply(503, {name: value}))
    store.get("there")
    assert 1 < slept[0] < 10  # of the date, less the time of the request


@pytest.mark.parametrize(
    "header",
    [
        ("Retry-After", "86400"),
        ("Retry-After", "Fri, 01 Jan 2100 00:00:00 GMT"),
        ("x-ms-retry-after-ms", "1e999"),
        ("x-ms-retry-after-ms", "nan"),
    ],
)
def test_retry_after_without_sense_does_not_hold_us(
    store: AzureBlobStore, proxy: FaultProxy, slept: list[float], header: tuple[str, str]
) -> None:
    proxy.act = _once(Reply(503, dict([header])))
    assert store.get("there") == b"bytes"
    assert slept == [60]


@pytest.mark.parametrize("header", [("Retry-After", "soon"), ("Retry-After", "\u00b2"), ("x-ms-retry-after-ms", "-5")])
def test_retry_after_that_cannot_be_read_counts_as_none(
    store: AzureBlobStore, proxy: FaultProxy, slept: list[float], header: tuple[str, str]
) -> None:
    proxy.act = _once(Reply(503, dict([header])))
    assert store.get("there") == b"bytes"
    assert 0 < slept[0] < 1


def test_a_service_that_does_not_come_back_is_reported(
    store: AzureBlobStore, proxy: FaultProxy, slept: list[float]
) -> None:
    proxy.act = lambda seen: Reply(503, {"x-ms-error-code": "ServerBusy", "x-ms-request-id": "abc"})
    with pytest.raises(ServiceUnavailable, match=r"503 ServerBusy.*abc") as caught:
        store.get("there")
    assert len(proxy.seen) == 6
    assert caught.value.exit_code == 6
    assert "again" in caught.value.hint


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(403, {"x-ms-error-code": "AuthorizationPermissionMismatch"}), RightsError),
        (Reply(403, {"x-ms-error-code": "AuthenticationFailed"}), LoginError),
        (Reply(401, {"x-ms-error-code": "NoAuthenticationInformation"}), LoginError),
        (Reply(404, {"x-ms-error-code": "BlobNotFound"}), NotFound),
        (Reply(409, {"x-ms-error-code": "LeaseIdMissing"}), Conflict),
        (Reply(412, {"x-ms-error-code": "LeaseIdMissing"}), Conflict),
        (Reply(400, {"x-ms-error-code": "InvalidHeaderValue"}), ServiceUnavailable),
    ],
)
def test_what_cannot_succeed_is_not_retried(
    store: AzureBlobStore, proxy: FaultProxy, slept: list[float], reply: Reply, error: type[AmlctlError]
) -> None:
    proxy.act = lambda seen: reply
    with pytest.raises(error) as caught:
        store.get("there")
    assert len(proxy.seen) == 1
    assert slept == []
    assert caught.value.hint or error is NotFound


@pytest.mark.parametrize(
    ("status", "code", "reported", "hint"),
    [
        (409, "BlobArchived", "is in the archive tier", "set-tier"),
        (409, "BlobImmutableDueToPolicy", "is kept by a policy", "immutability"),
        (409, "BlobImmutableDueToLegalHold", "is kept by a legal hold", "a container without one"),
        (409, "InvalidBlobType", "is a page or append blob", "az storage blob delete"),
        (412, "LeaseIdMissing", "is leased by another program", "lease break"),
    ],
)
def test_a_refusal_without_a_concurrent_change_is_reported_as_one(
    store: AzureBlobStore, proxy: FaultProxy, status: int, code: str, reported: str, hint: str
) -> None:
    proxy.act = lambda seen: Reply(status, {"x-ms-error-code": code})
    for write in (
        lambda: store.put("there", b"other", replace=True),
        lambda: store.swap("there", b"other", expected='"1"'),
    ):
        with pytest.raises(Conflict, match=reported) as caught:
            write()
        assert re.search(hint, caught.value.hint)


def test_a_container_that_is_being_deleted_is_reported(store: AzureBlobStore, proxy: FaultProxy) -> None:
    """It is gone already, and its name is not free yet."""

    def act(seen: Seen) -> Reply:
        code = "ContainerBeingDeleted" if "restype=container" in seen.path else "ContainerNotFound"
        return Reply(409 if code == "ContainerBeingDeleted" else 404, {"x-ms-error-code": code})

    proxy.act = act
    with pytest.raises(ServiceUnavailable, match="is being deleted") as caught:
        store.put("there", b"other", replace=True)
    assert "in a minute" in caught.value.hint


def test_folders_of_a_hierarchical_account_are_not_values(store: AzureBlobStore, proxy: FaultProxy) -> None:
    def blob(name: str, kind: str, size_bytes: int) -> str:
        about = f"<Last-Modified>Thu, 01 Jan 2026 00:00:00 GMT</Last-Modified><Content-Length>{size_bytes}"
        return f"<Blob><Name>{name}</Name><Properties>{about}</Content-Length>{kind}</Properties></Blob>"

    listed = blob("amlctl/packs/ab", "<ResourceType>directory</ResourceType>", 0)
    listed += blob("amlctl/packs/ab/abcd.zip", "<ResourceType>file</ResourceType>", 5)
    body = f"<EnumerationResults><Blobs>{listed}</Blobs><NextMarker/></EnumerationResults>".encode()
    proxy.act = lambda seen: Reply(200, {"x-ms-version": "1"}, body)
    assert [entry.key for entry in store.list("packs/")] == ["packs/ab/abcd.zip"]


def test_folders_that_mounts_have_made_are_not_values(azurite: Azurite, store: AzureBlobStore) -> None:
    """An empty blob for each, with metadata, whose letters depend on the tool."""
    container = ContainerClient(azurite.url, store.url.split("/")[-2], credential=azurite.key)
    for name, mark in (("objects/ab", "hdi_isfolder"), ("mirror/raw/x/sub", "Hdi_isfolder")):
        container.upload_blob(f"amlctl/{name}", b"", metadata={mark: "true"})
    store.put("mirror/raw/x/sub/a.txt", b"")
    assert [entry.key for entry in store.list("mirror/")] == ["mirror/raw/x/sub/a.txt"]
    assert not [one for one in verify(store, null_sink).damages if one.key.startswith("objects/")]


def test_a_wrong_clock_is_explained(store: AzureBlobStore, proxy: FaultProxy) -> None:
    theirs = email.utils.formatdate(time.time() + 3600, usegmt=True)
    proxy.act = lambda seen: Reply(403, {"x-ms-error-code": "AuthenticationFailed", "Date": theirs})
    with pytest.raises(LoginError, match="60 minutes behind") as caught:
        store.get("there")
    assert "clock" in caught.value.hint


def test_a_missing_permission_names_how_this_credential_gets_it(azurite: Azurite) -> None:
    container = azurite.new_container()
    with closing(AzureBlobStore(f"{azurite.url}/{container}", {"AZURE_STORAGE_KEY": azurite.key})) as owner:
        owner.put("there", b"1")
    permission = ContainerSasPermissions(read=True)
    expiry = datetime.now(UTC) + timedelta(hours=1)
    token = generate_container_sas(azurite.account, container, azurite.key, permission=permission, expiry=expiry)
    with closing(AzureBlobStore(f"{azurite.url}/{container}", {"AZURE_STORAGE_SAS_TOKEN": token})) as reader:
        assert reader.get("there") == b"1"
        with pytest.raises(RightsError, match="the SAS token allows 'r'") as caught:
            reader.put("other", b"1")
    assert "generate-sas" in caught.value.hint
    assert "sig=" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    ("status", "code", "why", "remedy"),
    [
        (403, "AuthorizationFailure", "network rules of account devstoreaccount1", "VPN"),
        (403, "KeyBasedAuthenticationNotPermitted", "devstoreaccount1 accepts no keys", "unset AZURE_STORAGE_KEY"),
        (403, "AuthorizationSourceIPMismatch", "not for the address of this machine", "az storage"),
        (403, "AccountIsDisabled", "is disabled", "owner of the subscription"),
        (409, "PublicAccessNotPermitted", "no public data", "az login"),
    ],
)
def test_the_code_of_a_refusal_says_its_reason(
    store: AzureBlobStore, proxy: FaultProxy, status: int, code: str, why: str, remedy: str
) -> None:
    proxy.act = lambda seen: Reply(status, {"x-ms-error-code": code})
    with pytest.raises(RightsError, match=rf"\({code}\).*{why}") as caught:
        store.get("there")
    assert remedy in caught.value.hint


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("PathConflict", r"the service refused .*: A folder has this name. \(PathConflict\)"),
        ("BlobAlreadyExists", "was changed by someone else"),
    ],
)
def test_other_conflicts_than_a_race_have_their_own_words(
    store: AzureBlobStore, proxy: FaultProxy, code: str, what: str
) -> None:
    body = b"<?xml version='1.0'?><Error><Message>A folder has this name.\nRequestId:1</Message></Error>"
    proxy.act = lambda seen: Reply(409, {"x-ms-error-code": code}, body)
    with pytest.raises(Conflict, match=what):
        store.put("there", b"1", replace=True)


@pytest.mark.parametrize("ago", [True, False])
def test_a_sas_out_of_its_time_is_explained(azurite: Azurite, ago: bool) -> None:
    moment = datetime.now(UTC) + timedelta(hours=-2 if ago else 2)
    token = generate_container_sas(
        azurite.account,
        "somewhere",
        azurite.key,
        permission=ContainerSasPermissions(read=True),
        start=moment,
        expiry=moment + timedelta(hours=1),
    )
    store = AzureBlobStore(f"{azurite.url}/somewhere", {"AZURE_STORAGE_SAS_TOKEN": token})
    with pytest.raises(LoginError, match="expired at" if ago else "not valid before") as caught:
        store.get("there")
    store.close()
    assert "sig=" not in caught.value.message + caught.value.hint


def test_a_key_of_another_account_is_explained_and_not_shown(azurite: Azurite) -> None:
    key = "bm90IHRoZSByaWdodCBrZXkgYXQgYWxs"
    store = AzureBlobStore(f"{azurite.url}/somewhere", {"AZURE_STORAGE_KEY": key})
    with pytest.raises(AmlctlError, match="not one of account devstoreaccount1") as caught:
        store.put("a", b"1")
    store.close()
    assert caught.value.exit_code == 3
    assert key not in repr(caught.value) + repr(store)


def test_a_host_that_does_not_exist(slept: list[float]) -> None:
    store = AzureBlobStore("https://no-such-account.invalid/data", {"AZURE_STORAGE_KEY": "eA=="}, sleep=slept.append)
    with pytest.raises(ServiceUnavailable, match="no-such-account"):
        store.get("there")


def test_a_service_that_does_not_listen(slept: list[float]) -> None:
    store = AzureBlobStore("http://127.0.0.1:1/account/data", {"AZURE_STORAGE_KEY": "eA=="}, sleep=slept.append)
    with pytest.raises(ServiceUnavailable, match="refused"):
        store.get("there")
    assert len(slept) == 5


@pytest.mark.parametrize(
    "variable", ["AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_CONNECTION_STRING"]
)
def test_a_variable_that_is_not_a_credential_is_named(variable: str) -> None:
    with pytest.raises(SettingsError, match=variable) as caught:
        AzureBlobStore("https://a.blob.core.windows.net/data", {variable: "!secret!"})
    assert "!secret!" not in caught.value.message


@pytest.mark.parametrize("end", [" &x=1", "\u00fc"])
@pytest.mark.parametrize("is_in_url", [True, False])
def test_a_sas_that_cannot_be_sent_is_not_shown(end: str, is_in_url: bool) -> None:
    url, token = "https://a.blob.core.windows.net/data", f"sv=1&sig=secret{end}"
    if is_in_url:
        url = f"{url}?{token}"
    with pytest.raises(SettingsError, match="SAS token") as caught:
        AzureBlobStore(url, {"AZURE_STORAGE_SAS_TOKEN": token})
    assert "secret" not in caught.value.message + caught.value.hint


def test_a_swap_whose_answer_was_lost_has_succeeded(store: AzureBlobStore, proxy: FaultProxy) -> None:
    first = store.swap("HEAD", b"1", expected=None)
    proxy.act = _once(LoseAnswer())
    second = store.swap("HEAD", b"2", expected=first)
    found = store.get_versioned("HEAD")
    assert found is not None
    assert (found.data, found.version) == (b"2", second)
    proxy.act = _once(LoseAnswer())
    with pytest.raises(Conflict):
        store.swap("HEAD", b"3", expected=first)


def test_a_put_whose_answer_was_lost_has_succeeded(store: AzureBlobStore, proxy: FaultProxy, tmp_path: Path) -> None:
    proxy.act = _once(LoseAnswer())
    store.put("packs/aa/a.zip", b"pack")
    assert store.get("packs/aa/a.zip") == b"pack"
    data = bytes(range(256)) * 1000
    (tmp_path / "large").write_bytes(data)
    key = f"objects/aa/{content_id(data)}"
    lose = {"blocklist": True}
    proxy.act = lambda seen: (
        LoseAnswer() if "comp=blocklist" in seen.path and seen.verb == "PUT" and lose.pop("blocklist", False) else None
    )
    assert store.put(key, FileBody(tmp_path / "large", len(data), content_id(data)))
    assert store.get(key) == data


def test_bytes_that_changed_on_the_way_are_refused(store: AzureBlobStore, azurite: Azurite, proxy: FaultProxy) -> None:
    """The checksum of each request is one that the service checks."""
    store.put("packs/aa/a.zip", b"pack")
    [seen] = [one for one in proxy.seen if one.verb == "PUT"]
    headers = {name.lower(): value for name, value in seen.headers.items()}
    assert headers["content-md5"]
    assert headers["if-none-match"] == "*"


def test_an_interrupted_download_is_resumed(store: AzureBlobStore, proxy: FaultProxy, tmp_path: Path) -> None:
    data = bytes(range(251)) * 100_000
    store.put("packs/aa/large.zip", data)
    proxy.act = _once(LoseAnswer(), times=3)
    assert store.download("packs/aa/large.zip", tmp_path / "back") == len(data)
    assert (tmp_path / "back").read_bytes() == data


def test_names_that_xml_cannot_have_are_listed(store: AzureBlobStore, proxy: FaultProxy) -> None:
    about = "<Last-Modified>Thu, 01 Jan 2026 00:00:00 GMT</Last-Modified><Content-Length>5</Content-Length>"
    name = '<Name Encoded="true">data/a%EF%BF%BEb%25</Name>'
    blob = f"<Blob>{name}<Properties>{about}</Properties></Blob><Blob><Name>data/a%25</Name><Properties>{about}"
    body = f"<EnumerationResults><Blobs>{blob}</Properties></Blob></Blobs><NextMarker/></EnumerationResults>".encode()
    proxy.act = lambda seen: Reply(200, {"x-ms-version": "1"}, body)
    assert [file.path for file in store.plain_files("data").files()] == ["a\ufffeb%", "a%25"]


@pytest.mark.parametrize("code", ["BlobArchived", "PendingCopyOperation"])
def test_a_plain_file_that_cannot_be_copied_is_not_taken_for_copied(
    store: AzureBlobStore, proxy: FaultProxy, code: str
) -> None:
    """Both have the status of a value that is there already."""
    plain = store.plain_files("amlctl")
    proxy.act = lambda seen: Reply(409, {"x-ms-error-code": code}) if seen.verb == "PUT" else None
    with pytest.raises(Conflict, match=f"amlctl/there in .*{code}"):
        plain.copy(PlainFile("there", 5), "", "objects/ab/abcd", "abcd")


@pytest.mark.parametrize("is_https", [False, True])
@pytest.mark.parametrize(("status", "said"), [(403, RightsError), (413, ServiceUnavailable)])
def test_a_refusal_before_a_large_body_was_sent_is_reported(
    slept: list[float], tmp_path: Path, status: int, said: type[AmlctlError], is_https: bool
) -> None:
    """A service that does not take a body ends the connection without reading it, which resets the connection: its
    own body may be cut off."""
    refusal = f"HTTP/1.1 {status} No\r\nx-ms-error-code: Refused\r\nx-ms-request-id: 1\r\ncontent-length: 9\r\n\r\nbody"
    made = make_certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(made.certificate, made.key)
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:

        def refuse() -> None:
            accepted, _ = server.accept()
            server.close()
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else the reset may come before the answer
            with tls.wrap_socket(accepted, server_side=True) if is_https else accepted as secured:
                assert secured.recv(100)
                secured.sendall(refusal.encode())

        url = "{}://{}:{}/acc/data".format("https" if is_https else "http", *server.getsockname())
        variables = {"AZURE_STORAGE_KEY": "eA==", "REQUESTS_CA_BUNDLE": str(made.authority)}
        refusing = pool.submit(refuse)
        opened = AzureBlobStore(url, variables, sleep=slept.append)
        with closing(opened) as store, pytest.raises(said, match="Refused"):
            store.put("runs/r/large", bytes(5 << 20), replace=True)
        refusing.result()
    assert slept == []
