"""Large values in blocks: resumed after a kill, sent in part after an edit, never half there; on Azurite."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import xxhash
from azure.storage.blob import BlobClient

from amlctl.core.content_id import content_id
from amlctl.errors import Conflict, ServiceUnavailable
from amlctl.stores.azure_blob.blocks import ID_LENGTH, MAX_BLOCKS
from amlctl.stores.azure_blob.direct import BlobBody
from amlctl.stores.azure_blob.service import ANY
from amlctl.stores.azure_blob.store import AzureBlobStore
from amlctl.stores.azure_blob.upload import Limits
from amlctl.stores.contract import FileBody
from tests.support.azurite import Azurite
from tests.support.fault_proxy import FaultProxy, LoseRequest, Reply, Seen, fault_proxy

BLOCK = 16 << 10
Open = Callable[[int], AzureBlobStore]


@pytest.fixture
def proxy(azurite: Azurite) -> Iterator[FaultProxy]:
    with fault_proxy(azurite.url) as running:
        yield running


@pytest.fixture
def container(azurite: Azurite) -> str:
    return azurite.new_container()


@pytest.fixture
def open_with(azurite: Azurite, proxy: FaultProxy, container: str) -> Iterator[Open]:
    """A store behind the proxy with that many blocks a value at most."""
    opened: list[AzureBlobStore] = []

    def open_it(max_blocks: int = MAX_BLOCKS) -> AzureBlobStore:
        limits = Limits(2 * BLOCK, BLOCK, max_blocks, pack_block_bytes=BLOCK)
        variables = {"AZURE_STORAGE_KEY": azurite.key}
        store = AzureBlobStore(
            f"{proxy.url}/{container}/p", variables, workers=4, limits=limits, sleep=lambda seconds: None
        )
        opened.append(store)
        return store

    yield open_it
    for store in opened:
        store.close()


@pytest.fixture
def store(open_with: Open, proxy: FaultProxy) -> AzureBlobStore:
    store = open_with(MAX_BLOCKS)
    store.put("first", b"")
    proxy.seen.clear()
    return store


def _bytes(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def _body(folder: Path, data: bytes, predecessor: bytes | None = None) -> tuple[str, FileBody]:
    path = folder / content_id(data)
    path.write_bytes(data)
    before = None if predecessor is None else f"objects/{content_id(predecessor)}"
    return f"objects/{content_id(data)}", FileBody(path, len(data), content_id(data), before)


def test_blocks_arrive_as_one_value(store: AzureBlobStore, proxy: FaultProxy, tmp_path: Path) -> None:
    data = _bytes(20 * BLOCK + 77)
    key, body = _body(tmp_path, data)
    assert store.put(key, body) is True
    assert proxy.sent_block_bytes == len(data)
    assert store.get(key) == data
    assert store.put(key, body) is False
    assert proxy.sent_block_bytes == len(data)


def test_equal_blocks_travel_once(store: AzureBlobStore, proxy: FaultProxy, tmp_path: Path) -> None:
    key, body = _body(tmp_path, bytes(40 * BLOCK))
    store.put(key, body)
    assert proxy.sent_block_bytes == BLOCK
    assert store.get(key) == bytes(40 * BLOCK)


def test_an_interrupted_upload_is_resumed(store: AzureBlobStore, proxy: FaultProxy, tmp_path: Path) -> None:
    data = _bytes(20 * BLOCK)
    key, body = _body(tmp_path, data)
    arrived = 0

    def stop_after_twelve(seen: object) -> LoseRequest | None:
        nonlocal arrived
        arrived += 1
        return LoseRequest() if arrived > 12 else None

    proxy.act = stop_after_twelve
    with pytest.raises(ServiceUnavailable):
        store.put(key, body)
    proxy.act = lambda seen: None
    assert store.info(key) is None
    proxy.seen.clear()
    assert store.put(key, body) is True
    # Four were under way when it broke off: whether they have arrived is not known.
    assert 0 < proxy.sent_block_bytes <= 13 * BLOCK
    assert store.get(key) == data


def test_a_killed_sync_is_resumed_inside_the_file(
    azurite: Azurite, proxy: FaultProxy, container: str, tmp_path: Path
) -> None:
    """The real command with real block sizes, killed with SIGKILL when some blocks have arrived."""
    data = _bytes(96 << 20)
    dataset = tmp_path / "data_blobs/large"
    dataset.mkdir(parents=True)
    (tmp_path / ".amlctl.toml").write_text("")
    (dataset / "file.bin").write_bytes(data)
    command = [
        sys.executable,
        "-m",
        "amlctl",
        "--json",
        "sync",
        "data_blobs/large",
        "--store",
        f"{proxy.url}/{container}",
    ]
    environment = {**os.environ, "AZURE_STORAGE_KEY": azurite.key}
    enough = threading.Event()
    arrived = 0

    def count(seen: object) -> None:
        nonlocal arrived
        arrived += getattr(seen, "is_block", False)
        if arrived >= 8:
            enough.set()

    proxy.act = count
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL) as process:
        assert enough.wait(60)
        process.send_signal(signal.SIGKILL)
    proxy.seen.clear()
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert '"files": 1' in done.stdout
    assert proxy.sent_block_bytes <= len(data) - (3 * (4 << 20))
    blob = BlobClient.from_blob_url(
        f"{azurite.url}/{container}/amlctl/objects/{content_id(data)[:2]}/{content_id(data)}", credential=azurite.key
    )
    with blob:
        assert blob.download_blob().readall() == data


@pytest.mark.parametrize(
    ("edit", "most"),
    [
        (lambda data: data[: 50 * BLOCK] + _bytes(100, 2) + data[50 * BLOCK + 100 :], BLOCK),
        (lambda data: data + _bytes(BLOCK, 2), BLOCK),
        (lambda data: _bytes(100, 2) + data, 100),
        (lambda data: data[100:], BLOCK),
    ],
    ids=["edited", "appended", "inserted", "cut"],
)
@pytest.mark.parametrize("layout", ["object", "mirror"])
def test_a_changed_file_sends_what_changed(
    store: AzureBlobStore,
    azurite: Azurite,
    proxy: FaultProxy,
    container: str,
    tmp_path: Path,
    edit: Callable[[bytes], bytes],
    most: int,
    layout: str,
) -> None:
    old = _bytes(100 * BLOCK)
    new = edit(old)
    old_key, old_body = _body(tmp_path, old)
    new_key, new_body = _body(tmp_path, new, predecessor=old)
    if layout == "mirror":
        old_key = new_key = "mirror/d/file.bin"
    store.put(old_key, old_body, replace=layout == "mirror")
    proxy.seen.clear()
    store.put(new_key, new_body, replace=layout == "mirror")
    assert proxy.sent_block_bytes <= most
    assert store.get(new_key) == new
    if layout == "object":
        assert store.get(old_key) == old
        assert store.info(new_key) is not None
    else:
        with BlobClient.from_blob_url(f"{azurite.url}/{container}/p/{new_key}", credential=azurite.key) as blob:
            settings = blob.get_blob_properties().content_settings
        assert bytes(settings.content_md5 or b"") == hashlib.md5(new).digest()


def test_a_copy_that_was_not_finished_counts_as_missing(
    store: AzureBlobStore, proxy: FaultProxy, tmp_path: Path
) -> None:
    old = _bytes(30 * BLOCK)
    new = old[:-10] + b"0123456789"
    old_key, old_body = _body(tmp_path, old)
    new_key, new_body = _body(tmp_path, new, predecessor=old)
    store.put(old_key, old_body)
    refused = Reply(403, {"x-ms-error-code": "AuthorizationFailure"})
    proxy.act = lambda seen: refused if "comp=blocklist" in seen.path and seen.verb == "PUT" else None
    with pytest.raises(Exception, match="No right"):
        store.put(new_key, new_body)
    proxy.act = lambda seen: None
    assert any(entry.key == new_key for entry in store.list("objects/"))
    assert store.info(new_key) is None
    assert store.put(new_key, new_body) is True
    assert store.get(new_key) == new


@pytest.mark.parametrize("is_finished", [False, True])
def test_another_machine_copies_the_same_predecessor_at_the_same_time(
    store: AzureBlobStore,
    azurite: Azurite,
    open_with: Open,
    proxy: FaultProxy,
    container: str,
    tmp_path: Path,
    is_finished: bool,
) -> None:
    """Both have the same new version of a file: neither sends all of it, and neither is told of a conflict."""
    old = _bytes(30 * BLOCK)
    new = old[:-10] + b"0123456789"
    old_key, old_body = _body(tmp_path, old)
    new_key, new_body = _body(tmp_path, new, predecessor=old)
    store.put(old_key, old_body)
    blobs = f"{azurite.url}/{container}/p"

    def overtake(seen: Seen) -> None:
        if "x-ms-copy-source" not in map(str.lower, seen.headers):
            return
        proxy.act = lambda seen: None
        if is_finished:
            open_with(MAX_BLOCKS).put(new_key, new_body)
        else:
            with BlobClient.from_blob_url(f"{blobs}/{new_key}", credential=azurite.key) as blob:
                blob.start_copy_from_url(f"{blobs}/{old_key}", metadata={"copied_from": "the old one"})
        proxy.seen.clear()

    proxy.act = overtake
    assert store.put(new_key, new_body) is not is_finished
    assert proxy.sent_block_bytes == (0 if is_finished else BLOCK)
    assert store.get(new_key) == new


def test_an_object_that_a_mount_has_written_is_whole(azurite: Azurite) -> None:
    """A node writes through a mounted folder, which knows no metadata of ours."""
    container, data = azurite.new_container(), b"x" * 100_000
    key = f"objects/{content_id(data)[:2]}/{content_id(data)}"
    store = AzureBlobStore(f"{azurite.url}/{container}", {"AZURE_STORAGE_KEY": azurite.key})
    store.put("made", b"")
    blob = BlobClient.from_blob_url(f"{azurite.url}/{container}/amlctl/{key}", credential=azurite.key)
    with blob:
        blob.upload_blob(data)
        found = store.info(key)
        assert found is not None
        assert found.size_bytes == len(data)
        blob.set_blob_metadata({"copied_from": "another"})
        assert store.info(key) is None
    store.close()


def test_a_predecessor_that_is_gone_costs_only_bytes(store: AzureBlobStore, tmp_path: Path) -> None:
    data = _bytes(10 * BLOCK)
    key, body = _body(tmp_path, data, predecessor=b"never sent")
    assert store.put(key, body) is True
    assert store.get(key) == data


def test_a_file_that_changes_while_it_is_sent_leaves_nothing(store: AzureBlobStore, tmp_path: Path) -> None:
    key, body = _body(tmp_path, _bytes(10 * BLOCK))
    body.path.write_bytes(_bytes(10 * BLOCK, seed=9))
    with pytest.raises(Conflict, match="changed"):
        store.put(key, body)
    assert store.info(key) is None


def test_no_value_has_more_blocks_than_the_service_takes(open_with: Open, proxy: FaultProxy, tmp_path: Path) -> None:
    store = open_with(24)
    data = _bytes(20 * BLOCK)
    key, body = _body(tmp_path, data)
    store.put(key, body)
    for number in range(12):
        before, data = data, data[: number * BLOCK + 5] + b"!" + data[number * BLOCK + 5 :]
        key, body = _body(tmp_path, data, predecessor=before)
        store.put(key, body)
        assert store.get(key) == data
        lists = [seen for seen in proxy.seen if "comp=blocklist" in seen.path and seen.verb == "PUT"]
        assert lists[-1].size_bytes < 24 * 100


def test_a_mirrored_blob_of_another_program_is_replaced(
    store: AzureBlobStore, azurite: Azurite, container: str, tmp_path: Path
) -> None:
    """Its blocks have ids of another length, also those that it never committed."""
    data = _bytes(10 * BLOCK)
    with BlobClient.from_blob_url(f"{azurite.url}/{container}/p/mirror/d/f", credential=azurite.key) as blob:
        blob.stage_block(base64.b64encode(b"1").decode(), b"x" * 100)
        blob.commit_block_list([base64.b64encode(b"1").decode()])  # type: ignore[list-item]
    _, body = _body(tmp_path, data)
    store.put("mirror/d/f", body, replace=True)
    assert store.get("mirror/d/f") == data


@pytest.mark.parametrize("has_value", [False, True])
@pytest.mark.parametrize("layout", ["object", "mirror"])
def test_blocks_of_another_program_do_not_hinder(
    store: AzureBlobStore, azurite: Azurite, container: str, tmp_path: Path, layout: str, has_value: bool
) -> None:
    """The service refuses blocks whose ids have another length than those that wait already."""
    data = _bytes(10 * BLOCK)
    key, body = _body(tmp_path, data)
    if layout == "mirror":
        key = "mirror/d/f"
    with BlobClient.from_blob_url(f"{azurite.url}/{container}/p/{key}", credential=azurite.key) as blob:
        if has_value:
            blob.upload_blob(data[:100], metadata={"copied_from": "another"})
        blob.stage_block(base64.b64encode(b"1").decode(), b"x" * 100)
    assert store.put(key, body, replace=layout == "mirror") is True
    assert store.get(key) == data
    assert store.info(key) is not None


def test_a_list_whose_blocks_someone_else_has_taken_is_a_conflict(
    store: AzureBlobStore, azurite: Azurite, proxy: FaultProxy, container: str, tmp_path: Path
) -> None:
    _, body = _body(tmp_path, _bytes(10 * BLOCK))
    theirs = "as long as an id of ours".ljust(ID_LENGTH)
    with BlobClient.from_blob_url(f"{azurite.url}/{container}/p/mirror/d/f", credential=azurite.key) as blob:

        def overtake(seen: Seen) -> None:
            if "comp=blocklist" in seen.path and seen.verb == "PUT":
                blob.stage_block(theirs, b"the other's")
                blob.commit_block_list([theirs])  # type: ignore[list-item]

        proxy.act = overtake
        with pytest.raises(Conflict, match="someone else"):
            store.put("mirror/d/f", body, replace=True)
        assert store.get("mirror/d/f") == b"the other's"


@pytest.mark.parametrize("is_pack", [False, True])
def test_a_repair_reuses_no_block_of_the_right_name(open_with: Open, tmp_path: Path, *, is_pack: bool) -> None:
    """The service has blocks under the ids of ours, with other bytes: a disk has lied, or another program has."""
    store, key = open_with(MAX_BLOCKS), "objects/aa/x"
    data = random.Random(3).randbytes(6 * BLOCK)
    path = tmp_path / "file"
    path.write_bytes(data)
    store.put(key, [data] if is_pack else FileBody(path, len(data), content_id(data)))
    service = store._service
    blocks = service.block_lists(key)[0]
    assert len(blocks) == 6

    def stage(letter: bytes) -> None:
        for block in blocks:
            service.put_block(key, block.id, BlobBody([letter * block.size_bytes]))

    stage(b"x")
    if not is_pack:
        service.commit(key, [block.id for block in blocks], ANY, {"content_id": content_id(data)})
        assert store.get(key) == b"x" * len(data)
        stage(b"y")  # as a repair that was cut off may have left them
    store.put(key, [data] if is_pack else FileBody(path, len(data), content_id(data), is_sent_whole=True), replace=True)
    assert store.get(key) == data


def _put_raw(url: str, data: bytes) -> None:
    """A request of no SDK, since none takes bytes as the id of a block; `url` has a SAS."""
    headers = {"x-ms-version": "2021-12-02", "content-type": "application/octet-stream"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers, method="PUT")) as answer:
        assert answer.status == 201


@pytest.mark.parametrize("key", ["mirror/d/f", "objects/aa/x"])
def test_blocks_that_an_earlier_amlctl_has_sent_are_read_and_replaced(
    store: AzureBlobStore, azurite: Azurite, container: str, tmp_path: Path, key: str
) -> None:
    """Their ids are 48 bytes instead of text; some of them wait for a list, as after an upload that was cut off."""
    url, sas = f"{azurite.url}/{container}/p/{key}", azurite.sas(container)
    parts = [_bytes(BLOCK, seed) for seed in range(4)]
    ids = [base64.b64encode(xxhash.xxh3_128_digest(part) + part[:32]).decode() for part in parts]

    def stage(numbers: Sequence[int]) -> None:
        for number in numbers:
            _put_raw(f"{url}?comp=block&blockid={urllib.parse.quote(ids[number], safe='')}&{sas}", parts[number])

    stage(range(3))
    listed = "".join(f"<Latest>{one}</Latest>" for one in ids[:3])
    _put_raw(f"{url}?comp=blocklist&{sas}", f"<?xml version='1.0'?><BlockList>{listed}</BlockList>".encode())
    stage([3])
    assert store.get(key) == b"".join(parts[:3])
    data = b"".join(parts) + b"more"
    _, body = _body(tmp_path, data)
    assert store.put(key, body, replace=True) is True
    assert store.get(key) == data
    next_key = key + "2"
    path = tmp_path / "next"
    path.write_bytes(data + b"and more")
    after = FileBody(path, len(data) + 8, content_id(data + b"and more"), predecessor=key)
    assert store.put(next_key, after) is True
    assert store.get(next_key) == data + b"and more"
